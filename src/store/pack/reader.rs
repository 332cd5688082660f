//! Reading records back, each verified.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::store::pack::record::{
    HeaderKey, RECORD_HEADER_BYTES, RECORD_HEADER_LEN, RecordHeader, payload_sum,
};
use crate::store::pack::{Kind, Location, PackError, path_of};

/// Packs that are kept open.
const OPEN_MAX: usize = 64;
/// Bytes between two records that are rather read than skipped.
const GAP_BYTES_MAX: u64 = 64 << 10;
/// Bytes that are read in one call, unless one record is longer.
const RUN_BYTES_MAX: u64 = 1 << 20;

/// A record that somebody wants.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Wanted {
    pub(in crate::store) kind: Kind,
    pub(in crate::store) location: Location,
    /// What the record must be of; `None` where the caller checks by other means.
    pub(in crate::store) id: Option<[u8; 32]>,
}

/// Reads packs; keeps some of them open.
#[derive(Debug)]
pub(in crate::store) struct PackReader {
    folder: PathBuf,
    key: HeaderKey,
    /// The ones used last, last.
    open: Mutex<Vec<(u32, Arc<File>)>>,
}

impl PackReader {
    /// Reads the packs of `folder`, which the store of that key wrote.
    pub(in crate::store) fn new(folder: &Path, key: HeaderKey) -> Self {
        Self { folder: folder.to_owned(), key, open: Mutex::new(Vec::new()) }
    }

    /// What the packs' records are sealed with.
    pub(in crate::store) fn key(&self) -> &HeaderKey {
        &self.key
    }

    /// The payload of one record.
    pub(in crate::store) fn read(&self, wanted: Wanted) -> Result<Bytes, PackError> {
        let payload = self.read_run(&[wanted])?.pop();
        payload.ok_or_else(|| damaged(wanted.location))
    }

    /// The payloads of some records, in order. Neighbours are read in one call and share one
    /// buffer.
    ///
    /// # Errors
    ///
    /// [`PackError::Damaged`] as soon as one of them is not what was written.
    pub(in crate::store) fn read_run(&self, wanted: &[Wanted]) -> Result<Vec<Bytes>, PackError> {
        let mut payloads = Vec::with_capacity(wanted.len());
        let mut rest = wanted;
        while let Some(first) = rest.first() {
            let (run, behind) = rest.split_at(neighbours(rest));
            rest = behind;
            self.read_neighbours(first.location, run, &mut payloads)?;
        }
        Ok(payloads)
    }

    fn read_neighbours(
        &self,
        first: Location,
        run: &[Wanted],
        payloads: &mut Vec<Bytes>,
    ) -> Result<(), PackError> {
        let end = run.last().map_or(first.offset, |last| end_of(last.location));
        let length = end.checked_sub(first.offset).and_then(|length| usize::try_from(length).ok());
        let mut buffer = vec![0; length.ok_or_else(|| damaged(first))?];
        let file = self.file(first.pack)?;
        file.read_exact_at(&mut buffer, first.offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => damaged(first),
            _ => PackError::file("read", &path_of(&self.folder, first.pack))(source),
        })?;
        let buffer = Bytes::from(buffer);
        for wanted in run {
            let at = usize::try_from(wanted.location.offset - first.offset);
            let at = at.map_err(|_width| damaged(first))?;
            let payload = verified(&buffer, at, wanted, &self.key);
            payloads.push(payload.ok_or_else(|| damaged(wanted.location))?);
        }
        Ok(())
    }

    /// Lets go of a pack whose file is gone.
    pub(in crate::store) fn forget(&self, pack: u32) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(number, _file)| *number != pack);
    }

    fn file(&self, pack: u32) -> Result<Arc<File>, PackError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = open.iter().rposition(|(number, _)| *number == pack) {
            let entry = open.remove(index);
            let file = Arc::clone(&entry.1);
            open.push(entry);
            return Ok(file);
        }
        let path = path_of(&self.folder, pack);
        let file = Arc::new(File::open(&path).map_err(PackError::file("open", &path))?);
        if open.len() >= OPEN_MAX {
            open.remove(0);
        }
        open.push((pack, Arc::clone(&file)));
        Ok(file)
    }
}

/// How many records from the first on are read in one call; at least one.
fn neighbours(wanted: &[Wanted]) -> usize {
    let Some(first) = wanted.first() else { return 0 };
    let next_to = |pair: &[Wanted]| match pair {
        [left, right] => {
            let (left, right) = (left.location, right.location);
            left.pack == right.pack
                && right.offset >= end_of(left)
                && right.offset - end_of(left) <= GAP_BYTES_MAX
                && end_of(right) - first.location.offset <= RUN_BYTES_MAX
        }
        _ => false,
    };
    1 + wanted.windows(2).take_while(|pair| next_to(pair)).count()
}

fn verified(buffer: &Bytes, at: usize, wanted: &Wanted, key: &HeaderKey) -> Option<Bytes> {
    let Location { pack, offset, stored_len } = wanted.location;
    let payload_at = at + RECORD_HEADER_LEN;
    let header: &[u8; RECORD_HEADER_LEN] = buffer.get(at..payload_at)?.try_into().ok()?;
    let header = RecordHeader::from_bytes(header, key, pack, offset)?;
    let payload_end = payload_at + usize::try_from(stored_len).ok()?;
    let payload = buffer.get(payload_at..payload_end)?;
    let sound = header.kind == wanted.kind
        && header.stored_len == stored_len
        && wanted.id.is_none_or(|id| id == header.id)
        && header.payload_sum == payload_sum(payload);
    sound.then(|| buffer.slice(payload_at..payload_end))
}

fn end_of(location: Location) -> u64 {
    location.offset + RECORD_HEADER_BYTES + u64::from(location.stored_len)
}

fn damaged(at: Location) -> PackError {
    PackError::Damaged { pack: at.pack, offset: at.offset }
}
