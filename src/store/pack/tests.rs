//! Packs without a store around them: what is written, torn, damaged, and read again.

use std::fmt;
use std::fs;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;

use super::record::{HeaderKey, PACK_HEADER_LEN, RECORD_HEADER_LEN, RecordHeader, payload_sum};
use super::scan::{Found, scan};
use super::*;
use crate::formats::limits::FRAME_BYTES_MAX;

const STORE: [u8; 16] = [9; 16];
/// Small enough that a few records fill a pack.
const PACK_BYTES_MAX: u64 = 1000;

/// A disk that fails from its `write_at`th write, or its `sync_at`th sync, for one time.
#[derive(Debug, Default)]
struct Failing {
    write_at: AtomicU64,
    sync_at: AtomicU64,
}

impl Failing {
    fn is_due(countdown: &AtomicU64) -> bool {
        let left =
            countdown.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left == Ok(1)
    }
}

impl Disk for Arc<Failing> {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if Failing::is_due(&self.write_at) {
            RealDisk.write(file, &bytes[..bytes.len() / 2], offset)?;
            return Err(io::Error::other("a part was written"));
        }
        RealDisk.write(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        match Failing::is_due(&self.sync_at) {
            true => Err(io::Error::other("it was not synced")),
            false => RealDisk.sync(file),
        }
    }
}

/// A folder of packs and what should be in them.
struct Packs {
    folder: TempDir,
    appender: Appender,
    disk: Arc<Failing>,
    appended: Vec<Record>,
}

#[derive(Clone, PartialEq, Eq)]
struct Record {
    location: Location,
    id: [u8; 32],
    payload: Vec<u8>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Location { pack, offset, stored_len } = self.location;
        write!(f, "chunk {} of {stored_len} bytes at {pack}:{offset}", self.id[0])
    }
}

impl Packs {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let disk = Arc::new(Failing::default());
        let appender = open(&folder, Position::default(), &disk).unwrap();
        Self { folder, appender, disk, appended: Vec::new() }
    }

    /// Packs with records of these lengths.
    fn with(lengths: &[usize]) -> Self {
        let mut packs = Self::new();
        for length in lengths {
            packs.append(*length).unwrap();
        }
        packs
    }

    fn append(&mut self, length: usize) -> Result<(), PackError> {
        let number = u8::try_from(self.appended.len() % 251).unwrap();
        let payload = vec![number; length];
        let id = [number; 32];
        let appended = self.appender.append(Kind::Chunk, id, 70_000, &payload)?;
        self.appended.push(Record { location: appended.location, id, payload });
        Ok(())
    }

    fn path(&self, pack: u32) -> PathBuf {
        path_of(self.folder.path(), pack)
    }

    /// The sound records of all packs, and how many damaged places there are.
    fn scanned(&self) -> (Vec<Record>, usize) {
        let (mut records, mut damaged) = (Vec::new(), 0);
        for pack in scan::pack_numbers(self.folder.path()).unwrap() {
            self.scan(pack, |found| match found {
                Found::Record { header, location, payload } => {
                    records.push(Record { location, id: header.id, payload: payload.to_vec() });
                }
                Found::Damaged { .. } => damaged += 1,
            });
        }
        (records, damaged)
    }

    fn scan(&self, pack: u32, mut each: impl FnMut(Found<'_>)) -> u64 {
        let each = |found: Found<'_>| {
            each(found);
            Ok::<_, PackError>(())
        };
        scan(self.folder.path(), &HeaderKey::of(STORE), pack, 0, None, each).unwrap()
    }

    fn read(&self, record: &Record) -> Result<Vec<u8>, PackError> {
        let reader = PackReader::new(self.folder.path(), HeaderKey::of(STORE));
        reader.read(wanted(record)).map(|payload| payload.to_vec())
    }
}

fn open(folder: &TempDir, end: Position, disk: &Arc<Failing>) -> Result<Appender, PackError> {
    Appender::open(folder.path(), STORE, PACK_BYTES_MAX, end, Box::new(Arc::clone(disk)))
}

fn wanted(record: &Record) -> Wanted {
    Wanted { kind: Kind::Chunk, location: record.location, id: Some(record.id) }
}

fn is_damaged(outcome: &Result<Vec<u8>, PackError>, at: Location) -> bool {
    let Err(PackError::Damaged { pack, offset }) = outcome else { return false };
    (*pack, *offset) == (at.pack, at.offset)
}

fn end_of(record: &Record) -> usize {
    usize::try_from(record.location.offset).unwrap() + RECORD_HEADER_LEN + record.payload.len()
}

#[test]
fn records_come_back_from_several_packs() {
    let packs = Packs::with(&[0, 1, 500, 300, 2000, 64, 900, 10]);
    packs.appender.sync(packs.appender.epoch()).unwrap();

    assert_eq!(packs.scanned(), (packs.appended.clone(), 0));
    for record in &packs.appended {
        assert_eq!(packs.read(record).unwrap(), record.payload);
        // A record may be larger than a pack, but then it is alone in it.
        let alone = record.location.offset == PACK_HEADER_LEN;
        assert!(alone || end_of(record) <= usize::try_from(PACK_BYTES_MAX).unwrap());
    }
    assert_eq!(scan::store_uuid(packs.folder.path(), 1).unwrap(), Some(STORE));
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let packs = Packs::with(&[3]);

    let bytes = fs::read(packs.path(1)).unwrap();

    assert_eq!(bytes[..16], *b"LARDPACK\x02\0\0\0\x01\0\0\0");
    assert_eq!(bytes[16..32], STORE);
    assert_eq!(bytes[32..48], *b"LdRc\x01\0\0\0\x03\0\0\0\x70\x11\x01\0");
    assert_eq!(bytes[48..80], [0; 32]);
    assert_eq!(bytes[80..88], twox_hash::XxHash3_64::oneshot(&[0; 3]).to_le_bytes());
    let key = blake3::derive_key("larder 2026 header of a record", &STORE);
    let place = [1_u32.to_le_bytes().as_slice(), &32_u64.to_le_bytes()].concat();
    let seal = blake3::keyed_hash(&key, &[&place, &bytes[32..88]].concat());
    assert_eq!(bytes[88..96], seal.as_bytes()[..8]);
    assert_eq!(bytes[96..], [0; 3]);
}

#[test]
fn a_tail_that_is_torn_at_any_byte_leaves_all_before_it() {
    let packs = Packs::with(&[100, 200, 150]);
    let whole = fs::read(packs.path(1)).unwrap();
    let before = end_of(&packs.appended[1]);
    let position = u64::try_from(before).unwrap();
    for length in before..whole.len() {
        // Cut off, or filled with zeros as some file systems do.
        let zeros = [&whole[..length], &vec![0; whole.len() - length]].concat();
        for torn in [whole[..length].to_vec(), zeros] {
            fs::write(packs.path(1), torn).unwrap();

            let end = packs.scan(1, |found| assert!(matches!(found, Found::Record { .. })));

            assert_eq!(end, position, "torn at {length}");
            assert_eq!(packs.scanned(), (packs.appended[..2].to_vec(), 0), "torn at {length}");
            assert!(is_damaged(&packs.read(&packs.appended[2]), packs.appended[2].location));
        }
    }
    // The appender goes on behind the last sound record.
    let appender =
        open(&packs.folder, Position { pack: 1, offset: position }, &packs.disk).unwrap();
    let again = appender.append(Kind::Chunk, [7; 32], 1, b"again").unwrap();
    assert_eq!((again.location.pack, again.location.offset), (1, position));
    assert_eq!(packs.scanned().0.len(), 3);
}

#[test]
fn a_pack_without_a_whole_header_is_empty() {
    let packs = Packs::with(&[10]);
    for length in 0..PACK_HEADER_LEN {
        File::options().write(true).open(packs.path(1)).unwrap().set_len(length).unwrap();
        assert_eq!(packs.scan(1, |found| panic!("{found:?}")), 0);
        assert_eq!(scan::store_uuid(packs.folder.path(), 1).unwrap(), None);
    }
}

#[test]
fn every_flipped_bit_of_a_record_is_found_and_costs_that_record_alone() {
    let packs = Packs::with(&[40, 50, 60]);
    let whole = fs::read(packs.path(1)).unwrap();
    let record = &packs.appended[1];
    let start = usize::try_from(record.location.offset).unwrap();
    let others = [packs.appended[0].clone(), packs.appended[2].clone()];
    for bit in start * 8..end_of(record) * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(packs.path(1), flipped).unwrap();

        assert!(is_damaged(&packs.read(record), record.location), "bit {bit}");
        for other in &others {
            assert_eq!(packs.read(other).unwrap(), other.payload, "bit {bit}");
        }
        assert_eq!(packs.scanned(), (others.to_vec(), 1), "bit {bit}");
    }
}

#[test]
fn records_that_changed_places_are_found() {
    let mut packs = Packs::with(&[40, 40, 40]);
    let whole = fs::read(packs.path(1)).unwrap();
    let [first, second, third] = packs.appended.clone().try_into().unwrap();
    let place = |record: &Record| usize::try_from(record.location.offset).unwrap()..end_of(record);
    let mut swapped = whole.clone();
    swapped[place(&first)].copy_from_slice(&whole[place(&second)]);
    swapped[place(&second)].copy_from_slice(&whole[place(&first)]);

    fs::write(packs.path(1), swapped).unwrap();
    assert!(is_damaged(&packs.read(&first), first.location));
    assert!(is_damaged(&packs.read(&second), second.location));
    assert_eq!(packs.scanned(), (vec![third.clone()], 1));

    // The same place of another pack is another place.
    fs::write(packs.path(2), &whole).unwrap();
    packs.appended = vec![Record { location: Location { pack: 2, ..first.location }, ..first }];
    assert!(is_damaged(&packs.read(&packs.appended[0]), packs.appended[0].location));
}

#[test]
fn a_record_that_is_another_than_the_one_wanted_is_not_given() {
    let packs = Packs::with(&[40]);
    let reader = PackReader::new(packs.folder.path(), HeaderKey::of(STORE));
    let right = wanted(&packs.appended[0]);
    assert!(reader.read(Wanted { id: None, ..right }).is_ok());
    let location = right.location;
    for wrong in [
        Wanted { id: Some([1; 32]), ..right },
        Wanted { kind: Kind::Path, ..right },
        Wanted { location: Location { stored_len: 39, ..location }, ..right },
        Wanted { location: Location { stored_len: 41, ..location }, ..right },
        Wanted { location: Location { offset: location.offset + 1, ..location }, ..right },
    ] {
        assert!(reader.read(wrong).is_err_and(|error| error.is_damage()), "{wrong:?}");
    }
    let gone = Wanted { location: Location { pack: 9, ..location }, ..right };
    assert!(reader.read(gone).is_err_and(|error| error.is_damage()));
}

#[test]
fn what_a_stranger_sent_is_not_taken_for_a_record() {
    // A chunk that holds a record, made for the very place where it comes to lie.
    let packs = Packs::new();
    let inside = PACK_HEADER_LEN + 64;
    let forged = RecordHeader {
        kind: Kind::Delete,
        stored_len: 3,
        raw_len: 3,
        id: [1; 32],
        payload_sum: payload_sum(b"bad"),
    };
    let chunk = [forged.to_bytes(&HeaderKey::of(STORE), 1, inside).as_slice(), b"bad"].concat();
    packs.appender.append(Kind::Chunk, [2; 32], 1, &chunk).unwrap();
    packs.appender.append(Kind::Chunk, [3; 32], 1, b"behind").unwrap();
    let mut bytes = fs::read(packs.path(1)).unwrap();
    let last = usize::try_from(inside).unwrap() + chunk.len() - 1;
    bytes[last] ^= 1;
    fs::write(packs.path(1), bytes).unwrap();

    let (records, damaged) = packs.scanned();

    assert_eq!(records.iter().map(|record| record.id).collect::<Vec<_>>(), [[3; 32]]);
    assert_eq!(damaged, 1);
}

#[test]
fn what_a_stranger_sent_is_no_record_also_where_its_chunk_lost_its_header() {
    // A stranger knows the format and can guess the place, but not the store's UUID.
    let packs = Packs::new();
    let inside = PACK_HEADER_LEN + 64;
    let forged = RecordHeader {
        kind: Kind::Delete,
        stored_len: 3,
        raw_len: 3,
        id: [1; 32],
        payload_sum: payload_sum(b"bad"),
    };
    let key = HeaderKey::of([0; 16]);
    let chunk = [forged.to_bytes(&key, 1, inside).as_slice(), b"bad"].concat();
    packs.appender.append(Kind::Chunk, [2; 32], 1, &chunk).unwrap();
    packs.appender.append(Kind::Chunk, [3; 32], 1, b"behind").unwrap();
    let mut bytes = fs::read(packs.path(1)).unwrap();
    bytes[usize::try_from(PACK_HEADER_LEN).unwrap()] ^= 1;
    fs::write(packs.path(1), bytes).unwrap();

    let (records, damaged) = packs.scanned();

    assert_eq!(records.iter().map(|record| record.id).collect::<Vec<_>>(), [[3; 32]]);
    assert_eq!(damaged, 1);
}

#[test]
fn a_record_beyond_the_bound_of_its_kind_is_refused() {
    let packs = Packs::new();
    let bytes = vec![0; FRAME_BYTES_MAX + 1];
    let refused = packs.appender.append(Kind::Chunk, [0; 32], 1, &bytes);
    assert!(matches!(refused, Err(PackError::TooLarge(length)) if length == bytes.len()));
    packs.appender.append(Kind::Chunk, [0; 32], 1, &bytes[1..]).unwrap();
    packs.appender.append(Kind::Manifest, [0; 32], 1, &bytes).unwrap();
    // Nor is memory taken for one that says so in a pack.
    let stored_len = u32::try_from(bytes.len()).unwrap();
    let header =
        RecordHeader { kind: Kind::Chunk, stored_len, raw_len: 1, id: [0; 32], payload_sum: 0 };
    let key = HeaderKey::of(STORE);
    assert_eq!(RecordHeader::from_bytes(&header.to_bytes(&key, 1, 32), &key, 1, 32), None);
}

#[test]
fn a_failed_sync_takes_all_that_was_not_synced_and_nothing_else() {
    // Ten records fill several packs; the failing sync is that of each of them, then the folder's.
    for sync_at in 1..=6 {
        let mut packs = Packs::with(&[300, 300]);
        let epoch = packs.appender.epoch();
        packs.appender.sync(epoch).unwrap();
        let synced = packs.appended.clone();
        for _ in 0..10 {
            packs.append(300).unwrap();
        }
        let files = scan::pack_numbers(packs.folder.path()).unwrap().len();
        packs.disk.sync_at.store(sync_at, Ordering::SeqCst);
        assert!(usize::try_from(sync_at).unwrap() <= files + 1);

        assert!(matches!(packs.appender.sync(epoch), Err(PackError::File { .. })));

        // It is not tried again, and not taken for done.
        assert!(matches!(packs.appender.sync(epoch), Err(PackError::Lost)));
        assert_eq!(packs.scanned(), (synced.clone(), 0));
        for lost in packs.appended.iter().skip(synced.len()) {
            assert!(packs.read(lost).is_err_and(|error| error.is_damage()));
        }
        // What comes now goes to a new pack, and is safe after its own sync.
        packs.appended = synced;
        packs.append(300).unwrap();
        let last = packs.appended.last().unwrap().location;
        assert_eq!((last.pack, last.offset), (u32::try_from(files).unwrap() + 1, PACK_HEADER_LEN));
        packs.appender.sync(packs.appender.epoch()).unwrap();
        assert_eq!(packs.scanned(), (packs.appended.clone(), 0));
    }
}

#[test]
fn a_failed_write_takes_what_was_not_synced_and_the_next_one_works() {
    // The header of a pack counts as a write.
    for write_at in 1..=4 {
        let mut packs = Packs::with(&[600]);
        let epoch = packs.appender.epoch();
        packs.appender.sync(epoch).unwrap();
        let synced = packs.appended.clone();
        packs.disk.write_at.store(write_at, Ordering::SeqCst);

        let failed = (0..3).find_map(|_| packs.append(500).err());

        assert!(matches!(failed, Some(PackError::File { .. })), "{failed:?}");
        assert_ne!(packs.appender.epoch(), epoch);
        assert!(matches!(packs.appender.sync(epoch), Err(PackError::Lost)));
        assert_eq!(packs.scanned(), (synced.clone(), 0));
        packs.appended = synced;
        packs.append(10).unwrap();
        packs.appender.sync(packs.appender.epoch()).unwrap();
        assert_eq!(packs.scanned(), (packs.appended.clone(), 0));
    }
}

#[test]
fn a_payload_of_another_version_or_with_bytes_behind_is_refused() {
    let delete = payload::Delete::Cache { uuid: [5; 16] };
    let bytes = payload::encode(&delete).unwrap();
    assert_eq!(payload::decode::<payload::Delete>(&bytes).unwrap(), delete);

    let newer = [&[2], &bytes[1..]].concat();
    assert!(matches!(payload::decode::<payload::Delete>(&newer), Err(PackError::Version(2))));
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(payload::decode::<payload::Delete>(&longer).is_err());
    for length in 0..bytes.len() {
        assert!(payload::decode::<payload::Delete>(&bytes[..length]).is_err(), "{length}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_run_is_what_single_reads_give(
        lengths in proptest::collection::vec(0_usize..400, 1..40),
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let packs = Packs::with(&lengths);
        let picked: Vec<_> = picks.iter().map(|pick| pick.get(&packs.appended)).collect();
        let run: Vec<_> = picked.iter().map(|record| wanted(record)).collect();

        let payloads = PackReader::new(packs.folder.path(), HeaderKey::of(STORE)).read_run(&run).unwrap();

        prop_assert_eq!(payloads.len(), picked.len());
        for (payload, record) in payloads.iter().zip(picked) {
            prop_assert_eq!(&payload[..], &record.payload[..]);
        }
    }

    #[test]
    fn damage_anywhere_costs_only_the_records_it_touches(
        lengths in proptest::collection::vec(0_usize..120, 1..8),
        start in any::<prop::sample::Index>(),
        noise in proptest::collection::vec(any::<u8>(), 1..200),
    ) {
        let packs = Packs::with(&lengths);
        let whole = fs::read(packs.path(1)).unwrap();
        let first = usize::try_from(PACK_HEADER_LEN).unwrap();
        let start = first + start.index(whole.len() - first);
        let end = whole.len().min(start + noise.len());
        let mut damaged = whole.clone();
        damaged[start..end].copy_from_slice(&noise[..end - start]);
        fs::write(packs.path(1), &damaged).unwrap();

        let (found, _damaged) = packs.scanned();

        let untouched = |record: &&Record| {
            let place = usize::try_from(record.location.offset).unwrap()..end_of(record);
            record.location.pack > 1 || damaged[place.clone()] == whole[place]
        };
        let expected: Vec<_> = packs.appended.iter().filter(untouched).cloned().collect();
        prop_assert_eq!(found, expected);
    }
}
