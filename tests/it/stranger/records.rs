//! The records of a data folder's packs, each checked as FORMAT.md says.

use std::fs;
use std::path::Path;

use twox_hash::XxHash3_64;

/// The format that the reader was written for; a later one may have more kinds of records.
const FORMAT: u32 = 2;
const PACK_HEADER: usize = 32;
const RECORD_HEADER: usize = 64;
const SEAL_CONTEXT: &str = "larder 2026 header of a record";

/// The largest payload of kinds 1 to 7.
const PAYLOAD_MAX: [usize; 7] = [258 << 10, 64 << 20, 64 << 20, 8 << 20, 8 << 20, 8 << 20, 8 << 20];

/// A sound record.
pub(super) struct Record {
    pub(super) kind: u8,
    pub(super) id: [u8; 32],
    pub(super) raw_len: u32,
    pub(super) payload: Vec<u8>,
}

/// All records of a folder, in their order. A pack that has anything else panics.
pub(super) fn read_folder(data: &Path) -> Vec<Record> {
    let version = fs::read_to_string(data.join("VERSION")).unwrap();
    let version = version.strip_prefix("larder data folder ").unwrap().strip_suffix('\n').unwrap();
    let format: u32 = version.parse().unwrap();
    assert!(format >= FORMAT, "format {format}");
    let mut names: Vec<_> = fs::read_dir(data.join("packs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names[0], "00000001.pack");
    names.iter().flat_map(|name| Pack::open(data, name, format).records(format)).collect()
}

/// One pack, read whole.
struct Pack {
    bytes: Vec<u8>,
    number: u32,
    seal_key: [u8; 32],
}

impl Pack {
    fn open(data: &Path, name: &str, format: u32) -> Self {
        let bytes = fs::read(data.join("packs").join(name)).unwrap();
        assert_eq!(&bytes[..8], b"LARDPACK");
        assert!((FORMAT..=format).contains(&u32_at(&bytes, 8)));
        let number = u32_at(&bytes, 12);
        assert_eq!(name, format!("{number:08}.pack"));
        let seal_key = blake3::derive_key(SEAL_CONTEXT, &bytes[16..PACK_HEADER]);
        Self { bytes, number, seal_key }
    }

    fn records(&self, format: u32) -> Vec<Record> {
        let (mut records, mut offset) = (Vec::new(), PACK_HEADER);
        while offset < self.bytes.len() {
            let record = self.record(offset, format);
            offset += RECORD_HEADER + record.payload.len();
            records.push(record);
        }
        records
    }

    fn record(&self, offset: usize, format: u32) -> Record {
        let (header, rest) = self.bytes[offset..].split_at(RECORD_HEADER);
        assert_eq!(header[56..], self.seal(offset, &header[..56]), "the seal at {offset}");
        assert_eq!(&header[..4], b"LdRc");
        let kind = header[4];
        assert_eq!(header[5..8], [0; 3], "flags and what is reserved");
        let payload = rest[..usize::try_from(u32_at(header, 8)).unwrap()].to_vec();
        assert_eq!(XxHash3_64::oneshot(&payload).to_le_bytes(), header[48..56], "the sum");
        let record = Record {
            kind,
            id: header[16..48].try_into().unwrap(),
            raw_len: u32_at(header, 12),
            payload,
        };
        check(&record, format);
        record
    }

    fn seal(&self, offset: usize, header: &[u8]) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new_keyed(&self.seal_key);
        hasher.update(&self.number.to_le_bytes());
        hasher.update(&u64::try_from(offset).unwrap().to_le_bytes());
        hasher.update(header);
        hasher.finalize().as_bytes()[..8].try_into().unwrap()
    }
}

/// Checks lengths and the id.
fn check(record: &Record, format: u32) {
    match PAYLOAD_MAX.get(usize::from(record.kind) - 1) {
        Some(max) => assert!(record.payload.len() <= *max),
        None => assert!(format > FORMAT, "kind {} in format {format}", record.kind),
    }
    if record.kind == 1 {
        assert_eq!(blake3::hash(&chunk_bytes(record)), record.id);
    } else {
        assert_eq!(usize::try_from(record.raw_len).unwrap(), record.payload.len());
        assert_eq!(blake3::hash(&record.payload), record.id);
    }
}

/// The bytes of a chunk, decompressed.
pub(super) fn chunk_bytes(record: &Record) -> Vec<u8> {
    let raw_len = usize::try_from(record.raw_len).unwrap();
    let raw = zstd::bulk::decompress(&record.payload, raw_len).unwrap();
    assert_eq!(raw.len(), raw_len);
    raw
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}
