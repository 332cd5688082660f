//! Reading a pack from one end to the other: sound records, damaged places, a torn end.

use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::store::pack::record::{
    HeaderKey, PACK_HEADER_LEN, RECORD_HEADER_BYTES, RECORD_HEADER_LEN, RECORD_MAGIC, RecordHeader,
    payload_sum, store_of_header,
};
use crate::store::pack::{Location, PackError, path_of};

/// Bytes that are searched at a time for the next sound header.
const SEARCH_BYTES: usize = 256 << 10;

/// What a scan meets, in the order of the file.
#[derive(Debug)]
pub(in crate::store) enum Found<'a> {
    /// A sound record.
    Record {
        /// Its header.
        header: RecordHeader,
        /// Where it is.
        location: Location,
        /// Its payload.
        payload: &'a [u8],
    },
    /// Bytes from `start` up to, not including, `end` are no sound record; what follows is.
    Damaged {
        /// The first byte.
        start: u64,
        /// The first byte behind.
        end: u64,
    },
}

impl Found<'_> {
    /// The first byte behind it.
    pub(in crate::store) fn end(&self) -> u64 {
        match self {
            Self::Record { location, .. } => {
                location.offset + RECORD_HEADER_BYTES + u64::from(location.stored_len)
            }
            Self::Damaged { end, .. } => *end,
        }
    }
}

/// The numbers of all packs in `folder`, rising.
pub(in crate::store) fn pack_numbers(folder: &Path) -> Result<Vec<u32>, PackError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(PackError::file("list", folder))? {
        let name = entry.map_err(PackError::file("list", folder))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".pack")?.parse().ok());
        numbers.extend(number.filter(|number| path_of(folder, *number).ends_with(&name)));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Bytes of a pack's file.
pub(in crate::store) fn pack_bytes(folder: &Path, pack: u32) -> Result<u64, PackError> {
    let path = path_of(folder, pack);
    Ok(fs::metadata(&path).map_err(PackError::file("look at", &path))?.len())
}

/// The UUID of the store that a pack belongs to; `None` if its header is damaged.
pub(in crate::store) fn store_uuid(
    folder: &Path,
    pack: u32,
) -> Result<Option<[u8; 16]>, PackError> {
    let path = path_of(folder, pack);
    let file = File::open(&path).map_err(PackError::file("open", &path))?;
    let mut header = [0; 32];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => Ok(store_of_header(&header, pack)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(PackError::file("read", &path)(error)),
    }
}

/// Whether pack `pack` has a sound record of the store with that key. Reads up to the first one.
pub(in crate::store) fn has_record(
    folder: &Path,
    key: &HeaderKey,
    pack: u32,
) -> Result<bool, PackError> {
    let each = |found: Found<'_>| match found {
        Found::Record { .. } => Err(Stopped::AtRecord),
        Found::Damaged { .. } => Ok(()),
    };
    match scan(folder, key, pack, 0, None, each) {
        Ok(_end) => Ok(false),
        Err(Stopped::AtRecord) => Ok(true),
        Err(Stopped::Failed(error)) => Err(error),
    }
}

/// Why [`has_record`] read no further.
enum Stopped {
    AtRecord,
    Failed(PackError),
}

impl From<PackError> for Stopped {
    fn from(error: PackError) -> Self {
        Self::Failed(error)
    }
}

/// Reads pack `pack` from `start` up to `end` (or its own end) and calls `each` with what it
/// meets. Returns where the last sound record ends; what is behind it is torn.
///
/// Holds one record at a time.
pub(in crate::store) fn scan<E: From<PackError>>(
    folder: &Path,
    key: &HeaderKey,
    pack: u32,
    start: u64,
    end: Option<u64>,
    mut each: impl FnMut(Found<'_>) -> Result<(), E>,
) -> Result<u64, E> {
    let path = path_of(folder, pack);
    let file = File::open(&path).map_err(PackError::file("open", &path))?;
    let length = file.metadata().map_err(PackError::file("look at", &path))?.len();
    let end = end.map_or(length, |end| end.min(length));
    let mut scan = Scan { file, key: *key, pack, end, payload: Vec::new() };
    let read = |error| E::from(PackError::file("read", &path)(error));
    // A pack whose header was never written has nothing in it.
    let mut sound_to = if length < PACK_HEADER_LEN { 0 } else { start.max(PACK_HEADER_LEN) };
    let mut at = sound_to.max(PACK_HEADER_LEN);
    while at < scan.end {
        let header = match scan.record(at).map_err(read)? {
            Some(header) => header,
            None => match scan.sound_behind(at).map_err(read)? {
                Some(found) => {
                    each(Found::Damaged { start: at, end: found })?;
                    at = found;
                    continue;
                }
                None => break,
            },
        };
        let location = Location { pack, offset: at, stored_len: header.stored_len };
        each(Found::Record { header, location, payload: &scan.payload })?;
        at += RECORD_HEADER_BYTES + u64::from(header.stored_len);
        sound_to = at;
    }
    Ok(sound_to)
}

struct Scan {
    file: File,
    key: HeaderKey,
    pack: u32,
    end: u64,
    /// Of the record that was read last.
    payload: Vec<u8>,
}

impl Scan {
    /// The record at `at`, if there is a sound one; its payload is in `self.payload` then.
    fn record(&mut self, at: u64) -> io::Result<Option<RecordHeader>> {
        let Some(header) = self.header(at)? else { return Ok(None) };
        let payload_at = at + RECORD_HEADER_BYTES;
        if payload_at + u64::from(header.stored_len) > self.end {
            return Ok(None);
        }
        let length = usize::try_from(header.stored_len).map_err(io::Error::other)?;
        self.payload.resize(length, 0);
        self.file.read_exact_at(&mut self.payload, payload_at)?;
        Ok((payload_sum(&self.payload) == header.payload_sum).then_some(header))
    }

    fn header(&self, at: u64) -> io::Result<Option<RecordHeader>> {
        if at + RECORD_HEADER_BYTES > self.end {
            return Ok(None);
        }
        let mut bytes = [0; RECORD_HEADER_LEN];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(RecordHeader::from_bytes(&bytes, &self.key, self.pack, at))
    }

    /// Where the next sound record begins, behind the unsound one at `at`. If only its payload is
    /// damaged the search begins behind it: what a stranger sent is not searched for records.
    fn sound_behind(&mut self, at: u64) -> io::Result<Option<u64>> {
        let from = match self.header(at)? {
            Some(header) => at + RECORD_HEADER_BYTES + u64::from(header.stored_len),
            None => at + 1,
        };
        self.next_sound(from)
    }

    /// Where the next sound record begins, from `from` on.
    fn next_sound(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut buffer = vec![0; SEARCH_BYTES];
        let mut at = from;
        while at + RECORD_HEADER_BYTES <= self.end {
            let left = usize::try_from(self.end - at).unwrap_or(usize::MAX).min(buffer.len());
            let Some(window) = buffer.get_mut(..left) else { break };
            self.file.read_exact_at(window, at)?;
            let magics = window.windows(RECORD_MAGIC.len()).enumerate();
            let places: Vec<_> =
                magics.filter(|(_, bytes)| bytes == RECORD_MAGIC).map(|(place, _)| place).collect();
            for place in places {
                let candidate = at + u64::try_from(place).map_err(io::Error::other)?;
                if self.record(candidate)?.is_some() {
                    return Ok(Some(candidate));
                }
            }
            // The last bytes may be the beginning of a magic that goes on in the next window.
            let step = left.saturating_sub(RECORD_MAGIC.len() - 1).max(1);
            at += u64::try_from(step).map_err(io::Error::other)?;
        }
        Ok(None)
    }
}
