//! The substituter and the admin API over HTTP.
