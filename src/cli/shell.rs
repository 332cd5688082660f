//! `larder completions` and `larder man`: what shells and `man` want to know of the command line.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory;

use crate::cli::args::{Cli, CompletionsArgs, ManArgs, ShellArg};
use crate::cli::context::Context;
use crate::cli::exit::Exit;

pub(super) fn completions(context: &Context, args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let shell = match args.shell {
        ShellArg::Bash => clap_complete::Shell::Bash,
        ShellArg::Zsh => clap_complete::Shell::Zsh,
        ShellArg::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "larder", &mut script);
    context.output.raw(&script)?;
    Ok(Exit::Done)
}

pub(super) fn man(context: &Context, args: &ManArgs) -> anyhow::Result<Exit> {
    let failed = |folder: &Path| format!("cannot write man pages to {}", folder.display());
    match &args.folder {
        Some(folder) => {
            fs::create_dir_all(folder).with_context(|| failed(folder))?;
            clap_mangen::generate_to(Cli::command(), folder).with_context(|| failed(folder))?;
            context.output.note(&format!("wrote man pages to {}", folder.display()));
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            context.output.raw(&page)?;
        }
    }
    Ok(Exit::Done)
}
