//! Why the Nix daemon did not answer.

use std::io;

use crate::client::nix_store::daemon::MINOR_MIN;

/// Why the Nix daemon did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// Nobody listens at its socket, or this user may not go there.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// It hung up before it had greeted. It does so to users that it does not know.
    #[error("it hung up at once; Nix's setting allowed-users may leave this user out")]
    Unwelcome,
    /// It hung up later.
    #[error("it hung up")]
    Closed,
    /// It said nothing for too long.
    #[error("it does not answer")]
    Silent,
    /// The socket failed in another way.
    #[error("its socket failed")]
    Socket(#[source] io::Error),
    /// Whoever listens there speaks another protocol.
    #[error("what listens there is no Nix daemon")]
    Foreign,
    /// It is older than any we know, or has changed altogether.
    #[error(
        "it speaks version {major}.{minor} of its protocol; larder speaks 1.{MINOR_MIN} and later"
    )]
    Version {
        /// The part before the point.
        major: u64,
        /// The part behind it.
        minor: u64,
    },
    /// More than anything that is meant seriously.
    #[error("it announced {length} of what has at most {max}")]
    TooLong {
        /// Bytes, or items of a list.
        length: u64,
        /// How many there may be.
        max: usize,
    },
    /// Something that cannot be.
    #[error("its answer has a {0} that is none")]
    Malformed(&'static str),
    /// An error of its own.
    #[error("it says: {0}")]
    Said(String),
}

impl DaemonError {
    /// What a failure to read or write means.
    pub(super) fn of_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => Self::Closed,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Socket(error),
        }
    }

    /// What a failure to connect means: a socket that lets nobody in for too long says that it
    /// would block.
    pub(super) fn of_connect(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Connect(error),
        }
    }
}
