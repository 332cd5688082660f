use std::collections::BTreeSet;

use proptest::prelude::*;
use rusqlite::Connection;

use super::*;
use crate::store::index::db;

const ONE: CacheId = CacheId(1);
const TWO: CacheId = CacheId(2);

/// An index of its own, with all tables.
fn index() -> (tempfile::TempDir, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let connection = db::open_writer(&folder.path().join("larder.db")).unwrap();
    (folder, connection)
}

fn blob(connection: &Connection, cache: CacheId, block: u64) -> Vec<u8> {
    connection.query_row(SELECT, params![cache.0, block], |row| row.get(0)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_set_has_what_was_entered_and_nothing_else(
        batches in proptest::collection::vec(
            (1_i64..3, proptest::collection::vec(0_u64..20_000, 0..900)), 0..6),
        asked in proptest::collection::vec(0_u64..20_000, 200),
    ) {
        let (_folder, connection) = index();
        let mut expected = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
        for (cache, chunks) in &batches {
            add(&connection, CacheId(*cache), chunks).unwrap();
            expected[usize::try_from(*cache).unwrap()].extend(chunks);
        }
        for cache in [ONE, TWO] {
            let expected = &expected[usize::try_from(cache.0).unwrap()];
            for chunk in asked.iter().chain(expected) {
                let found = contains(&connection, cache, *chunk).unwrap();
                prop_assert_eq!(found, expected.contains(chunk), "{:?} {}", cache, chunk);
            }
        }
    }

    #[test]
    fn a_block_comes_back_from_its_blob(offsets in proptest::collection::btree_set(0_u64..8192, 0..1500)) {
        let mut block = Block(vec![0; BITMAP_BYTES]);
        offsets.iter().for_each(|offset| block.set(*offset, true));
        let blob = block.to_blob();
        prop_assert_eq!(blob.len(), (offsets.len() * 2).min(BITMAP_BYTES));
        for offset in 0..8192 {
            prop_assert_eq!(is_in_blob(&blob, offset).unwrap(), offsets.contains(&offset));
        }
        prop_assert_eq!(Block::from_blob(blob).unwrap().0, block.0);
    }

    #[test]
    fn no_blob_makes_it_panic(blob in proptest::collection::vec(any::<u8>(), 0..1100)) {
        let _any = is_in_blob(&blob, 77);
        let _any = Block::from_blob(blob);
    }
}

#[test]
fn a_blob_is_the_shorter_of_a_list_and_bits() {
    let (_folder, connection) = index();
    add(&connection, ONE, &[8192 + 3, 8192, 8192 + 3]).unwrap();
    assert_eq!(blob(&connection, ONE, 1), [0, 0, 3, 0]);
    add(&connection, ONE, &(0..511).collect::<Vec<_>>()).unwrap();
    assert_eq!(blob(&connection, ONE, 0).len(), 1022);
    add(&connection, ONE, &[8191]).unwrap();
    let bits = blob(&connection, ONE, 0);
    assert_eq!((bits.len(), bits[0], bits[63], bits[1023]), (1024, 255, 127, 128));
}

#[test]
fn blobs_that_are_none_are_said_to_be() {
    for bad in [vec![0; 3], vec![0; 1023], vec![0; 1026]] {
        assert!(is_in_blob(&bad, 0).is_err(), "{}", bad.len());
        assert!(Block::from_blob(bad).is_err());
    }
}

#[test]
fn a_chunk_is_replaced_wherever_it_was() {
    let (_folder, connection) = index();
    add(&connection, ONE, &[5, 6]).unwrap();
    add(&connection, TWO, &[6]).unwrap();

    replace(&connection, 5, 9000).unwrap();

    for (cache, chunk, expected) in
        [(ONE, 5, false), (ONE, 6, true), (ONE, 9000, true), (TWO, 6, true), (TWO, 9000, false)]
    {
        assert_eq!(contains(&connection, cache, chunk).unwrap(), expected, "{cache:?} {chunk}");
    }
    forget(&connection, ONE).unwrap();
    assert!(!contains(&connection, ONE, 9000).unwrap());
    assert!(contains(&connection, TWO, 6).unwrap());
}
