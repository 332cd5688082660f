use std::collections::HashMap;

use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::store::index::db;
use crate::store::index::prefixes::Prefixes;

/// So few that a few hundred chunks go through all slices.
const GATHERED: usize = 64;

/// An index in a folder of its own, beside a model of what it must find.
struct Tested {
    connection: Connection,
    index: ChunkIndex,
    next: ChunkNumber,
    model: HashMap<ChunkId, ChunkNumber>,
    _folder: TempDir,
}

/// What a transaction ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Commit,
    RollBack,
}

impl Tested {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let connection = db::open_writer(&folder.path().join("larder.db")).unwrap();
        // No power is lost here, and syncs are most of the time.
        connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
        let index = open(&connection);
        Self { connection, index, next: 1, model: HashMap::new(), _folder: folder }
    }

    /// Inserts chunks of these names in one transaction, `at_a_time` in each call.
    fn insert(&mut self, names: &[u64], at_a_time: usize, end: End) {
        let tx = self.connection.transaction().unwrap();
        let mut next = self.next;
        let mut model = self.model.clone();
        for some in names.chunks(at_a_time) {
            let rows: Vec<_> =
                some.iter().zip(next..).map(|(name, at)| row_of(*name, at)).collect();
            model.extend(rows.iter().map(|row| (row.id, row.number)));
            next += u64::try_from(rows.len()).unwrap();
            self.index.insert(&tx, &rows).unwrap();
        }
        if end == End::Commit {
            tx.commit().unwrap();
            (self.next, self.model) = (next, model);
        } else {
            tx.rollback().unwrap();
        }
    }

    fn reopen(&mut self) {
        self.index = open(&self.connection);
        let sql = "SELECT ifnull(max(number), 0) + 1 FROM chunks";
        self.next = self.connection.query_row(sql, [], |row| row.get(0)).unwrap();
    }

    /// Looks up all of `names` and compares with the model.
    fn check(&self, names: impl Iterator<Item = u64>) {
        let ids: Vec<_> = names.map(id_of).collect();
        let found = self.index.look_up(&self.connection, &ids).unwrap();
        for (id, row) in ids.iter().zip(found) {
            assert_eq!(row.as_ref().map(|row| row.number), self.model.get(id).copied(), "{id:?}");
            assert!(row.is_none_or(|row| row.id == *id));
        }
    }

    fn entries_in_table(&self) -> usize {
        let sql = "SELECT count(*) FROM chunk_prefixes";
        self.connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

fn open(connection: &Connection) -> ChunkIndex {
    ChunkIndex { prefixes: Prefixes::load_with(connection, GATHERED).unwrap() }
}

fn id_of(name: u64) -> ChunkId {
    ChunkId(*blake3::hash(&name.to_le_bytes()).as_bytes())
}

fn row_of(name: u64, number: ChunkNumber) -> ChunkRow {
    let location = Location { pack: 7, offset: number * 100, stored_len: 36 };
    ChunkRow { number, id: id_of(name), location, raw_len: 90, sum: u64::MAX - name }
}

#[test]
fn a_row_comes_back_as_it_went_in() {
    let mut tested = Tested::new();
    tested.insert(&[11, 12, 13], 3, End::Commit);

    let found = tested.index.look_up(&tested.connection, &[id_of(12), id_of(99)]).unwrap();
    let [Some(row), None] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((row.number, row.location, row.raw_len), (2, row_of(12, 2).location, 90));
    assert_eq!(row.sum, u64::MAX - 12);
    let by_number = rows(&tested.connection, &[3, 4, 1]).unwrap();
    let ids: Vec<_> = by_number.into_iter().map(|row| row.map(|row| row.id)).collect();
    assert_eq!(ids, [Some(id_of(13)), None, Some(id_of(11))]);
}

#[test]
fn every_chunk_is_found_wherever_its_entry_has_come_to() {
    let mut tested = Tested::new();
    let names: Vec<_> = (0..5_000).collect();
    for some in names.chunks(500) {
        tested.insert(some, 100, End::Commit);
        tested.check(some.iter().map(|name| name / 3));
    }
    tested.check(0..10_000);
    // What is not in the table is in memory.
    assert!((5_000 - GATHERED..5_000).contains(&tested.entries_in_table()));

    tested.reopen();
    tested.check(0..10_000);
}

#[test]
fn of_two_rows_of_a_chunk_the_newer_one_is_found() {
    let mut tested = Tested::new();
    for round in 0..40 {
        let others: Vec<_> = (0..50).map(|n| 1000 + round * 50 + n).collect();
        tested.insert(&[&[1, 2, 3], others.as_slice()].concat(), 10, End::Commit);
        tested.check([1, 2, 3].into_iter());
    }
}

#[test]
fn a_number_that_is_used_again_leads_to_the_chunk_that_has_it_now() {
    let mut tested = Tested::new();
    tested.insert(&(0..200).collect::<Vec<_>>(), 200, End::Commit);
    for name in [3, 100, 199] {
        let number = tested.model.remove(&id_of(name)).unwrap();
        tested.index.delete(&tested.connection, number).unwrap();
    }
    tested.check(0..300);
    // Numbers of transactions that are lost count as passed on, too.
    tested.insert(&(1000..1300).collect::<Vec<_>>(), 300, End::RollBack);
    tested.insert(&(1000..1300).collect::<Vec<_>>(), 300, End::Commit);
    for name in 1000..1300 {
        let number = tested.model.remove(&id_of(name)).unwrap();
        tested.index.delete(&tested.connection, number).unwrap();
    }

    tested.reopen();
    assert_eq!(tested.next, 200);
    for name in (2000..2300).step_by(10) {
        tested.insert(&(name..name + 10).collect::<Vec<_>>(), 10, End::Commit);
    }
    tested.check((0..300).chain(2000..2300));
    tested.reopen();
    tested.check((0..300).chain(2000..2300));
}

#[test]
fn a_reader_whose_snapshot_is_from_before_a_slice_still_finds_its_chunks() {
    let mut tested = Tested::new();
    let path = tested.connection.path().unwrap().to_owned();
    tested.insert(&(0..60).collect::<Vec<_>>(), 60, End::Commit);
    let mut reader = Connection::open(path).unwrap();
    let snapshot = reader.transaction().unwrap();
    let ids: Vec<_> = (0..60).map(id_of).collect();
    assert!(tested.index.look_up(&snapshot, &ids).unwrap().iter().all(Option::is_some));

    // Some of them go to the table, and the next transaction learns that they have.
    tested.insert(&(60..90).collect::<Vec<_>>(), 30, End::Commit);
    tested.insert(&[90], 1, End::Commit);
    assert!(tested.entries_in_table() > 20);

    assert!(tested.index.look_up(&snapshot, &ids).unwrap().iter().all(Option::is_some));
    assert!(tested.index.look_up(&snapshot, &[id_of(70)]).unwrap()[0].is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Insert { count: u64, at_a_time: usize, end: End },
    Repeat { end: End },
    Delete { which: prop::sample::Index },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![4 => Just(End::Commit), 1 => Just(End::RollBack)];
    prop_oneof![
        6 => (1_u64..400, 1_usize..100, end.clone())
            .prop_map(|(count, at_a_time, end)| Step::Insert { count, at_a_time, end }),
        1 => end.prop_map(|end| Step::Repeat { end }),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::Delete { which }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_index_is_a_map(steps in proptest::collection::vec(step(), 1..40)) {
        let mut tested = Tested::new();
        let mut names = 0;
        for step in steps {
            match step {
                Step::Insert { count, at_a_time, end } => {
                    // Names of a transaction that is rolled back come again in the next.
                    let some: Vec<_> = (names..names + count).collect();
                    // Only one call for each transaction that may be rolled back.
                    let at_a_time = if end == End::Commit { at_a_time } else { some.len() };
                    tested.insert(&some, at_a_time, end);
                    names += if end == End::Commit { count } else { 0 };
                }
                Step::Repeat { end } => {
                    let some: Vec<_> = (0..names).step_by(7).collect();
                    tested.insert(&some, some.len().max(1), end);
                }
                Step::Delete { which } if !tested.model.is_empty() => {
                    let id = *tested.model.keys().nth(which.index(tested.model.len())).unwrap();
                    // An older row of the same chunk would come to light; take out all of them.
                    tested.model.remove(&id);
                    while let Some(row) = tested.index.look_up(&tested.connection, &[id]).unwrap()[0].clone() {
                        tested.index.delete(&tested.connection, row.number).unwrap();
                    }
                }
                Step::Delete { .. } => {}
                Step::Reopen => tested.reopen(),
            }
            tested.check((0..names + 50).step_by(3));
        }
        tested.check(0..names + 50);
    }
}
