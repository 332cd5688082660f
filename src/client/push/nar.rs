//! The bytes of a path's NAR, pulled piece by piece out of a dump that pushes.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::client::nix_store::{NixStoreError, dump};

/// Pieces of at most 128 KiB that wait to be cut: the disk is read while chunks are compressed.
const PIECES_AHEAD: usize = 4;

/// A NAR that is being read.
pub(super) enum Nar {
    /// A small one, as a whole.
    Whole(Vec<u8>),
    /// A large one, from a thread of its own, which ends when this is dropped.
    Streamed(Receiver<Piece>),
}

/// What the thread sends; the end is said, so that a thread that dies is not taken for it.
pub(super) enum Piece {
    Bytes(Vec<u8>),
    End(Result<(), NixStoreError>),
}

/// Why a NAR does not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum NarReadError {
    #[error(transparent)]
    Store(#[from] NixStoreError),
    #[error("cannot start a thread to read it")]
    Thread(#[source] io::Error),
    #[error("the thread that reads it died; this is a defect of larder")]
    ThreadDied,
}

impl Nar {
    /// Reads the tree at `root`, whose NAR should have `nar_size` bytes: at once if these are no
    /// more than `whole_bytes_max`, else on a thread of its own. Blocking.
    pub(super) fn open(
        root: PathBuf,
        nar_size: u64,
        whole_bytes_max: u64,
    ) -> Result<Self, NarReadError> {
        if nar_size <= whole_bytes_max {
            // One that has grown meanwhile ends a byte behind its size, which shows it.
            let room = usize::try_from(nar_size).unwrap_or(usize::MAX).saturating_add(1);
            let mut whole = Bounded { bytes: Vec::new(), room };
            return match dump(&root, &mut whole) {
                Err(NixStoreError::Output(_)) | Ok(()) => Ok(Self::Whole(whole.bytes)),
                Err(error) => Err(error.into()),
            };
        }
        let (sender, receiver) = sync_channel(PIECES_AHEAD);
        let read = move || {
            let end = dump(&root, &mut Pieces(&sender));
            // Nobody listens if the push was given up.
            let _heard = sender.send(Piece::End(end));
        };
        thread::Builder::new()
            .name("nar-reader".to_owned())
            .spawn(read)
            .map_err(NarReadError::Thread)?;
        Ok(Self::Streamed(receiver))
    }

    /// The next bytes; nothing at the end. Blocking.
    pub(super) fn next_piece(&mut self) -> Result<Option<Vec<u8>>, NarReadError> {
        match self {
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Ok((!bytes.is_empty()).then_some(bytes))
            }
            Self::Streamed(pieces) => match pieces.recv() {
                Ok(Piece::Bytes(bytes)) => Ok(Some(bytes)),
                Ok(Piece::End(end)) => Ok(end.map(|()| None)?),
                Err(_disconnected) => Err(NarReadError::ThreadDied),
            },
        }
    }
}

/// Keeps what fits.
struct Bounded {
    bytes: Vec<u8>,
    room: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(self.room - self.bytes.len());
        self.bytes.extend_from_slice(bytes.get(..fits).unwrap_or_default());
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Pieces<'a>(&'a SyncSender<Piece>);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.send(Piece::Bytes(bytes.to_vec()));
        sent.map(|()| bytes.len()).map_err(|_gone| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
