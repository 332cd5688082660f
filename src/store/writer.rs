//! The one thread that writes the index, and its group commit.
//!
//! Order of effects, and why. A group takes all jobs that wait. In one transaction it first
//! enters the pending chunks, then runs the jobs one by one, each in a savepoint; what a job has
//! for the packs it appends as it goes. Then the packs are synced, then the transaction is
//! committed, and only then are the jobs answered. So a row never stands without its bytes, an
//! answer never without both; what a crash leaves is bytes without rows, which the next start
//! replays. While one group syncs, the next one gathers.

use std::collections::VecDeque;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{Semaphore, oneshot};
use tracing::error;

use crate::store::error::StoreError;
use crate::store::index::{meta, uploads};
use crate::store::pending::TakenUp;
use crate::store::shared::Shared;

/// Async jobs that may wait for the writer. Blocking threads add at most one each.
const QUEUE_JOBS: usize = 512;
/// Jobs of one group.
const GROUP_JOBS: usize = 256;
/// How long a pending chunk waits for a commit that nobody asked for.
const CHUNKS_WAIT: Duration = Duration::from_secs(1);

/// The way to the writer thread.
#[derive(Debug)]
pub(in crate::store) struct Writer {
    queue: Arc<Queue>,
    room: Arc<Semaphore>,
    thread: Mutex<Option<thread::JoinHandle<Result<(), StoreError>>>>,
}

/// What a job works with.
#[derive(Debug)]
pub(in crate::store) struct Group<'a> {
    /// The transaction of the group.
    pub(in crate::store) tx: &'a Transaction<'a>,
    /// Packs and everything else that is shared.
    pub(in crate::store) shared: &'a Shared,
}

/// Runs in a group, or is told that there is none; either way it can be answered then.
type Job = Box<dyn FnOnce(Option<&Group<'_>>) -> Answer + Send>;
/// Told why the group failed, or that it did not.
type Answer = Box<dyn FnOnce(Option<&Arc<StoreError>>)>;

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queue")
    }
}

struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    /// Somebody wants the pending chunks committed soon.
    flush: bool,
    closing: bool,
}

impl Writer {
    /// Starts the thread on `connection`.
    pub(in crate::store) fn start(
        connection: Connection,
        shared: Arc<Shared>,
    ) -> Result<Self, StoreError> {
        let queue = Arc::new(Queue { state: Mutex::default(), changed: Condvar::new() });
        let for_thread = Arc::clone(&queue);
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(connection, &shared, &for_thread))
            .map_err(StoreError::Thread)?;
        let room = Arc::new(Semaphore::new(QUEUE_JOBS));
        Ok(Self { queue, room, thread: Mutex::new(Some(thread)) })
    }

    /// Runs `work` in the next group and returns when that is durable. Dropping the future does
    /// not undo a job that was queued.
    pub(in crate::store) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Group<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let room = Arc::clone(&self.room).acquire_owned().await;
        let room = room.map_err(|_closed| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let reply = move |outcome| {
            drop(room);
            let _caller_may_be_gone = reply.send(outcome);
        };
        self.queue(work, reply)?;
        answer.await.map_err(|_dropped| StoreError::Closed)?
    }

    /// As [`run`](Self::run), waiting on this thread; not for async threads.
    pub(in crate::store) fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Group<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = sync_channel(1);
        self.queue(work, move |outcome| {
            let _caller_may_be_gone = reply.send(outcome);
        })?;
        answer.recv().map_err(|_dropped| StoreError::Closed)?
    }

    /// Has the pending chunks committed soon; does not wait.
    pub(in crate::store) fn flush(&self) {
        self.queue.lock().flush = true;
        self.queue.changed.notify_one();
    }

    /// Takes no further job, waits for those that are queued and for the thread. Blocking.
    pub(in crate::store) fn close(&self) -> Result<(), StoreError> {
        self.room.close();
        self.queue.lock().closing = true;
        self.queue.changed.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread.map(thread::JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(_panic)) => Err(StoreError::Closed),
            None => Ok(()),
        }
    }

    fn queue<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Group<'_>) -> Result<T, StoreError> + Send + 'static,
        reply: impl FnOnce(Result<T, StoreError>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let job: Job = Box::new(move |group| {
            let outcome = match group {
                Some(group) => group.in_savepoint(work),
                None => Err(StoreError::Closed),
            };
            Box::new(move |failed| {
                let outcome = match failed {
                    Some(error) => Err(StoreError::CommitFailed(Arc::clone(error))),
                    None => outcome,
                };
                reply(outcome);
            })
        });
        let mut state = self.queue.lock();
        if state.closing {
            return Err(StoreError::Closed);
        }
        state.jobs.push_back(job);
        self.queue.changed.notify_one();
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            error!(error = %error, "The index was not closed in good order");
        }
    }
}

impl Group<'_> {
    fn in_savepoint<T>(
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

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to commit. `None`: closing, and nothing is left.
    fn next(&self, shared: &Shared) -> Option<Vec<Job>> {
        let mut state = self.lock();
        loop {
            if !state.jobs.is_empty() || state.flush {
                state.flush = false;
                let count = state.jobs.len().min(GROUP_JOBS);
                return Some(state.jobs.drain(..count).collect());
            }
            if state.closing {
                return None;
            }
            let (woken, waited) = self
                .changed
                .wait_timeout_while(state, CHUNKS_WAIT, QueueState::is_idle)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if waited.timed_out() {
                state.flush = !shared.pending.is_empty();
            }
        }
    }
}

impl QueueState {
    fn is_idle(&mut self) -> bool {
        self.jobs.is_empty() && !self.flush && !self.closing
    }
}

fn run(mut connection: Connection, shared: &Shared, queue: &Queue) -> Result<(), StoreError> {
    let _closes_also_in_a_panic = Closes(queue);
    while let Some(jobs) = queue.next(shared) {
        commit(&mut connection, shared, jobs);
    }
    // One more group, so that the next start finds nothing to replay.
    commit_group(&mut connection, shared, Vec::new()).0?;
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}

/// Closes the queue when the thread ends, in whichever way, so that nobody waits for it in vain.
struct Closes<'a>(&'a Queue);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closing = true;
        state.jobs.clear();
    }
}

fn commit(connection: &mut Connection, shared: &Shared, jobs: Vec<Job>) {
    let (outcome, answers) = commit_group(connection, shared, jobs);
    let failed = outcome.err().map(Arc::new);
    if let Some(error) = &failed {
        error!(error = %error, "A commit failed; nothing of it was kept");
    }
    for answer in answers {
        answer(failed.as_ref());
    }
}

fn commit_group(
    connection: &mut Connection,
    shared: &Shared,
    jobs: Vec<Job>,
) -> (Result<(), StoreError>, Vec<Answer>) {
    let mut answers = Vec::with_capacity(jobs.len());
    let outcome = try_commit(connection, shared, jobs, &mut answers);
    shared.pending.settle(&shared.appender, outcome.is_ok());
    (outcome, answers)
}

fn try_commit(
    connection: &mut Connection,
    shared: &Shared,
    jobs: Vec<Job>,
    answers: &mut Vec<Answer>,
) -> Result<(), StoreError> {
    let mut jobs = jobs.into_iter();
    let outcome = begin(connection, shared).and_then(|(tx, taken)| {
        let group = Group { tx: &tx, shared };
        // SQLite takes a transaction back by itself after some errors, such as a full disk. What
        // is run then would be committed on its own.
        while !tx.is_autocommit()
            && let Some(job) = jobs.next()
        {
            answers.push(job(Some(&group)));
        }
        // Chunks that arrived while the jobs ran may lie behind `taken.position` and are in no
        // row yet; so that is how far the index has come, and no further.
        meta::set_position(&tx, taken.position)?;
        shared.appender.sync(taken.epoch)?;
        Ok(tx.commit()?)
    });
    answers.extend(jobs.map(|job| job(None)));
    outcome
}

fn begin<'a>(
    connection: &'a mut Connection,
    shared: &Shared,
) -> Result<(Transaction<'a>, TakenUp), StoreError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let taken = shared.pending.take_up(&shared.appender);
    shared.chunks.insert(&tx, &taken.chunks)?;
    for upload in &taken.uploads {
        uploads::insert(&tx, *upload)?;
    }
    Ok((tx, taken))
}
