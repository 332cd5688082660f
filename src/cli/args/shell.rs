//! Options of the commands that describe the command line itself.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Args, Debug)]
pub(in crate::cli) struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(in crate::cli) shell: ShellArg,
}

/// The shells that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ShellArg {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ManArgs {
    /// A folder for the pages of all commands [default: print that of larder]
    #[arg(value_name = "DIR")]
    pub(in crate::cli) folder: Option<PathBuf>,
}
