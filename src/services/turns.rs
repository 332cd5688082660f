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
    /// What those of one key may have at a time, and what they have.
    each_max: usize,
    held: HashMap<K, usize>,
    /// Whose turn is next, first; each that is in `waiting` once.
    order: VecDeque<K>,
    waiting: HashMap<K, VecDeque<(usize, oneshot::Sender<()>)>>,
}

/// Some units, until it is dropped.
#[derive(Debug)]
pub struct Turn<K: Copy + Eq + Hash> {
    turns: Turns<K>,
    key: K,
    units: usize,
}

impl<K: Copy + Eq + Hash> Turns<K> {
    /// `all` units to share.
    #[must_use]
    pub fn new(all: usize) -> Self {
        Self::bounded(all, all)
    }

    /// `all` units to share, of which those of one key may have `each_max` at a time: who does not
    /// give back what he has takes no more than that from the others.
    #[must_use]
    pub fn bounded(all: usize, each_max: usize) -> Self {
        let (order, waiting, held) = (VecDeque::new(), HashMap::new(), HashMap::new());
        Self(Arc::new(Mutex::new(Queue { free: all, all, each_max, held, order, waiting })))
    }

    /// Waits for `units` of them, or for all where there are not as many. Among those of one key
    /// who came first is first; among the keys it goes round. Who stops waiting has lost nothing.
    pub async fn take(&self, key: K, units: usize) -> Turn<K> {
        let (units, called) = {
            let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let units = units.min(queue.all).min(queue.each_max);
            if queue.order.is_empty() && queue.has(key, units) {
                queue.give(key, units);
                return Turn { turns: self.clone(), key, units };
            }
            let called = queue.wait(key, units);
            // Those before may all have what one may have.
            queue.call();
            (units, called)
        };
        let waiting = Waiting { turns: self.clone(), key, units, called };
        waiting.await_turn().await
    }

    /// Units that nobody has.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).free
    }

    fn give_back(&self, key: K, units: usize) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.take_back(key, units);
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

    /// Whether there are so many for one of that key.
    fn has(&self, key: K, units: usize) -> bool {
        units <= self.free && !self.is_over(key, units)
    }

    /// Whether those of that key would have more than they may.
    fn is_over(&self, key: K, units: usize) -> bool {
        self.held.get(&key).copied().unwrap_or(0).saturating_add(units) > self.each_max
    }

    fn give(&mut self, key: K, units: usize) {
        self.free -= units;
        *self.held.entry(key).or_default() += units;
    }

    fn take_back(&mut self, key: K, units: usize) {
        self.free += units;
        if let Some(held) = self.held.get_mut(&key) {
            *held = held.saturating_sub(units);
            if *held == 0 {
                self.held.remove(&key);
            }
        }
    }

    /// Calls who is next, as long as there is enough for him; nobody passes by him, or who wants
    /// much would wait for ever. Passed by are those whose key has what it may have.
    fn call(&mut self) {
        let mut passed = 0;
        while let Some(key) = self.order.get(passed).copied() {
            match self.first_of(key) {
                None => {
                    self.order.remove(passed);
                    self.waiting.remove(&key);
                }
                Some(units) if self.is_over(key, units) => passed += 1,
                Some(units) if units > self.free => return,
                Some(_units) => {
                    self.serve(key);
                    // His next waits for those of the others.
                    self.order.remove(passed);
                    self.order.push_back(key);
                }
            }
        }
    }

    /// What the first of that key who still waits wants.
    fn first_of(&mut self, key: K) -> Option<usize> {
        let own = self.waiting.get_mut(&key)?;
        while own.pop_front_if(|(_, call)| call.is_closed()).is_some() {}
        own.front().map(|(units, _)| *units)
    }

    fn serve(&mut self, key: K) {
        let first = self.waiting.get_mut(&key).and_then(VecDeque::pop_front);
        // One who has just gone away gives nothing back.
        if let Some((units, call)) = first
            && call.send(()).is_ok()
        {
            self.give(key, units);
        }
    }
}

/// Who waits. Dropped between the call and the turn, he gives it back.
struct Waiting<K: Copy + Eq + Hash> {
    turns: Turns<K>,
    key: K,
    units: usize,
    called: oneshot::Receiver<()>,
}

impl<K: Copy + Eq + Hash> Waiting<K> {
    async fn await_turn(mut self) -> Turn<K> {
        // The sender is in the queue until it calls.
        let _called = (&mut self.called).await;
        Turn { turns: self.turns.clone(), key: self.key, units: std::mem::take(&mut self.units) }
    }
}

impl<K: Copy + Eq + Hash> Drop for Waiting<K> {
    fn drop(&mut self) {
        self.called.close();
        let was_called = self.called.try_recv().is_ok();
        // Called or not: with one less before them, others may have their turn.
        self.turns.give_back(self.key, if was_called { self.units } else { 0 });
    }
}

impl<K: Copy + Eq + Hash> Turn<K> {
    /// Adds the units of another turn of the same key to this one's.
    pub fn merge(&mut self, mut other: Self) {
        self.units += std::mem::take(&mut other.units);
    }
}

impl<K: Copy + Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        if self.units > 0 {
            self.turns.give_back(self.key, self.units);
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
    async fn who_gives_nothing_back_takes_his_share_and_no_more() {
        let turns = Turns::bounded(4, 2);
        let held = turns.take(1, 9).await;
        assert_eq!(turns.free(), 2, "never more than one may have");
        drop(held);
        let [first, second] = [turns.take(1, 1).await, turns.take(1, 1).await];
        let mut more: Vec<_> = (0..9).map(|_| waiting(&turns, 1, 1)).collect();
        let others = [turns.take(2, 1).await, turns.take(3, 1).await];
        let last = waiting(&turns, 4, 1);
        drop(first);
        drop(more.remove(0).now_or_never().expect("they waited longer"));
        drop(last.now_or_never().expect("and then it is his turn"));
        drop(second);
        assert_eq!(more.into_iter().filter_map(FutureExt::now_or_never).count(), 8);
        drop(others);
        assert_eq!(turns.free(), 4);
        let queue = turns.0.lock().unwrap();
        assert!(queue.held.is_empty() && queue.order.is_empty() && queue.waiting.is_empty());
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
        turn.merge(Turn { turns: turns.clone(), key: 1, units: 0 });
        drop(turn);
        assert_eq!(turns.free(), 1);
    }
}
