//! The group commit: many jobs, one sync of the packs, one transaction of the index.
//!
//! Order of effects, and why. In one transaction a group first enters the pending chunks, then
//! runs the jobs one by one, each in a savepoint; what a job has for the packs it appends as it
//! goes. Then the packs are synced, then the transaction is committed, and only then are the jobs
//! answered. So a row never stands without its bytes, an answer never without both; what a crash
//! leaves is bytes without rows, which the next start replays.
//!
//! What a group that failed appended is taken back before the next group runs: a replay takes
//! records in their order, so one that nobody was told of would win over a later one that was
//! acknowledged. Its transaction is made void first. SQLite says that a commit failed also where
//! the sync of its log did, and then the whole of it may be in the log, where it counts after a
//! crash if nothing was written over it: rows whose records are gone. A further commit is written
//! over it, and only behind that are the packs cut. A crash before it finds the records, with
//! their rows or without; one behind it finds no rows, and the records or not. Both are sound, for
//! nothing was acknowledged in between. Until all that succeeds nothing is committed.

use std::sync::Arc;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tracing::error;

use crate::store::error::StoreError;
use crate::store::index::{meta, uploads};
use crate::store::pack::{Kind, Location, PackError, Position};
use crate::store::pending::TakenUp;
use crate::store::shared::Shared;

/// What a job works with.
#[derive(Debug)]
pub(in crate::store) struct Group<'a> {
    /// The transaction of the group.
    pub(in crate::store) tx: &'a Transaction<'a>,
    /// Packs and everything else that is shared.
    pub(in crate::store) shared: &'a Shared,
    /// The appender's epoch when the group took up its chunks.
    epoch: u64,
}

/// Runs in a group, or is told that there is none; either way it can be answered then.
pub(in crate::store) type Job = Box<dyn FnOnce(Option<&Group<'_>>) -> Answer + Send>;
/// Told why the group failed, or that it did not.
pub(in crate::store) type Answer = Box<dyn FnOnce(Option<&Arc<StoreError>>)>;

impl Group<'_> {
    /// Appends a record that is no chunk.
    ///
    /// # Errors
    ///
    /// [`PackError::Lost`] if chunks that the group took up are lost: a manifest that names them
    /// must not be replayed.
    pub(in crate::store) fn append(
        &self,
        kind: Kind,
        payload: &[u8],
    ) -> Result<Location, StoreError> {
        let raw_len =
            u32::try_from(payload.len()).map_err(|_width| PackError::TooLarge(payload.len()))?;
        let id = *blake3::hash(payload).as_bytes();
        let appender = &self.shared.appender;
        Ok(appender.append_in(self.epoch, kind, id, raw_len, payload)?.location)
    }

    /// Appends the frame of a chunk that is in the index.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    pub(in crate::store) fn append_chunk(
        &self,
        id: [u8; 32],
        raw_len: u32,
        frame: &[u8],
    ) -> Result<Location, StoreError> {
        let appender = &self.shared.appender;
        Ok(appender.append_in(self.epoch, Kind::Chunk, id, raw_len, frame)?.location)
    }

    /// Runs `work`; what it did to the index is undone if it fails.
    pub(in crate::store) fn in_savepoint<T>(
        &self,
        work: impl FnOnce(&Group<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.tx.execute_batch("SAVEPOINT job")?;
        let outcome = work(self);
        self.tx.execute_batch(match outcome {
            Ok(_) => "RELEASE job",
            Err(_) => "ROLLBACK TO job; RELEASE job",
        })?;
        outcome
    }
}

/// Commits one group after the other.
#[derive(Debug)]
pub(in crate::store) struct Committer<'a> {
    connection: Connection,
    shared: &'a Shared,
    /// The end of the packs before a group that failed, until what it appended is taken back.
    failed_from: Option<Position>,
}

impl<'a> Committer<'a> {
    /// Commits to the index on `connection`, which nobody else writes to.
    pub(in crate::store) fn new(connection: Connection, shared: &'a Shared) -> Self {
        Self { connection, shared, failed_from: None }
    }

    /// Runs the jobs in one group and answers them.
    pub(in crate::store) fn commit(&mut self, jobs: Vec<Job>) {
        let mut answers = Vec::with_capacity(jobs.len());
        let failed = self.try_commit(jobs, &mut answers).err().map(Arc::new);
        if let Some(error) = &failed {
            self.shared.trouble.note(error);
            error!(error = %error, "A commit failed; nothing of it was kept");
        }
        for answer in answers {
            answer(failed.as_ref());
        }
    }

    /// Commits what is left, so that the next start finds nothing to replay.
    pub(in crate::store) fn end(mut self) -> Result<(), StoreError> {
        self.try_commit(Vec::new(), &mut Vec::new())?;
        self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        Ok(())
    }

    fn try_commit(&mut self, jobs: Vec<Job>, answers: &mut Vec<Answer>) -> Result<(), StoreError> {
        let mut jobs = jobs.into_iter();
        let outcome = self.take_back().and_then(|()| self.run(&mut jobs, answers));
        answers.extend(jobs.map(|job| job(None)));
        if outcome.is_err()
            && let Err(error) = self.take_back()
        {
            error!(error = %error, "A failed commit cannot be taken back yet; the next one tries again");
        }
        self.shared.pending.settle(&self.shared.appender, outcome.is_ok());
        outcome
    }

    fn run(
        &mut self,
        jobs: &mut impl Iterator<Item = Job>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), StoreError> {
        let shared = self.shared;
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let taken = shared.pending.take_up(&shared.appender);
        self.failed_from = Some(taken.position);
        enter(&tx, shared, &taken)?;
        let group = Group { tx: &tx, shared, epoch: taken.epoch };
        // SQLite takes a transaction back by itself after some errors, such as a full disk. What
        // is run then would be committed on its own.
        while !tx.is_autocommit()
            && let Some(job) = jobs.next()
        {
            answers.push(job(Some(&group)));
        }
        if tx.is_autocommit() {
            return Err(StoreError::TakenBack);
        }
        // Chunks that arrived while the jobs ran may lie behind `taken.position` and are in no
        // row yet; so that is how far the index has come, and no further.
        meta::set_position(&tx, taken.position)?;
        shared.appender.sync(taken.epoch)?;
        tx.commit()?;
        self.failed_from = None;
        Ok(())
    }

    /// Takes back what a group that failed has left: first in the index's log, then in the packs.
    fn take_back(&mut self) -> Result<(), StoreError> {
        let Some(from) = self.failed_from else { return Ok(()) };
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // The same again: a page that is written is what counts.
        meta::set_position(&tx, meta::position(&tx)?)?;
        tx.commit()?;
        self.shared.appender.take_back(from)?;
        self.failed_from = None;
        Ok(())
    }
}

/// Enters the chunks that a group took up, and who sent them.
fn enter(tx: &Transaction<'_>, shared: &Shared, taken: &TakenUp) -> Result<(), StoreError> {
    shared.chunks.insert(tx, &taken.chunks)?;
    for upload in &taken.uploads {
        uploads::insert(tx, *upload)?;
    }
    Ok(())
}
