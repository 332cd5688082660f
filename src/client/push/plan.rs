//! Which path of a push may start when, and what is hidden in the end. Pure.

use std::collections::{BTreeSet, HashMap};

use crate::formats::{PathInfo, StorePath};

/// The order of a push: a path may start when all its references are done, so that a box sees
/// whole closures. Small and large paths are taken from queues of their own, for they wait for
/// different things: small ones for answers, large ones for this machine.
#[derive(Debug)]
pub(super) struct Schedule {
    /// For each path, how many of its references are not done.
    waits_for: Vec<usize>,
    referrers: Vec<Vec<usize>>,
    is_large: Vec<bool>,
    ready_small: BTreeSet<usize>,
    ready_large: BTreeSet<usize>,
}

impl Schedule {
    /// Orders `paths`; references to others than these do not count. Paths whose NAR has more
    /// than `small_bytes_max` bytes are large.
    pub(super) fn new(paths: &[PathInfo], small_bytes_max: u64) -> Self {
        let places: HashMap<&StorePath, usize> =
            paths.iter().enumerate().map(|(place, info)| (&info.store_path, place)).collect();
        let mut schedule = Self {
            waits_for: vec![0; paths.len()],
            referrers: vec![Vec::new(); paths.len()],
            is_large: paths.iter().map(|info| info.nar_size > small_bytes_max).collect(),
            ready_small: BTreeSet::new(),
            ready_large: BTreeSet::new(),
        };
        for (place, info) in paths.iter().enumerate() {
            let references = info.references.iter().filter_map(|path| places.get(path).copied());
            for reference in references.filter(|reference| *reference != place) {
                schedule.waits_for[place] += 1;
                schedule.referrers[reference].push(place);
            }
        }
        for place in 0..paths.len() {
            schedule.make_ready(place);
        }
        schedule
    }

    /// The next small path that may start, by its place in the list.
    pub(super) fn next_small(&mut self) -> Option<usize> {
        self.ready_small.pop_first()
    }

    /// The next large path that may start.
    pub(super) fn next_large(&mut self) -> Option<usize> {
        self.ready_large.pop_first()
    }

    /// Whether the path at `place` is large.
    pub(super) fn is_large(&self, place: usize) -> bool {
        self.is_large.get(place).copied().unwrap_or(false)
    }

    /// The path at `place` is done with, well or not: what refers to it need not wait any more.
    pub(super) fn done(&mut self, place: usize) {
        let referrers = self.referrers.get_mut(place).map(std::mem::take).unwrap_or_default();
        for referrer in referrers {
            if let Some(left) = self.waits_for.get_mut(referrer) {
                *left = left.saturating_sub(1);
            }
            self.make_ready(referrer);
        }
    }

    fn make_ready(&mut self, place: usize) {
        if self.waits_for.get(place) == Some(&0) {
            let is_large = self.is_large(place);
            let queue = if is_large { &mut self.ready_large } else { &mut self.ready_small };
            queue.insert(place);
        }
    }
}

/// What is known of a path of the closure when a push is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is visible.
    Visible,
    /// The box had it; visible, or hidden since an earlier push.
    Known,
    /// It was hidden when it was stored, for the lack of these (base names).
    Hidden(Vec<String>),
    /// It is visible with another NarHash.
    KeptFirst,
    /// It did not get there.
    Absent,
}

/// The paths that are still hidden, by their place in `closure`, with what they wait for.
/// `closure` has references before referrers.
///
/// A path that was hidden when it was stored has become visible since then if all it waited for
/// has: the box shows it in one step with the last of them.
pub(super) fn still_hidden(closure: &[PathInfo], fates: &[Fate]) -> Vec<(usize, Vec<String>)> {
    let mut visible: HashMap<&str, bool> = HashMap::new();
    let mut hidden = Vec::new();
    for (place, (info, fate)) in closure.iter().zip(fates).enumerate() {
        let is_visible = match fate {
            Fate::Visible | Fate::KeptFirst => true,
            Fate::Absent => false,
            Fate::Known => info
                .references
                .iter()
                .filter(|reference| **reference != info.store_path)
                .all(|reference| visible.get(reference.base_name()).copied().unwrap_or(true)),
            Fate::Hidden(missing) => {
                let waits = |name: &&String| !visible.get(name.as_str()).is_some_and(|it| *it);
                let left: Vec<_> = missing.iter().filter(waits).cloned().collect();
                let is_visible = left.is_empty();
                if !is_visible {
                    hidden.push((place, left));
                }
                is_visible
            }
        };
        visible.insert(info.store_path.base_name(), is_visible);
    }
    hidden
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formats::Sha256Hash;

    fn path(number: usize) -> StorePath {
        format!("{number:0>32}-p{number}").parse().unwrap()
    }

    fn info(number: usize, nar_size: u64, references: &[usize]) -> PathInfo {
        PathInfo {
            store_path: path(number),
            nar_hash: Sha256Hash::of(b""),
            nar_size,
            references: references.iter().copied().map(path).collect(),
            deriver: None,
            ca: None,
            signatures: Vec::new(),
        }
    }

    #[test]
    fn small_and_large_paths_do_not_wait_for_each_other() {
        let paths = [info(0, 500, &[]), info(1, 5, &[1]), info(2, 5, &[0, 7]), info(3, 5, &[])];
        let mut schedule = Schedule::new(&paths, 100);
        assert_eq!((schedule.next_small(), schedule.next_small()), (Some(1), Some(3)));
        assert_eq!((schedule.next_small(), schedule.next_large()), (None, Some(0)));
        assert_eq!(schedule.next_large(), None);
        schedule.done(0);
        assert_eq!(schedule.next_small(), Some(2));
    }

    proptest! {
        #[test]
        fn every_path_starts_once_and_after_its_references(
            edges in proptest::collection::vec((0_usize..30, 0_usize..30), 0..120),
            slots in 1_usize..6,
        ) {
            let paths: Vec<_> = (0..30)
                .map(|place| {
                    let down = edges.iter().filter(|(from, to)| *from == place && *to <= place);
                    let references: Vec<_> = down.map(|(_, to)| *to).collect();
                    let mut info = info(place, u64::try_from(place % 3).unwrap(), &references);
                    info.sort_references();
                    info
                })
                .collect();
            let mut schedule = Schedule::new(&paths, 1);
            let (mut done, mut running) = (BTreeSet::new(), Vec::new());
            while done.len() < paths.len() {
                while running.len() < slots
                    && let Some(place) = schedule.next_small().or_else(|| schedule.next_large())
                {
                    for reference in &paths[place].references {
                        let reference = paths.iter().position(|p| p.store_path == *reference);
                        let reference = reference.unwrap();
                        prop_assert!(reference == place || done.contains(&reference));
                    }
                    running.push(place);
                }
                prop_assert!(!running.is_empty(), "stuck after {done:?}");
                let place = running.remove(0);
                schedule.done(place);
                prop_assert!(done.insert(place));
            }
        }
    }

    #[test]
    fn what_is_hidden_comes_out_with_what_it_waited_for() {
        let names = |numbers: &[usize]| -> Vec<String> {
            numbers.iter().map(|number| path(*number).base_name().to_owned()).collect()
        };
        // 1 was hidden since an earlier push for the lack of 0, which came now; 2 came in between.
        let closure = [info(0, 1, &[]), info(1, 1, &[0, 1]), info(2, 1, &[1])];
        let fates = [Fate::Visible, Fate::Known, Fate::Hidden(names(&[1]))];
        assert_eq!(still_hidden(&closure, &fates), []);

        let fates = [Fate::Absent, Fate::Known, Fate::Hidden(names(&[1]))];
        assert_eq!(still_hidden(&closure, &fates), [(2, names(&[1]))]);

        // Pushed without its closure.
        let fates = [Fate::Hidden(names(&[0, 9]))];
        assert_eq!(still_hidden(&[info(5, 1, &[0, 9])], &fates), [(0, names(&[0, 9]))]);
    }
}
