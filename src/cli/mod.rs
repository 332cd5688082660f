//! Commands for people: arguments, output, exit codes. One file a verb.

#[expect(rustdoc::broken_intra_doc_links, reason = "the docs there are the help that people read")]
mod args;
mod authtoken;
mod backup;
mod cache;
mod config;
mod context;
mod discover;
mod duration;
mod exit;
mod fsck;
mod gc;
mod generate_keypair;
mod interrupt;
mod key;
mod log;
mod near;
mod nix_changes;
mod output;
mod pair;
mod path;
mod pin;
mod progress;
mod push;
mod recover;
mod remove;
mod restore;
mod serve;
mod shell;
mod status;
mod token;
mod use_cache;
mod version;

use std::env;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use tokio::runtime;

use crate::cli::args::{Cli, Command, Global};
use crate::cli::context::Context;
use crate::cli::exit::Complaint;
use crate::cli::output::Output;
use crate::daemon::logging::{self, LogFilter, LogOptions};

pub use exit::Exit;

/// All of `src/main.rs` is a call of this.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(stop) => {
            // Help and versions come this way too. With nobody there to read, nothing is lost.
            let _nobody_reads = stop.print();
            return if stop.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let output = Output::new(&cli.global);
    let exit = run(cli).unwrap_or_else(|error| {
        output.complain(&error, exit::hint(&error).as_deref());
        Exit::of(&error)
    });
    exit.into()
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let filter = log_filter(&cli.global, env::var("LARDER_LOG").ok())?;
    let context = Context::new(&cli.global)?;
    if !matches!(cli.command, Command::Serve(_)) {
        let filter = filter.clone().map_or_else(|| "warn".parse(), Ok)?;
        logging::start(&LogOptions { filter, ..LogOptions::default() });
    }
    match cli.command {
        Command::Serve(args) => block_on(serve::run(&context, args, filter)),
        Command::Cache(command) => block_on(cache::run(&context, command)),
        Command::Token(command) => block_on(token::run(&context, command)),
        Command::Log(args) => block_on(log::run(&context, args)),
        Command::Status => block_on(status::run(&context)),
        Command::Fsck(args) if args.rebuild_index => fsck::rebuild_index(&context, args.data),
        Command::Path(command) => block_on(path::run(&context, command)),
        Command::Gc(args) => block_on(gc::run(&context, args)),
        Command::Fsck(_) => block_on(fsck::check(&context)),
        Command::Backup(args) => block_on(backup::run(&context, &args.file)),
        Command::Restore(args) => restore::run(&context, args),
        Command::Discover => block_on(discover::run(&context)),
        Command::Authtoken(args) => authtoken::run(&context, &args),
        Command::Config(command) => config::run(&context, command),
        Command::GenerateKeypair(args) => block_on(generate_keypair::run(&context, args)),
        Command::Pair(args) => block_on(pair::run(&context, args)),
        Command::Use(args) => block_on(use_cache::run(&context, args)),
        Command::Remove(args) => remove::run(&context, args),
        Command::Pin(args) => block_on(pin::run(&context, args)),
        Command::Push(args) => block_on(interrupt::ends(&context, push::run(&context, args))),
        Command::Completions(args) => shell::completions(&context, &args),
        Command::Man(args) => shell::man(&context, &args),
        Command::Version => version::run(&context),
    }
}

/// What is logged, if anybody said: LARDER_LOG, else the options.
fn log_filter(global: &Global, variable: Option<String>) -> anyhow::Result<Option<LogFilter>> {
    let by_option = match (global.quiet, global.verbose) {
        (true, _) => Some("error"),
        (false, 0) => None,
        (false, 1) => Some("info"),
        (false, 2) => Some("debug"),
        (false, _) => Some("trace"),
    };
    let said = variable.filter(|text| !text.is_empty());
    let text = said.as_deref().or(by_option);
    text.map(str::parse::<LogFilter>)
        .transpose()
        .map_err(|error| Complaint::usage(format!("LARDER_LOG: {error}")).into())
}

fn block_on(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let runtime = runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the asynchronous runtime")?;
    let ended = runtime.block_on(command);
    // What still reads a file for a command that was interrupted is not waited for.
    runtime.shutdown_background();
    ended
}
