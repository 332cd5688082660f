//! One file of a NAR, found in its listing, through symlinks as far as they stay inside.

use std::collections::VecDeque;

use crate::formats::nar::look_up::{Found, look_up};
use crate::formats::{FilePath, StorePath};

/// Times that a listing is read through for one file: for each symlink, and for each `..` in the
/// target of one. Linux follows 40 symlinks.
const READINGS_MAX: usize = 40;
/// Deepest entry that is found: serde_json reads 128 levels, of which a directory takes two.
const DEPTH_MAX: usize = 60;

/// What a path inside a NAR leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A regular file; its bytes stand there in the NAR.
    File {
        /// Where they begin.
        offset: u64,
        /// How many there are.
        size: u64,
    },
    /// A directory.
    Directory,
    /// Nothing.
    Missing,
    /// A symlink that leads out of the store path.
    Outside,
}

/// Finds what `path` leads to in the store path that has this listing; without a path, what the
/// store path itself is. Symlinks are followed as far as they stay inside.
///
/// # Errors
///
/// Where the listing is not what Nix writes.
pub fn find(
    listing: &[u8],
    store_path: &StorePath,
    path: Option<&FilePath>,
) -> Result<Entry, serde_json::Error> {
    let own = store_path.to_absolute();
    let segments = path.into_iter().flat_map(FilePath::segments);
    let mut way = Way { done: Vec::new(), to_do: segments.map(str::to_owned).collect() };
    for _ in 0..READINGS_MAX {
        let ahead = way.to_do.iter().take_while(|segment| *segment != "..").count();
        let known = way.done.iter().chain(way.to_do.iter().take(ahead));
        let path: Vec<_> = known.map(String::as_str).collect();
        if path.len() > DEPTH_MAX {
            return Ok(Entry::Missing);
        }
        let found = match look_up(listing, &path)? {
            Found::Missing => Some(Entry::Missing),
            Found::File { .. } if way.to_do.len() > ahead => Some(Entry::Missing),
            Found::File { offset, size } => Some(Entry::File { offset, size }),
            Found::Directory => way.enter(ahead),
            Found::Symlink { depth, target } => way.follow(depth, &target, &own),
        };
        if let Some(entry) = found {
            return Ok(entry);
        }
    }
    Ok(Entry::Missing)
}

/// How far one has come: through directories, and what is still to be walked.
struct Way {
    done: Vec<String>,
    to_do: VecDeque<String>,
}

impl Way {
    /// Goes `ahead` segments into a directory, and back where `..` follows.
    fn enter(&mut self, ahead: usize) -> Option<Entry> {
        self.done.extend(self.to_do.drain(..ahead));
        self.to_do.pop_front().map_or(Some(Entry::Directory), |_back| {
            self.done.pop().is_none().then_some(Entry::Outside)
        })
    }

    /// Puts the target of the symlink that is met after `depth` segments in its place.
    fn follow(&mut self, depth: usize, target: &str, own: &str) -> Option<Entry> {
        let inside =
            target.strip_prefix(own).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(folder) = depth.checked_sub(self.done.len() + 1) else {
            // The store path is itself a symlink: where that leads is not in it.
            return Some(Entry::Outside);
        };
        self.done.extend(self.to_do.drain(..folder));
        self.to_do.pop_front();
        let rest = match inside {
            Some(rest) => {
                self.done.clear();
                rest
            }
            None if target.starts_with('/') => return Some(Entry::Outside),
            None => target,
        };
        for segment in rest.rsplit('/').filter(|segment| !matches!(*segment, "" | ".")) {
            self.to_do.push_front(segment.to_owned());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "syd87l2rxw8cbsxmxl853h0r6pdwhwjr-own";

    fn file(offset: u64) -> String {
        format!(r#"{{"narOffset":{offset},"size":7,"type":"regular"}}"#)
    }

    fn link(target: &str) -> String {
        format!(r#"{{"target":{},"type":"symlink"}}"#, serde_json::to_string(target).unwrap())
    }

    fn folder(entries: &[(&str, String)]) -> String {
        let entry = |(name, node): &(&str, String)| {
            format!("{}:{node}", serde_json::to_string(name).unwrap())
        };
        let entries = entries.iter().map(entry).collect::<Vec<_>>().join(",");
        format!(r#"{{"entries":{{{entries}}},"type":"directory"}}"#)
    }

    fn find_in(root: &str, path: &str) -> Entry {
        let listing = format!(r#"{{"root":{root},"version":1}}"#);
        let path = (!path.is_empty()).then(|| path.parse().unwrap());
        find(listing.as_bytes(), &OWN.parse().unwrap(), path.as_ref()).unwrap()
    }

    fn tree() -> String {
        let own = format!("/nix/store/{OWN}");
        folder(&[
            ("a \"b\"", file(8)),
            ("abroad", link(&format!("{own}-else/sub/file"))),
            ("back", link("sub/../file")),
            ("circle", link("circle")),
            ("dir", link("sub/deep")),
            ("escape", link("../../../etc/passwd")),
            ("etc", link("/etc/passwd")),
            ("file", file(1)),
            ("hop", link("hop2")),
            ("hop2", link("./sub//link")),
            ("home", link(&format!("{own}/file"))),
            ("self", link(&own)),
            (
                "sub",
                folder(&[
                    ("deep", folder(&[("file", file(3)), ("up", link("../../file"))])),
                    ("file", file(2)),
                    ("link", link("deep/file")),
                    ("out", link("../..")),
                ]),
            ),
        ])
    }

    #[test]
    fn files_are_found_and_symlinks_followed_inside() {
        for (path, offset) in [
            ("file", 1),
            ("sub/file", 2),
            ("sub/deep/file", 3),
            ("sub/deep/up", 1),
            ("sub/link", 3),
            ("a \"b\"", 8),
            ("back", 1),
            ("dir/file", 3),
            ("dir/up", 1),
            ("hop", 3),
            ("home", 1),
            ("self/sub/file", 2),
            ("self/self/dir/up", 1),
        ] {
            assert_eq!(find_in(&tree(), path), Entry::File { offset, size: 7 }, "{path}");
        }
    }

    #[test]
    fn what_is_no_file_inside_is_told_apart() {
        for path in ["nothing", "file/below", "sub/nothing", "circle", "home/below"] {
            assert_eq!(find_in(&tree(), path), Entry::Missing, "{path}");
        }
        for path in ["", "sub", "dir", "self"] {
            assert_eq!(find_in(&tree(), path), Entry::Directory, "{path}");
        }
        for path in ["abroad", "escape", "etc", "sub/out", "sub/out/file"] {
            assert_eq!(find_in(&tree(), path), Entry::Outside, "{path}");
        }
        let deep = (0..200).fold(file(1), |below, _| folder(&[("d", below)]));
        assert_eq!(find_in(&deep, &["d"; 200].join("/")), Entry::Missing);
        assert!(find(b"[]", &OWN.parse().unwrap(), None).is_err());
    }

    #[test]
    fn a_store_path_may_be_no_directory() {
        assert_eq!(find_in(&file(96), ""), Entry::File { offset: 96, size: 7 });
        assert_eq!(find_in(&file(96), "x"), Entry::Missing);
        assert_eq!(find_in(&link("/etc/passwd"), ""), Entry::Outside);
        assert_eq!(find_in(&link("sub"), "x"), Entry::Outside);
    }

    #[test]
    fn a_file_at_the_deepest_place_is_found() {
        let below = (1..DEPTH_MAX).fold(file(1), |below, _| folder(&[("d", below)]));
        let root = folder(&[("d", below)]);
        let path = vec!["d"; DEPTH_MAX].join("/");
        assert_eq!(find_in(&root, &path), Entry::File { offset: 1, size: 7 });
    }
}
