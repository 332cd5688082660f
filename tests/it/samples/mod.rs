//! What earlier programs wrote and said, kept in `tests/data` for ever, against the present one.
//! The present one's own is made anew in each run and held to the same; `--cfg samples` keeps it
//! (`tests/data/README.md`).

mod conversations;
mod folders;
mod transcript;

use std::fs;
use std::path::{Path, PathBuf};

/// Whether what is made is kept in `tests/data`.
const KEPT: bool = cfg!(samples);

/// A folder of `tests/data`.
fn data(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(kind)
}

/// The names in a folder of `tests/data` that end so, without their end.
fn kept(kind: &str, end: &str) -> Vec<String> {
    let names = fs::read_dir(data(kind)).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.filter_map(|name| name.strip_suffix(end).map(str::to_owned)).collect();
    names.sort_unstable();
    names
}

/// Checks that each version from `first` to the one before `present` has its sample.
fn assert_none_lacks(kind: &str, end: &str, prefix: &str, first: u32, present: u32) {
    let kept = kept(kind, end);
    for version in first..present {
        let name = format!("{prefix}{version}");
        assert!(kept.contains(&name), "tests/data/{kind}/{name}{end} is not there");
    }
}
