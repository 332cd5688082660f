//! The one thread that writes the index, and the queue to it. While one group of jobs syncs, the
//! next one gathers.

use std::collections::VecDeque;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};
use tracing::error;

use crate::store::error::StoreError;
use crate::store::group::{Committer, Group, Job};
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

fn run(connection: Connection, shared: &Shared, queue: &Queue) -> Result<(), StoreError> {
    let _closes_also_in_a_panic = Closes(queue);
    let mut committer = Committer::new(connection, shared);
    while let Some(jobs) = queue.next(shared) {
        committer.commit(jobs);
    }
    committer.end()
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
