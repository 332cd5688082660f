//! Why Nix's configuration could not be read or changed.

use std::io;
use std::path::PathBuf;

use crate::client::nix_config::settings::FILE_BYTES_MAX;

/// Why a file of Nix's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NixConfigError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is far too large.
    #[error("{} is larger than {} MiB; is it Nix's configuration?", .0.display(), FILE_BYTES_MAX >> 20)]
    TooLarge(PathBuf),
    /// It includes a file that includes it.
    #[error("{} includes itself, by way of {}; Nix cannot read that either", path.display(), by.display())]
    Circle {
        /// The file that comes round.
        path: PathBuf,
        /// The file with the last `include`.
        by: PathBuf,
    },
    /// It is made by another program, which would overwrite a change.
    #[error("{} is made by NixOS or home-manager (it is {} in the Nix store); no line can be added to it", path.display(), target.display())]
    Generated {
        /// The file.
        path: PathBuf,
        /// Where its symlink ends.
        target: PathBuf,
    },
    /// It cannot be written.
    #[error("cannot {action} {}", path.display())]
    Write {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It belongs to another user.
    #[error("{} belongs to {owner}, and holds passwords; give it to {user}: chown {user} {}", path.display(), path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is: a user's number.
        owner: u32,
        /// Who runs this: a user's number.
        user: u32,
    },
    /// A netrc has an entry for the host that is not ours.
    #[error("{}, line {line}, has an entry for {host} already, and the first one is what counts; take it out, or name the box otherwise with --host", path.display())]
    HostTaken {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The host.
        host: String,
    },
    /// A file of a module is not ours.
    #[error("{} is there and was not written by 'larder use' for {wanted}; move it away", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// The cache that it would be for.
        wanted: String,
    },
}
