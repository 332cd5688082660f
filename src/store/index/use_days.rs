//! Which place of the order of uses belongs to which day.
//!
//! Paths carry no time, only their place in that order, so nothing that happens to the wall clock
//! makes one of them older. A day's row says that every use with a lower place was before.

use rusqlite::{Connection, OptionalExtension, params};

use crate::formats::CacheLimits;
use crate::store::UnixSeconds;
use crate::store::error::StoreError;
use crate::store::uses::Use;

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Days that are remembered: what the longest retention asks for.
const DAYS_KEPT: u32 = CacheLimits::RETENTION_DAYS_MAX + 2;

/// Notes that the order has come to `next`. Days that are not to come until later were told by a
/// clock that was wrong.
pub(in crate::store) fn note(
    connection: &Connection,
    now: UnixSeconds,
    next: Use,
) -> Result<(), StoreError> {
    let day = now / DAY_SECONDS;
    connection
        .prepare_cached("DELETE FROM use_days WHERE day > ? OR day < ?")?
        .execute(params![day, day.saturating_sub(u64::from(DAYS_KEPT))])?;
    connection
        .prepare_cached("INSERT OR IGNORE INTO use_days (day, used) VALUES (?, ?)")?
        .execute(params![day, next])?;
    Ok(())
}

/// The place before which every use is more than `days` old; `None` if nothing is known of a time
/// so long ago.
pub(in crate::store) fn before(
    connection: &Connection,
    now: UnixSeconds,
    days: u32,
) -> Result<Option<Use>, StoreError> {
    // What is noted in the course of a day is younger than the day's beginning.
    let last = (now / DAY_SECONDS).checked_sub(u64::from(days) + 1);
    let Some(last) = last else { return Ok(None) };
    Ok(connection
        .prepare_cached("SELECT used FROM use_days WHERE day <= ? ORDER BY day DESC LIMIT 1")?
        .query_row([last], |row| row.get(0))
        .optional()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        let sql = "CREATE TABLE use_days (day INTEGER PRIMARY KEY, used INTEGER NOT NULL)";
        connection.execute_batch(sql).unwrap();
        connection
    }

    #[test]
    fn what_is_old_is_older_than_whole_days() {
        let table = table();
        let day = |day: u64| day * DAY_SECONDS;
        note(&table, day(100) + 7, 1000).unwrap();
        note(&table, day(100) + 8, 1001).unwrap();
        note(&table, day(103), 1300).unwrap();
        assert_eq!(before(&table, day(101), 1).unwrap(), None);
        assert_eq!(before(&table, day(102) + 7, 1).unwrap(), Some(1000));
        assert_eq!(before(&table, day(104), 1).unwrap(), Some(1000));
        assert_eq!(before(&table, day(105), 1).unwrap(), Some(1300));
        assert_eq!(before(&table, day(105), 90).unwrap(), None);
        assert_eq!(before(&table, 5, 90).unwrap(), None);
    }

    #[test]
    fn a_day_that_is_not_yet_is_forgotten() {
        let table = table();
        note(&table, 50_000 * DAY_SECONDS, 7).unwrap();
        note(&table, 20_000 * DAY_SECONDS, 9).unwrap();
        assert_eq!(before(&table, 50_002 * DAY_SECONDS, 1).unwrap(), Some(9));
    }
}
