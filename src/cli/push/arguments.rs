//! Which store paths a push is asked for.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::cli::exit::{Complaint, Exit};
use crate::cli::output::Output;
use crate::cli::push::chain;
use crate::client::nix_store::{NixStore, NixStoreError, split_arguments};
use crate::formats::StorePath;

/// More paths than anybody pipes in: 64 MiB of names, several times over in memory.
const STDIN_BYTES_MAX: usize = 64 << 20;
/// Wrong arguments that are listed; the rest are counted.
const LISTED_MAX: usize = 10;

/// The arguments; where there are none, those on standard input, each once. Blocking.
pub(super) fn read(arguments: Vec<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    if !arguments.is_empty() {
        return Ok(arguments);
    }
    let nothing = || Complaint::usage("no path to push: name some, or pipe them in");
    if io::stdin().is_terminal() {
        return Err(nothing().into());
    }
    let text = read_bounded(io::stdin().lock(), STDIN_BYTES_MAX)?;
    let mut seen = HashSet::new();
    let words = split_arguments(&text).filter(|word| seen.insert(*word));
    let paths: Vec<_> = words.map(|path: &OsStr| Path::new(path).to_owned()).collect();
    if paths.is_empty() { Err(nothing().into()) } else { Ok(paths) }
}

/// A text whose end was cut off could name another path, so one that is too long counts for
/// nothing.
fn read_bounded(input: impl Read, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let read = input.take(limit).read_to_end(&mut text);
    read.context("cannot read paths from standard input")?;
    if text.len() > bytes_max {
        let message =
            format!("there are more than {bytes_max} bytes on standard input; push in parts");
        return Err(Complaint::usage(message).into());
    }
    Ok(text)
}

/// The store paths that are meant. One that is none ends the push before it begins; of several
/// the first are listed.
pub(super) fn resolve(
    store: &NixStore,
    arguments: &[PathBuf],
    here: &Path,
    output: &Output,
) -> anyhow::Result<Vec<StorePath>> {
    let mut roots = Vec::new();
    let mut wrong = Wrong::default();
    for argument in arguments {
        match store.resolve(argument, here) {
            Ok(root) => roots.push(root),
            Err(error) if error.is_about_argument() => wrong.add(error),
            Err(error) => return Err(error.into()),
        }
    }
    match wrong.into_error(arguments.len(), output) {
        Some(error) => Err(error),
        None => Ok(roots),
    }
}

/// Arguments that name nothing that can be pushed.
#[derive(Default)]
struct Wrong {
    first: Vec<NixStoreError>,
    count: usize,
}

impl Wrong {
    fn add(&mut self, error: NixStoreError) {
        self.count += 1;
        if self.first.len() < LISTED_MAX {
            self.first.push(error);
        }
    }

    fn into_error(mut self, of: usize, output: &Output) -> Option<anyhow::Error> {
        if self.count < 2 {
            return self.first.pop().map(Into::into);
        }
        for error in &self.first {
            output.warn(&chain(error));
        }
        let exit = self.first.first().map_or(Exit::Failed, |error| Exit::of_cause(error));
        let unlisted = self.count - self.first.len();
        let more =
            if unlisted > 0 { format!(" ({unlisted} more than listed)") } else { String::new() };
        let message = format!("{} of {of} paths cannot be pushed{more}; sent none", self.count);
        Some(Complaint::new(exit, message).with_hint("push without them").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_refused_and_not_cut() {
        assert_eq!(read_bounded(&b"abc"[..], 3).unwrap(), b"abc");
        let error = read_bounded(&b"abcd"[..], 3).unwrap_err();
        assert!(error.to_string().contains("more than 3 bytes"), "{error}");
        assert_eq!(Exit::of(&error), Exit::Usage);
    }
}
