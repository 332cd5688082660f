//! A thing that there is so much of, shared fairly: who waits is served in turn by whom it is for,
//! so somebody with many requests takes no more from the others than somebody with one.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// So many units, of a core or a byte or whatever is shared, and who waits for them. Cloning
/// copies a pointer. Memory: one entry for each who waits.
#[derive(Debug)]
pub struct Turns<K>(Arc<Mutex<Queue<K>>>);

impl<K> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Queue<K> {
    free: usize,
    all: usize,
    /// Whose turn is next, first; each that is in `waiting` once.
    order: VecDeque<K>,
    waiting: HashMap<K, VecDeque<(usize, oneshot::Sender<()>)>>,
}

/// Some units, until it is dropped.
#[derive(Debug)]
pub struct Turn<K: Copy + Eq + Hash> {
    turns: Turns<K>,
    units: usize,
}

impl<K: Copy + Eq + Hash> Turns<K> {
    /// `all` units to share.
    #[must_use]
    pub fn new(all: usize) -> Self {
        let (order, waiting) = (VecDeque::new(), HashMap::new());
        Self(Arc::new(Mutex::new(Queue { free: all, all, order, waiting })))
    }

    /// Waits for `units` of them, or for all where there are not as many. Among those of one key
    /// who came first is first; among the keys it goes round. Who stops waiting has lost nothing.
    pub async fn take(&self, key: K, units: usize) -> Turn<K> {
        let (units, called) = {
            let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let units = units.min(queue.all);
            if queue.order.is_empty() && units <= queue.free {
                queue.free -= units;
                return Turn { turns: self.clone(), units };
            }
            (units, queue.wait(key, units))
        };
        let waiting = Waiting { turns: self.clone(), units, called };
        waiting.await_turn().await
    }

    /// Units that nobody has.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).free
    }

    fn give_back(&self, units: usize) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.free += units;
        queue.call();
    }
}

impl<K: Copy + Eq + Hash> Queue<K> {
    fn wait(&mut self, key: K, units: usize) -> oneshot::Receiver<()> {
        let (call, called) = oneshot::channel();
        let own = self.waiting.entry(key).or_default();
        if own.is_empty() {
            self.order.push_back(key);
        }
        own.push_back((units, call));
        called
    }

    /// Calls who is next, as long as there is enough for him; nobody passes by him, or who wants
    /// much would wait for ever.
    fn call(&mut self) {
        while let Some(key) = self.order.front().copied() {
            let own = self.waiting.entry(key).or_default();
            let first = own.pop_front_if(|(units, call)| call.is_closed() || *units <= self.free);
            let is_served = match first {
                None if !own.is_empty() => return,
                None => false,
                Some((units, call)) => {
                    let heard = call.send(()).is_ok();
                    self.free -= if heard { units } else { 0 };
                    heard
                }
            };
            if !is_served && !own.is_empty() {
                // He went away: the next of his has the turn.
                continue;
            }
            self.order.pop_front();
            if own.is_empty() {
                self.waiting.remove(&key);
            } else {
                self.order.push_back(key);
            }
        }
    }
}

/// Who waits. Dropped between the call and the turn, he gives it back.
struct Waiting<K: Copy + Eq + Hash> {
    turns: Turns<K>,
    units: usize,
    called: oneshot::Receiver<()>,
}

impl<K: Copy + Eq + Hash> Waiting<K> {
    async fn await_turn(mut self) -> Turn<K> {
        // The sender is in the queue until it calls.
        let _called = (&mut self.called).await;
        Turn { turns: self.turns.clone(), units: std::mem::take(&mut self.units) }
    }
}

impl<K: Copy + Eq + Hash> Drop for Waiting<K> {
    fn drop(&mut self) {
        self.called.close();
        let was_called = self.called.try_recv().is_ok();
        // Called or not: with one less before them, others may have their turn.
        self.turns.give_back(if was_called { self.units } else { 0 });
    }
}

impl<K: Copy + Eq + Hash> Turn<K> {
    /// Adds the units of another turn to this one's.
    pub fn merge(&mut self, mut other: Self) {
        self.units += std::mem::take(&mut other.units);
    }
}

impl<K: Copy + Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        if self.units > 0 {
            self.turns.give_back(self.units);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    use super::*;

    fn waiting(turns: &Turns<u8>, key: u8, units: usize) -> BoxFuture<'static, Turn<u8>> {
        let turns = turns.clone();
        let mut turn = async move { turns.take(key, units).await }.boxed();
        assert!((&mut turn).now_or_never().is_none(), "there is room");
        turn
    }

    #[tokio::test]
    async fn who_asks_much_does_not_keep_the_others_waiting() {
        let turns = Turns::new(1);
        let mut held = turns.take(1, 1).await;
        let mut many: Vec<_> = (0..100).map(|_| waiting(&turns, 1, 1)).collect();
        let other = waiting(&turns, 2, 1);
        let last = waiting(&turns, 3, 1);
        for turn in [many.remove(0), other, last, many.remove(0)] {
            drop(held);
            held = turn.now_or_never().expect("is next");
        }
        drop(held);
        drop(many);
        assert_eq!(turns.free(), 1, "who went away took nothing along");
        let queue = turns.0.lock().unwrap();
        assert!(queue.order.is_empty() && queue.waiting.is_empty());
    }

    #[tokio::test]
    async fn who_wants_much_is_not_passed_by() {
        let turns = Turns::new(10);
        let (first, second) = (turns.take(1, 5).await, turns.take(2, 5).await);
        let much = waiting(&turns, 3, 1000);
        let little = waiting(&turns, 4, 1);
        drop(first);
        assert_eq!(turns.free(), 5);
        drop(second);
        let much = much.now_or_never().expect("all there is");
        assert_eq!(turns.free(), 0);
        drop(much);
        drop(little.now_or_never().expect("is next"));
        assert_eq!(turns.free(), 10);
    }

    #[tokio::test]
    async fn who_goes_away_when_called_gives_it_back() {
        let turns = Turns::new(1);
        let held = turns.take(1, 1).await;
        let (gone, next) = (waiting(&turns, 2, 1), waiting(&turns, 3, 1));
        drop(held);
        drop(gone);
        assert!(next.now_or_never().is_some());
        let mut turn = turns.take(1, 1).await;
        turn.merge(Turn { turns: turns.clone(), units: 0 });
        drop(turn);
        assert_eq!(turns.free(), 1);
    }
}
