//! Behaviour through public surfaces: the command, HTTP, QUIC and files, with a real Nix.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod access_table;
mod attachments;
mod bad_input_quic;
mod caches;
mod cli;
mod config;
mod fixture;
mod formats;
mod http;
mod kill;
mod local_stores;
mod main_job;
mod namespaces;
mod nix_store;
mod pages;
mod pairing;
mod private_reads;
mod push_arguments;
mod quic_client;
mod recorded_requests;
mod resume;
mod samples;
mod secrets;
mod serve;
mod signing;
mod simulation;
mod stranger;
mod tls;
mod tls_fallback;
mod tokens;
mod use_bad_input;
mod use_cache;
mod visibility;
