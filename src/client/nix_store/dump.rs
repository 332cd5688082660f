//! A store path as a NAR, straight from its files.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::client::nix_store::error::NixStoreError;
use crate::formats::limits;
use crate::formats::nar::NarWriter;

/// Bytes that are read from a file at a time, and that go to the output in one piece.
const PIECE_BYTES: usize = 128 << 10;

/// The bit that makes a file executable for Nix: its owner's (`dumpPath` in
/// `src/libutil/archive.cc`, Nix 2.34).
const EXECUTABLE: u32 = 0o100;

/// Writes the NAR of the tree at `root` to `out`, as `nix-store --dump` would.
///
/// Each file is opened and read once; no symlink is followed. `out` gets pieces of up to 128 KiB
/// and may block, which holds the reading back; an error of its own ends the dump. Memory is
/// bounded by the names of one directory on each level and two pieces.
///
/// # Errors
///
/// [`NixStoreError::File`], [`NixStoreError::Changed`] if a file does not keep the size it was
/// opened with, [`NixStoreError::Kind`], [`NixStoreError::Depth`], and
/// [`NixStoreError::Output`] with whatever `out` said. What was written by then is a torn NAR.
pub fn dump(root: &Path, out: &mut dyn Write) -> Result<(), NixStoreError> {
    let buffered = BufWriter::with_capacity(PIECE_BYTES, out);
    let writer = NarWriter::new(buffered).map_err(NixStoreError::Output)?;
    let mut dump = Dump { writer, piece: vec![0; PIECE_BYTES] };
    dump.node(root.to_owned(), 0)?;
    dump.writer.into_inner().flush().map_err(NixStoreError::Output)
}

struct Dump<W> {
    writer: NarWriter<W>,
    piece: Vec<u8>,
}

impl<W: Write> Dump<W> {
    fn node(&mut self, path: PathBuf, depth: usize) -> Result<(), NixStoreError> {
        let metadata = fs::symlink_metadata(&path).map_err(|e| failed("look at", &path, e))?;
        if metadata.is_file() {
            self.regular(&path)
        } else if metadata.is_dir() {
            self.directory(path, depth)
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(|e| failed("read the symlink", &path, e))?;
            self.writer.symlink(target.as_os_str().as_bytes()).map_err(NixStoreError::Output)
        } else {
            Err(NixStoreError::Kind(path))
        }
    }

    fn directory(&mut self, path: PathBuf, depth: usize) -> Result<(), NixStoreError> {
        if depth >= limits::NAR_DEPTH_MAX {
            return Err(NixStoreError::Depth(path));
        }
        let entries = fs::read_dir(&path).map_err(|e| failed("list", &path, e))?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_vec()));
        let names = names.collect::<Result<Vec<_>, _>>();
        let mut names = names.map_err(|e| failed("list", &path, e))?;
        names.sort_unstable();
        self.writer.begin_directory().map_err(NixStoreError::Output)?;
        for name in names {
            self.writer.begin_entry(&name).map_err(NixStoreError::Output)?;
            self.node(path.join(std::ffi::OsString::from_vec(name)), depth + 1)?;
            self.writer.end_entry().map_err(NixStoreError::Output)?;
        }
        self.writer.end_directory().map_err(NixStoreError::Output)
    }

    fn regular(&mut self, path: &Path) -> Result<(), NixStoreError> {
        let read = |source| failed("read", path, source);
        let mut file = File::open(path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        if !metadata.is_file() {
            return Err(NixStoreError::Changed(path.to_owned()));
        }
        let size = metadata.len();
        self.writer.begin_regular(is_executable(&metadata), size).map_err(NixStoreError::Output)?;
        let mut left = size;
        loop {
            // One byte more than is left shows whether the file has grown.
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).saturating_add(1);
            let room = wanted.min(self.piece.len());
            let piece = self.piece.get_mut(..room).unwrap_or_default();
            let got = read_some(&mut file, piece).map_err(read)?;
            let Some(rest) = u64::try_from(got).ok().and_then(|got| left.checked_sub(got)) else {
                return Err(NixStoreError::Changed(path.to_owned()));
            };
            left = rest;
            let bytes = piece.get(..got).unwrap_or_default();
            self.writer.contents(bytes).map_err(NixStoreError::Output)?;
            if got == 0 || (left == 0 && got < room) {
                break;
            }
        }
        if left > 0 {
            return Err(NixStoreError::Changed(path.to_owned()));
        }
        self.writer.end_regular(size).map_err(NixStoreError::Output)
    }
}

fn read_some(file: &mut File, piece: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn is_executable(metadata: &Metadata) -> bool {
    metadata.mode() & EXECUTABLE != 0
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> NixStoreError {
    NixStoreError::File { action, path: path.to_owned(), source }
}
