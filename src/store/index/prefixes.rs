//! The way from a chunk's ID to its number, cheap to write: new entries gather in memory and go
//! to their table a slice of the prefixes at a time, so that many entries share each page that is
//! written. FORMAT.md has the measurements that chose this form.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

use crate::store::error::StoreError;
use crate::store::index::numbers::ChunkNumber;
use crate::wire::message::ChunkId;

/// Entries that gather in memory before a slice goes to the table: some 8 MiB.
const GATHERED_MAX: usize = 262_144;
/// Slices of the prefixes, by their top bits.
const SLICES: usize = 64;
/// Bits of a prefix behind those that number its slice.
const SLICE_SHIFT: u32 = 58;

/// The way from IDs to numbers. Only the thread that writes the index inserts and deletes.
#[derive(Debug)]
pub(in crate::store) struct Prefixes {
    gathered_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    gathered: BTreeSet<(u64, ChunkNumber)>,
    /// What went to the table last. It stays for readers whose snapshot is from before that.
    passed_on: BTreeSet<(u64, ChunkNumber)>,
    slices: Slices,
    /// Slices as they were before entries went to the table in a transaction whose end is not
    /// known yet.
    unsettled: Option<Slices>,
    newest: ChunkNumber,
}

/// For each slice the number up to which its entries are in the table, and the slice that is next.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slices {
    up_to: Vec<ChunkNumber>,
    next: usize,
}

impl Default for Slices {
    fn default() -> Self {
        Self { up_to: vec![0; SLICES], next: 0 }
    }
}

impl Prefixes {
    /// Gathers the entries that are not in the table: one scan over the newest chunks.
    pub(in crate::store) fn load(connection: &Connection) -> Result<Self, StoreError> {
        Self::load_with(connection, GATHERED_MAX)
    }

    pub(super) fn load_with(
        connection: &Connection,
        gathered_max: usize,
    ) -> Result<Self, StoreError> {
        let slices = Slices::read(connection)?;
        let from = slices.up_to.iter().min().copied().unwrap_or(0);
        let mut statement = connection.prepare(
            "SELECT number, substr(id, 1, 8) FROM chunks WHERE number > ? ORDER BY number",
        )?;
        let mut rows = statement.query([from])?;
        let mut state = State { slices, ..State::default() };
        while let Some(row) = rows.next()? {
            let (number, prefix): (ChunkNumber, [u8; 8]) = (row.get(0)?, row.get(1)?);
            let prefix = u64::from_be_bytes(prefix);
            if number > state.slices.up_to_of(prefix) {
                state.gathered.insert((prefix, number));
            }
            state.newest = number;
        }
        Ok(Self { gathered_max, state: Mutex::new(state) })
    }

    /// Numbers of chunks whose ID may be `id`, some of them twice: whoever asks looks at their
    /// rows.
    pub(in crate::store) fn numbers(
        &self,
        connection: &Connection,
        id: ChunkId,
    ) -> Result<Vec<ChunkNumber>, StoreError> {
        let prefix = prefix_of(id);
        // Memory first: an entry leaves it only when the table has it durably.
        let mut numbers = self.lock().numbers(prefix);
        let mut statement = connection
            .prepare_cached("SELECT number FROM chunk_prefixes WHERE prefix = ? ORDER BY number")?;
        let mut rows = statement.query([prefix.cast_signed()])?;
        while let Some(row) = rows.next()? {
            numbers.push(row.get(0)?);
        }
        Ok(numbers)
    }

    /// A number that a chunk with this ID might have had: always the same, and about as near to
    /// others as any.
    pub(in crate::store) fn stand_in(&self, id: ChunkId) -> ChunkNumber {
        prefix_of(id) % self.lock().newest.max(1) + 1
    }

    /// Adds entries in the transaction on `tx`. A transaction that may be rolled back while the
    /// store goes on does this once.
    ///
    /// Cost: whenever [`GATHERED_MAX`] is passed, every 4,000 entries or so, one slice goes to
    /// the table: some 50 ms, in which readers are not held up.
    pub(in crate::store) fn insert(
        &self,
        tx: &Connection,
        entries: impl Iterator<Item = (ChunkId, ChunkNumber)>,
    ) -> Result<(), StoreError> {
        let (due, slices) = {
            let mut state = self.lock();
            state.settle(tx)?;
            let late = state.gather(entries.map(|(id, number)| (prefix_of(id), number)));
            state.due(late, self.gathered_max)
        };
        put(tx, &due)?;
        let mut state = self.lock();
        if state.slices != slices {
            slices.write(tx)?;
            state.unsettled = Some(mem::replace(&mut state.slices, slices));
        }
        Ok(())
    }

    /// Takes an entry out of the table; one in memory points at a row that is gone, which does
    /// no harm.
    pub(in crate::store) fn delete(
        &self,
        tx: &Connection,
        id: ChunkId,
        number: ChunkNumber,
    ) -> Result<(), StoreError> {
        tx.prepare_cached("DELETE FROM chunk_prefixes WHERE prefix = ? AND number = ?")?
            .execute(params![prefix_of(id).cast_signed(), number])?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn numbers(&self, prefix: u64) -> Vec<ChunkNumber> {
        let range = (prefix, 0)..=(prefix, ChunkNumber::MAX);
        let entries = self.passed_on.range(range.clone()).chain(self.gathered.range(range));
        entries.map(|(_prefix, number)| *number).collect()
    }

    /// Takes out of `gathered` what the last transaction has put into the table, if it was
    /// committed; else forgets that it tried.
    fn settle(&mut self, tx: &Connection) -> Result<(), StoreError> {
        let Some(before) = self.unsettled.take() else { return Ok(()) };
        if Slices::read(tx)? != self.slices {
            self.slices = before;
            return Ok(());
        }
        let slices = &self.slices;
        let in_table = |(prefix, number): &(u64, ChunkNumber)| *number <= slices.up_to_of(*prefix);
        self.passed_on = self.gathered.extract_if(.., in_table).collect();
        Ok(())
    }

    /// Adds entries; returns those that must go to the table at once. A start would not read
    /// their rows again, as their slices count as read up to a higher number: it was given to a
    /// chunk that was lost with a failed sync, or taken out again.
    fn gather(
        &mut self,
        entries: impl Iterator<Item = (u64, ChunkNumber)>,
    ) -> Vec<(u64, ChunkNumber)> {
        let mut late = Vec::new();
        for (prefix, number) in entries {
            if number <= self.slices.up_to_of(prefix) {
                late.push((prefix, number));
            } else {
                self.gathered.insert((prefix, number));
                self.newest = self.newest.max(number);
            }
        }
        late
    }

    /// What must go to the table now: `late`, and slices until few enough entries would stay;
    /// and how far the slices have come then.
    fn due(
        &self,
        mut late: Vec<(u64, ChunkNumber)>,
        gathered_max: usize,
    ) -> (Vec<(u64, ChunkNumber)>, Slices) {
        let mut slices = self.slices.clone();
        let mut left = self.gathered.len();
        while left > gathered_max {
            let (first, last) = bounds(slices.next);
            let before = late.len();
            late.extend(self.gathered.range((first, 0)..=(last, ChunkNumber::MAX)));
            left -= late.len() - before;
            slices.advance(self.newest);
        }
        (late, slices)
    }
}

/// Puts entries into the table.
fn put(tx: &Connection, entries: &[(u64, ChunkNumber)]) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO chunk_prefixes (prefix, number) VALUES (?, ?)";
    let mut statement = tx.prepare_cached(sql)?;
    for (prefix, number) in entries {
        statement.execute(params![prefix.cast_signed(), number])?;
    }
    Ok(())
}

impl Slices {
    fn read(connection: &Connection) -> Result<Self, StoreError> {
        let sql = "SELECT value FROM meta WHERE name = 'chunk-slices'";
        let bytes: Option<Vec<u8>> =
            connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        let (words, _rest) = bytes.as_chunks();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let next = words.next().and_then(|next| usize::try_from(next).ok());
        let up_to: Vec<_> = words.collect();
        match next.filter(|next| *next < SLICES && up_to.len() == SLICES) {
            Some(next) => Ok(Self { up_to, next }),
            None => Err(StoreError::BadRow("slices of the chunk index")),
        }
    }

    fn write(&self, tx: &Connection) -> Result<(), StoreError> {
        let next = u64::try_from(self.next).unwrap_or(0);
        let words = std::iter::once(next).chain(self.up_to.iter().copied());
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        tx.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES ('chunk-slices', ?)")?
            .execute([bytes])?;
        Ok(())
    }

    fn up_to_of(&self, prefix: u64) -> ChunkNumber {
        let slice = usize::try_from(prefix >> SLICE_SHIFT).unwrap_or(0);
        self.up_to.get(slice).copied().unwrap_or(0)
    }

    fn advance(&mut self, newest: ChunkNumber) {
        if let Some(up_to) = self.up_to.get_mut(self.next) {
            *up_to = newest;
        }
        self.next = (self.next + 1) % SLICES;
    }
}

/// The least and the greatest prefix of a slice.
fn bounds(slice: usize) -> (u64, u64) {
    let first = u64::try_from(slice).unwrap_or(0) << SLICE_SHIFT;
    (first, first | ((1 << SLICE_SHIFT) - 1))
}

fn prefix_of(id: ChunkId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const GATHERED: usize = 300;

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;")
            .unwrap();
        connection.execute_batch(include_str!("schema/002-chunks.sql")).unwrap();
        connection
    }

    fn id(number: ChunkNumber) -> ChunkId {
        ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn insert(prefixes: &Prefixes, connection: &Connection, numbers: std::ops::Range<u64>) {
        for number in numbers.clone() {
            connection
                .execute(
                    "INSERT INTO chunks VALUES (?, ?, 1, 1, 1, 1, 1)",
                    params![number, id(number).0],
                )
                .unwrap();
        }
        prefixes.insert(connection, numbers.map(|number| (id(number), number))).unwrap();
    }

    fn assert_finds(prefixes: &Prefixes, connection: &Connection, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let found = prefixes.numbers(connection, id(number)).unwrap();
            assert!(found.contains(&number), "{number} is not among {found:?}");
        }
    }

    #[test]
    fn every_entry_is_found_in_memory_or_in_the_table() {
        let connection = connection();
        let prefixes = Prefixes::load_with(&connection, GATHERED).unwrap();
        for start in (1..5000).step_by(50) {
            connection.execute_batch("BEGIN").unwrap();
            insert(&prefixes, &connection, start..start + 50);
            connection.execute_batch("COMMIT").unwrap();
        }
        assert_finds(&prefixes, &connection, 1..5001);
        assert!(prefixes.lock().gathered.len() < 2 * GATHERED);
        assert!(prefixes.numbers(&connection, id(9_999_999)).unwrap().is_empty());
    }

    #[test]
    fn a_start_gathers_what_the_table_lacks() {
        let connection = connection();
        let prefixes = Prefixes::load_with(&connection, GATHERED).unwrap();
        for start in (1..3000).step_by(10) {
            insert(&prefixes, &connection, start..start + 10);
        }
        let again = Prefixes::load_with(&connection, GATHERED).unwrap();
        assert_finds(&again, &connection, 1..3001);
        assert!(again.lock().gathered.len() <= GATHERED);
    }

    #[test]
    fn a_transaction_that_is_taken_back_loses_nothing() {
        let connection = connection();
        let prefixes = Prefixes::load_with(&connection, GATHERED).unwrap();
        insert(&prefixes, &connection, 1..301);
        connection.execute_batch("BEGIN").unwrap();
        insert(&prefixes, &connection, 301..600);
        connection.execute_batch("ROLLBACK").unwrap();
        for start in (600..2000).step_by(100) {
            insert(&prefixes, &connection, start..start + 100);
        }
        assert_finds(&prefixes, &connection, 1..301);
        assert_finds(&prefixes, &connection, 600..2000);
        let again = Prefixes::load_with(&connection, GATHERED).unwrap();
        assert_finds(&again, &connection, 1..301);
    }

    #[test]
    fn pages_are_shared_by_many_entries() {
        // What goes to the table at a time lies side by side: one slice of the prefixes.
        let connection = connection();
        let prefixes = Prefixes::load_with(&connection, 1000).unwrap();
        insert(&prefixes, &connection, 1..1001);
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
        assert_eq!(count("SELECT count(*) FROM chunk_prefixes"), 0);
        insert(&prefixes, &connection, 1001..1002);
        let passed_on = count("SELECT count(*) FROM chunk_prefixes");
        assert!((1..40).contains(&passed_on), "{passed_on}");
        let slices = "SELECT count(DISTINCT (prefix >> 58) & 63) FROM chunk_prefixes";
        assert_eq!(count(slices), 1);
    }

    #[test]
    fn two_chunks_of_one_prefix_are_both_told() {
        let connection = connection();
        let prefixes = Prefixes::load_with(&connection, GATHERED).unwrap();
        let mut bytes = [7; 32];
        let first = ChunkId(bytes);
        bytes[31] = 8;
        let second = ChunkId(bytes);
        prefixes.insert(&connection, [(first, 1), (second, 2)].into_iter()).unwrap();
        let found: HashMap<_, _> = [first, second]
            .into_iter()
            .map(|id| (id, prefixes.numbers(&connection, id).unwrap()))
            .collect();
        assert_eq!(found[&first], [1, 2]);
        assert_eq!(found[&second], [1, 2]);
    }
}
