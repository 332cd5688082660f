//! Each write, sync, rename and open of the data folder fails, one by one, in the real program.
//!
//! While it lasts, and afterwards, the box keeps its promises: what was acknowledged is served,
//! what was not is there whole or not at all, and it goes on by itself. Each case ends with a loss
//! of power that takes whatever a failed sync left behind.
//!
//! `LARDER_ERRORS_RESULTS` is a file to which the longer form adds a line for each case, and which
//! tells it what need not be done again.

mod control;
mod mounts;
mod results;
mod scenes;
mod site;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use crate::errors::control::{FAILED_CREATE, FAILED_OPEN, FAILED_SYNC, FAULTS, Fault};
use crate::errors::results::{Done, Results};
use crate::errors::scenes::{SCENES, Scene};
use crate::errors::site::{Prepared, Site};

/// Cases at a time: most of a case is waiting.
const WORKERS: usize = 8;

/// Broken promises of one kind after which no more is learnt.
const FAILURES_MAX: usize = 8;

/// What is done to a box.
#[derive(Clone, Copy)]
struct Case<'a> {
    scene: &'a Scene,
    fault: Fault,
    /// The call that fails, from 1.
    number: u64,
    /// Whether all behind it fail too, until the condition ends.
    goes_on: bool,
}

impl Case<'_> {
    fn name(&self) -> String {
        let Self { scene, fault, number, goes_on } = self;
        let how = if *goes_on { "from" } else { "at" };
        format!("{} {} {how} {number}", scene.name.replace(' ', "-"), fault.name)
    }

    /// Runs it; which promise was broken, if one was.
    fn try_run(self, prepared: &Prepared) -> Result<Outcome, String> {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(prepared, self)));
        outcome.map_err(|panic| format!("{}: {}", self.name(), results::message_of(&*panic)))
    }
}

/// What came of it.
struct Outcome {
    /// The call that failed; `None`: there are not so many.
    hit: Option<String>,
    said: Vec<String>,
}

/// Runs one case; panics if a promise is broken.
fn run(prepared: &Prepared, case: Case<'_>) -> Outcome {
    let Case { scene, fault, number, goes_on } = case;
    let mut site = Site::new(prepared, scene.folder(prepared).as_deref());
    if scene.runs {
        site.start().unwrap_or_else(|error| panic!("{error}"));
    }
    site.control.arm(fault, number, goes_on);
    let claims = (scene.act)(&mut site);
    if let Some(larder) = &mut site.larder {
        assert!(larder.is_running(), "the box ended by itself:\n{}", larder.log());
        if fault.is_met_by_readers() && !goes_on {
            // A read that fails once is broken off, which nobody takes for an answer.
            site.disturb_readers();
        }
        if scene.has_kept() {
            site.assert_kept("while it lasts");
        }
        site.assert_claims(&claims, "while it lasts");
    }
    let hit = site.control.hit();
    site.control.disarm();
    if site.larder.is_none() {
        site.start().unwrap_or_else(|error| panic!("the next start: {error}"));
    }
    let mut claims = claims;
    claims.push(site.push_after());
    let hold = |site: &Site<'_>, when: &str| {
        if scene.has_kept() {
            site.assert_kept(when);
        }
        site.assert_claims(&claims, when);
        assert!(!site.the_box().log().contains("panicked"), "{when}: a panic");
    };
    hold(&site, "afterwards");
    site.lose_power();
    hold(&site, "after a loss of power");
    let checked = site.the_box().json(["fsck"]);
    assert_eq!(checked["damaged"], serde_json::json!([]), "{checked}");
    Outcome { hit, said: site.said }
}

/// Cases of one kind, which differ in the call that fails.
#[derive(Clone, Copy)]
struct Series {
    scene: &'static Scene,
    fault: Fault,
    goes_on: bool,
}

impl Series {
    fn all() -> impl Iterator<Item = Self> {
        SCENES.iter().flat_map(|scene| {
            let faults = FAULTS.iter().flat_map(|fault| [(*fault, false), (*fault, true)]);
            faults.map(move |(fault, goes_on)| Self { scene, fault, goes_on })
        })
    }

    fn is(&self, other: Self) -> bool {
        self.scene.name == other.scene.name
            && self.fault.name == other.fault.name
            && self.goes_on == other.goes_on
    }

    /// Goes through all calls, but for those that were gone through; those that broke a promise.
    fn run(&self, prepared: &Prepared, results: &Results) -> Vec<String> {
        let Self { scene, fault, goes_on } = *self;
        let mut failures = Vec::new();
        for number in 1.. {
            let case = Case { scene, fault, number, goes_on };
            match results.of(&case.name()) {
                Some(Done::Last) => break,
                Some(Done::Held) => continue,
                None if results.is_over() => break,
                None => {}
            }
            let started = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| run(prepared, case)));
            let is_last = outcome.as_ref().is_ok_and(|outcome| outcome.hit.is_none());
            if let Err(why) = results.note(&case.name(), outcome, started.elapsed()) {
                failures.push(format!("{}: {why}", case.name()));
            }
            if is_last || failures.len() >= FAILURES_MAX {
                break;
            }
        }
        failures
    }
}

/// Runs series side by side; the cases that broke a promise.
fn side_by_side(
    series: impl Iterator<Item = Series> + Send,
    work: impl Fn(Series) -> Vec<String> + Sync,
) -> Vec<String> {
    let queue = Mutex::new(series);
    let next = || queue.lock().unwrap().next();
    let worker = || {
        let mut failures = Vec::new();
        while let Some(series) = next() {
            failures.extend(work(series));
        }
        failures
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

/// A call of each scene for each error: another one in each series.
#[test]
fn an_error_anywhere_costs_nothing_that_was_acknowledged() {
    let prepared = Prepared::new();
    let numbered = Series::all().zip(0..).collect::<Vec<_>>();
    let failures = side_by_side(numbered.iter().map(|(series, _)| *series), |series| {
        let Series { scene, fault, goes_on } = series;
        let place = numbered.iter().find(|(it, _)| it.is(series)).unwrap().1;
        let case = Case { scene, fault, number: 1 + place * 13 % 45, goes_on };
        case.try_run(&prepared).err().into_iter().collect()
    });
    assert!(failures.is_empty(), "{failures:#?}");
}

/// What has gone wrong, or would be worst: all calls of a kind, whichever number they have.
const NARROW: [(&str, Fault); 6] = [
    // What a failed sync covered is refused or written anew, never acknowledged because a further
    // sync went well.
    ("push", FAILED_SYNC),
    ("first push", FAILED_SYNC),
    ("caches and tokens", FAILED_SYNC),
    // No path is given up because its record could not be read.
    ("start behind the packs", FAILED_OPEN),
    // No keys are given up because the old index could not be read.
    ("rebuilt index", FAILED_OPEN),
    ("rebuilt index", FAILED_CREATE),
];

#[test]
fn errors_that_are_worst_are_met_at_every_call() {
    let prepared = Prepared::new();
    let series = NARROW.iter().flat_map(|(name, fault)| {
        let scene = SCENES.iter().find(|scene| scene.name == *name);
        scene.map(|scene| Series { scene, fault: *fault, goes_on: false })
    });
    let failures = side_by_side(series, |series| {
        let Series { scene, fault, goes_on } = series;
        for number in 1.. {
            match (Case { scene, fault, number, goes_on }).try_run(&prepared) {
                Ok(Outcome { hit: Some(_), .. }) => {}
                Ok(_) if number > 1 => break,
                Ok(_) => return vec![format!("{}: there is no such call", scene.name)],
                Err(why) => return vec![why],
            }
        }
        Vec::new()
    });
    assert!(failures.is_empty(), "{failures:#?}");
}

/// The longer form: all scenes, all errors, every call, once and for as long as it lasts.
#[test]
#[ignore = "takes half an hour; LARDER_ERRORS_RESULTS keeps what it has been through"]
fn every_operation_fails_once_and_for_long() {
    let (results, prepared) = (Results::open(), Prepared::new());
    let series = Series::all().filter(|series| results.wants(series.scene.name));
    let failures = side_by_side(series, |series| series.run(&prepared, &results));
    assert!(failures.is_empty(), "{failures:#?}");
}
