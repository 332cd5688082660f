//! The push protocol over QUIC.
