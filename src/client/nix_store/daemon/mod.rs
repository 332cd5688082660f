//! The Nix daemon, asked by its worker protocol for what the database would say: for users who
//! cannot read the database, and for stores of which only the daemon knows.
//!
//! Two questions are enough, and the daemon answers them to every user it lets in, trusted or not.
//! The files are read from the folder itself.

mod error;
mod talk;
mod words;

pub use error::DaemonError;

use std::cell::RefCell;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::client::nix_store::daemon::words::{Request, number, text, texts, truth};
use crate::client::nix_store::error::NixStoreError;
use crate::client::nix_store::facts::Facts;
use crate::formats::limits::{REFERENCES_MAX, SIGNATURES_MAX};
use crate::formats::{PathInfo, StorePath};

/// The oldest minor version of the protocol that is understood; Nix 2.8 has 34.
pub(super) const MINOR_MIN: u64 = 32;

/// How long the daemon may be silent, and how long it may take to let somebody in. It waits for
/// others that use its database no longer than that.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Questions: `WorkerProto::Op` in `src/libstore/worker-protocol.hh` (Nix 2.34; the same in 2.8).
const IS_VALID_PATH: u64 = 1;
const QUERY_PATH_INFO: u64 = 26;

/// A conversation with the Nix daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    socket: PathBuf,
    line: RefCell<Line<UnixStream>>,
}

impl Daemon {
    /// Connects to the daemon at `socket` and greets it.
    ///
    /// # Errors
    ///
    /// [`NixStoreError::Daemon`].
    pub(super) fn connect(socket: &Path) -> Result<Self, NixStoreError> {
        let failed = |source| NixStoreError::Daemon { socket: socket.to_owned(), source };
        let stream = connect(socket).map_err(|error| failed(DaemonError::of_connect(error)))?;
        let line = Line::greet(stream).map_err(failed)?;
        Ok(Self { socket: socket.to_owned(), line: RefCell::new(line) })
    }

    /// The facts about one path, by one question; `None` if it is not valid.
    pub(super) fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>, NixStoreError> {
        let facts = self.line.borrow_mut().path_info(path).map_err(|e| self.failed(e))?;
        facts.map(|facts| facts.into_info(path)).transpose()
    }

    /// Whether the daemon takes the path for valid.
    pub(super) fn is_valid(&self, path: &StorePath) -> Result<bool, NixStoreError> {
        self.line.borrow_mut().is_valid(path).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: DaemonError) -> NixStoreError {
        NixStoreError::Daemon { socket: self.socket.clone(), source }
    }
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let address = SockAddr::unix(socket)?;
    let stream = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The one for writing counts for connecting too: a daemon that takes nobody in fills its queue.
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.connect(&address)?;
    Ok(OwnedFd::from(stream).into())
}

/// Questions and answers over anything that carries bytes.
#[derive(Debug)]
struct Line<S>(BufReader<S>);

impl<S: Read + Write> Line<S> {
    fn greet(stream: S) -> Result<Self, DaemonError> {
        let mut line = Self(BufReader::new(stream));
        match talk::greet(&mut line) {
            Ok(()) => Ok(line),
            Err(DaemonError::Closed) => Err(DaemonError::Unwelcome),
            Err(error) => Err(error),
        }
    }

    fn ask(&mut self, question: u64, path: &StorePath) -> Result<(), DaemonError> {
        Request::default().number(question).text(&path.to_absolute()).send(self)?;
        talk::hear_out(self)
    }

    fn is_valid(&mut self, path: &StorePath) -> Result<bool, DaemonError> {
        self.ask(IS_VALID_PATH, path)?;
        truth(self)
    }

    /// Source: `WorkerProto::Serialise<UnkeyedValidPathInfo>` in `src/libstore/worker-protocol.cc`
    /// (Nix 2.34), `ValidPathInfo::read` in `path-info.cc` (Nix 2.8).
    fn path_info(&mut self, path: &StorePath) -> Result<Option<Facts>, DaemonError> {
        self.ask(QUERY_PATH_INFO, path)?;
        if !truth(self)? {
            return Ok(None);
        }
        let deriver = text(self)?;
        // Without its algorithm.
        let nar_hash = format!("sha256:{}", text(self)?);
        let references = texts(self, REFERENCES_MAX)?;
        let _registered_at = number(self)?;
        let nar_size = Some(number(self)?);
        let _was_built_here = truth(self)?;
        let signatures = texts(self, SIGNATURES_MAX)?;
        let ca = text(self)?;
        Ok(Some(Facts { nar_hash, nar_size, references, deriver, signatures, ca }))
    }
}

impl<S: Read> Read for Line<S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl<S: Write> Write for Line<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}

#[cfg(test)]
mod tests;
