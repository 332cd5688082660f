//! Runs a push: asks what is missing, keeps many paths under way, and starts again where a
//! connection broke.

use std::collections::HashSet;
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::info;

use crate::client::box_client::{Connector, ReachError};
use crate::client::nix_store::Location;
use crate::client::push::attachments::Attachments;
use crate::client::push::chunks::{Compressors, Expected, NarChunks, ReadBytes};
use crate::client::push::one_line;
use crate::client::push::plan::{Fate, Schedule, still_hidden};
use crate::client::push::progress::{FailedPath, HiddenPath, PushEvent, PushReport, Tell};
use crate::client::push::signer::{Signer, is_signed};
use crate::client::signing_keys::{SigningKeyError, SigningKeys};
use crate::formats::limits::STREAMS_MAX;
use crate::formats::signature::{ParseKeyError, SecretKey};
use crate::formats::{CacheName, PathInfo, StorePathHash};
use crate::transports::quic::{BoxConnection, RequestError};
use crate::wire::RefusalCode;
use crate::wire::hello::Signing;
use crate::wire::message::{Offer, PushOutcome};

/// Tries to reach the box again, one after the other, that bring nothing before a push gives up:
/// half a minute of pauses, and the time-outs of what was tried.
const TRIES_MAX: u32 = 7;
/// Pause before the first try; it doubles each time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Bytes on the wire that count as progress even if no path came to its end: the box keeps the
/// chunks that it took, so a large path gets further with each try.
const PROGRESS_BYTES: u64 = 1 << 20;

/// How to push.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Where to.
    pub cache: CacheName,
    /// Large paths that are read at a time; each takes up to 10 MiB. Small ones do not count,
    /// they travel whole and wait for nothing but the answer.
    pub jobs: NonZero<u32>,
    /// zstd's level.
    pub compression_level: i32,
    /// Leave out which derivation built a path.
    pub omit_deriver: bool,
    /// Where the key for a self-signed cache comes from.
    pub signing_keys: SigningKeys,
    /// Offer also what the box has, so that it gets this machine's signature.
    pub sign_known: bool,
    /// What goes along with the paths.
    pub attachments: Arc<Attachments>,
}

/// Why a push did not begin, or ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The box is not reached.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// The box did not answer, or refused for a reason that holds for all paths.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The token may use no cache of that name.
    #[error("the box has no cache '{cache}' that the token may use")]
    NoSuchCache {
        /// What was asked for.
        cache: CacheName,
        /// What there is.
        known: Vec<CacheName>,
    },
    /// The cache wants signatures, and nothing here can make them.
    #[error(transparent)]
    Signing(#[from] SigningKeyError),
    /// The device key cannot be used.
    #[error("cannot use the device key")]
    DeviceKey(#[from] ParseKeyError),
    /// A path's push panicked; this is a defect of larder.
    #[error("a push ended in a defect of larder")]
    Panicked,
}

impl PushError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Reach(error) => error.is_transient(),
            Self::Request(error) => error.is_transient(),
            Self::NoSuchCache { .. } | Self::Signing(_) | Self::DeviceKey(_) | Self::Panicked => {
                false
            }
        }
    }
}

/// A push whose first question was answered.
#[derive(Debug)]
pub struct Push {
    shared: Arc<Shared>,
    connector: Connector,
    connection: BoxConnection,
    /// References before referrers.
    closure: Vec<PathInfo>,
    fates: Vec<Option<Fate>>,
    report: PushReport,
    started: Instant,
    /// Bytes that went over connections before this one.
    sent_before: u64,
}

/// What the paths under way share.
#[derive(Debug)]
struct Shared {
    store: Location,
    options: PushOptions,
    device_key: SecretKey,
    /// For a self-signed cache, unless every path came with a signature that will do.
    signer: Option<Signer>,
    compressors: Compressors,
    tell: Tell,
}

impl Push {
    /// Connects and asks which paths of `closure` the box lacks. `closure` has references before
    /// what refers to them; a reference outside of it is the box's to find.
    ///
    /// # Errors
    ///
    /// [`PushError`]. Nothing is tried twice here: who types a wrong name wants to know.
    pub async fn begin(
        connector: Connector,
        store: Location,
        mut closure: Vec<PathInfo>,
        options: PushOptions,
        tell: Tell,
    ) -> Result<Self, PushError> {
        let started = Instant::now();
        let device_key = SecretKey::from_seed("device", &connector.device_seed)?;
        if options.omit_deriver {
            closure.iter_mut().for_each(|info| info.deriver = None);
        }
        let compressors = Compressors::new(options.compression_level);
        let connection = connector.connect().await?;
        let sign_known = options.sign_known;
        let shared = Shared { store, options, device_key, signer: None, compressors, tell };
        let mut push = Self {
            shared: Arc::new(shared),
            connector,
            connection,
            fates: vec![None; closure.len()],
            closure,
            report: PushReport::default(),
            started,
            sent_before: 0,
        };
        match push.prepare(sign_known).await {
            Ok(()) => Ok(push),
            Err(error) => {
                push.leave().await;
                Err(error)
            }
        }
    }

    async fn prepare(&mut self, sign_known: bool) -> Result<(), PushError> {
        let (cache, caches) = (&self.shared.options.cache, &self.connection.welcome().caches);
        if !caches.iter().any(|access| access.name == *cache) {
            let known = caches.iter().filter(|access| access.may_write);
            let known = known.map(|access| access.name.clone()).collect();
            return Err(PushError::NoSuchCache { cache: cache.clone(), known });
        }
        if !sign_known {
            self.ask_what_is_missing(&Fate::Known).await?;
        }
        let signer = self.signer()?;
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.signer = signer;
        }
        Ok(())
    }

    /// Who signs what is sent: nobody for a cache that the box signs for, or if all of it is
    /// signed by a key that the cache knows.
    fn signer(&self) -> Result<Option<Signer>, PushError> {
        let PushOptions { cache, signing_keys, sign_known, .. } = &self.shared.options;
        let caches = &self.connection.welcome().caches;
        let access = caches.iter().find(|access| access.name == *cache);
        let Some(access) = access.filter(|access| access.signing == Signing::SelfSigned) else {
            return Ok(None);
        };
        let keys = &access.public_keys;
        let key = signing_keys.choose(self.connection.device_id(), cache, keys);
        if key.is_err() && !sign_known && self.lacking().all(|info| is_signed(info, keys)) {
            return Ok(None);
        }
        Ok(Some(Signer::new(key?)))
    }

    /// The paths that will be sent, references first.
    pub fn lacking(&self) -> impl Iterator<Item = &PathInfo> {
        let open = self.closure.iter().zip(&self.fates).filter(|(_, fate)| fate.is_none());
        open.map(|(info, _)| info)
    }

    /// How many paths the box has.
    #[must_use]
    pub fn known(&self) -> usize {
        self.fates.iter().filter(|fate| fate.is_some()).count()
    }

    /// Sends nothing.
    pub async fn leave(self) {
        self.connection.close().await;
    }

    /// Sends what is lacking. A connection that breaks is made anew, with growing pauses; what
    /// the box took by then does not travel again. Ends when every path is done with, when the
    /// box refuses for a reason that holds for all of them, or after several tries one behind
    /// the other that brought nothing.
    pub async fn run(mut self) -> PushReport {
        let mut tries = 0;
        loop {
            let (open, sent) = (self.lacking().count(), self.sent_bytes());
            let Err(error) = self.round().await else { break };
            let sent = self.sent_bytes().saturating_sub(sent);
            if got_further(&error, sent) || self.lacking().count() < open {
                tries = 0;
            }
            if let Err(error) = self.reconnect(&mut tries, error).await {
                self.report.stopped = Some(error);
                break;
            }
        }
        self.finish().await
    }

    /// Sends all it can over this connection.
    async fn round(&mut self) -> Result<(), PushError> {
        let open: Vec<usize> = (0..self.closure.len())
            .filter(|place| self.fates.get(*place).is_some_and(Option::is_none))
            .collect();
        let paths: Vec<PathInfo> =
            open.iter().filter_map(|place| self.closure.get(*place).cloned()).collect();
        let small_bytes_max = self.connection.welcome().limits.inline_nar_bytes;
        let mut schedule = Schedule::new(&paths, small_bytes_max);
        let mut slots = Slots::new(self.shared.options.jobs);
        let mut under_way = JoinSet::new();
        let mut broken: Option<RequestError> = None;
        loop {
            while broken.is_none()
                && let Some(place) = slots.next(&mut schedule)
                && let Some(info) = paths.get(place)
            {
                let (shared, connection) = (Arc::clone(&self.shared), self.connection.clone());
                let info = info.clone();
                under_way.spawn(async move { (place, push_one(&shared, &connection, info).await) });
            }
            let Some(ended) = under_way.join_next().await else { break };
            let (place, result) = ended.map_err(|_panic| PushError::Panicked)?;
            slots.free(schedule.is_large(place));
            match result {
                Err(error) if error.is_transient() || stops_all(&error) => {
                    if broken.as_ref().is_none_or(RequestError::is_transient) {
                        broken = Some(error);
                    }
                }
                result => {
                    schedule.done(place);
                    open.get(place).into_iter().for_each(|place| self.settle(*place, &result));
                    self.report.failed.extend(failed(paths.get(place), result));
                }
            }
        }
        broken.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Writes down what became of the path at `place` of the closure.
    fn settle(&mut self, place: usize, result: &Result<PushOutcome, RequestError>) {
        let fate = match result {
            Ok(PushOutcome::Stored) => Fate::Visible,
            Ok(PushOutcome::Known) => Fate::Known,
            Ok(PushOutcome::Hidden { missing }) => Fate::Hidden(missing.clone()),
            Ok(PushOutcome::KeptFirst) => Fate::KeptFirst,
            Err(_) => Fate::Absent,
        };
        if let (Some(info), Some(slot)) = (self.closure.get(place), self.fates.get_mut(place)) {
            if let Ok(outcome) = result {
                info!(path = %info.store_path, ?outcome, "The box acknowledged a path");
            }
            if fate == Fate::Absent {
                self.shared.tell.tell(PushEvent::Read { bytes: info.nar_size });
            }
            self.shared.tell.tell(PushEvent::Finished { path: info.store_path.clone() });
            *slot = Some(fate);
        }
    }

    /// Asks about all paths whose fate is open; what the box has gets `present` for its fate.
    async fn ask_what_is_missing(&mut self, present: &Fate) -> Result<(), PushError> {
        let open: Vec<StorePathHash> = self.lacking().map(|info| info.store_path.hash()).collect();
        let missing = self.connection.missing(&self.shared.options.cache, &open).await?;
        let missing: HashSet<StorePathHash> = missing.into_iter().collect();
        for (info, fate) in self.closure.iter().zip(&mut self.fates) {
            if fate.is_none() && !missing.contains(&info.store_path.hash()) {
                *fate = Some(present.clone());
            }
        }
        Ok(())
    }

    /// Connects again and asks again; gives back the last error when it is no use.
    async fn reconnect(&mut self, tries: &mut u32, why: PushError) -> Result<(), PushError> {
        let mut last = why;
        while last.is_transient() && *tries < TRIES_MAX {
            *tries += 1;
            let pause = pause_before(*tries);
            let why = one_line(&last);
            self.shared.tell.tell(PushEvent::Reconnecting { attempt: *tries, pause, why });
            sleep(pause).await;
            match self.connect_again().await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_again(&mut self) -> Result<(), PushError> {
        let connection = self.connector.connect().await?;
        self.sent_before = self.sent_bytes();
        self.connection = connection;
        // What came to be there since the first question, came from here.
        self.ask_what_is_missing(&Fate::Visible).await
    }

    fn sent_bytes(&self) -> u64 {
        self.sent_before + self.connection.sent_bytes()
    }

    async fn finish(mut self) -> PushReport {
        self.report.sent_bytes = self.sent_bytes();
        self.report.took = self.started.elapsed();
        self.connection.close().await;
        let (mut fates, mut not_sent) = (Vec::new(), Vec::new());
        for (info, fate) in self.closure.iter().zip(self.fates) {
            if fate.is_none() {
                not_sent.push(info.clone());
            }
            fates.push(fate.unwrap_or(Fate::Absent));
        }
        let report = &mut self.report;
        report.not_sent = not_sent;
        for (place, missing) in still_hidden(&self.closure, &fates) {
            let path = self.closure.get(place).map(|info| info.store_path.clone());
            report.hidden.extend(path.map(|path| HiddenPath { path, missing }));
        }
        for (info, fate) in self.closure.iter().zip(&fates) {
            match fate {
                Fate::Visible | Fate::Hidden(_) => report.stored += 1,
                Fate::Known => report.known += 1,
                Fate::KeptFirst => report.kept_first.push(info.store_path.clone()),
                Fate::Absent => {}
            }
        }
        report.stored -= report.hidden.len();
        self.report
    }
}

/// How many paths may be under way.
struct Slots {
    small: u32,
    large: u32,
}

impl Slots {
    fn new(jobs: NonZero<u32>) -> Self {
        let large = jobs.get().min(STREAMS_MAX / 2);
        Self { small: STREAMS_MAX - large, large }
    }

    /// The next path that has a slot; takes it.
    fn next(&mut self, schedule: &mut Schedule) -> Option<usize> {
        let large = if self.large > 0 { schedule.next_large() } else { None };
        if large.is_some() {
            self.large -= 1;
            return large;
        }
        let small = if self.small > 0 { schedule.next_small() } else { None };
        if small.is_some() {
            self.small -= 1;
        }
        small
    }

    const fn free(&mut self, is_large: bool) {
        if is_large { self.large += 1 } else { self.small += 1 }
    }
}

async fn push_one(
    shared: &Shared,
    connection: &BoxConnection,
    mut info: PathInfo,
) -> Result<PushOutcome, RequestError> {
    if let Some(signer) = &shared.signer {
        signer.sign(shared.store.folder(&info.store_path), &mut info).await?;
    }
    let PushOptions { cache, attachments, .. } = &shared.options;
    let key = shared.signer.as_ref().map(Signer::key);
    attachments.send(connection, cache, &info, key, &shared.tell).await?;
    let signature = shared.device_key.sign(info.fingerprint().as_bytes());
    let nar_size = info.nar_size;
    let root = shared.store.folder(&info.store_path);
    let expected = Expected { root, nar_hash: info.nar_hash, nar_size };
    let read = ReadBytes::default();
    let (compressors, tell) = (shared.compressors.clone(), shared.tell.clone());
    let source = NarChunks::new(expected, compressors, read.clone(), tell);
    let offer = Offer { info, device_signature: signature.as_bytes().to_vec() };

    let result = connection.push(&shared.options.cache, offer, Box::new(source)).await;

    let read = read.get();
    shared.tell.tell(match &result {
        Ok(_) => PushEvent::Read { bytes: nar_size.saturating_sub(read) },
        Err(_) => PushEvent::Unread { bytes: read },
    });
    result
}

fn failed(
    info: Option<&PathInfo>,
    result: Result<PushOutcome, RequestError>,
) -> Option<FailedPath> {
    Some(FailedPath { path: info?.store_path.clone(), why: result.err()? })
}

/// Whether the box would refuse every other path for the same reason.
fn stops_all(error: &RequestError) -> bool {
    error.refusal().is_some_and(|refusal| {
        matches!(
            refusal.code,
            RefusalCode::Unauthorised
                | RefusalCode::Forbidden
                | RefusalCode::NoSuchCache
                | RefusalCode::UnsupportedVersion
                | RefusalCode::NoSpace
        )
    })
}

/// Whether a round that ended in `error`, and finished no path, brought something all the same. What
/// the box took in and then refused does not count: it may be refused for ever.
fn got_further(error: &PushError, sent_bytes: u64) -> bool {
    let is_refusal = matches!(error, PushError::Request(error) if error.refusal().is_some());
    !is_refusal && sent_bytes >= PROGRESS_BYTES
}

fn pause_before(try_number: u32) -> Duration {
    let doubled = PAUSE_FIRST.saturating_mul(1 << try_number.saturating_sub(1).min(10));
    doubled.min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let pauses: Vec<_> = (1..=TRIES_MAX).map(|n| pause_before(n).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(pause_before(u32::MAX), PAUSE_MAX);
    }

    #[test]
    fn a_path_that_the_box_takes_in_and_refuses_is_not_sent_for_ever() {
        let busy = RequestError::Refused(crate::wire::Refusal::new(RefusalCode::Busy, "again"));
        assert!(busy.is_transient());
        assert!(!got_further(&busy.into(), 10 * PROGRESS_BYTES));
        assert!(got_further(&RequestError::TimedOut.into(), PROGRESS_BYTES));
        assert!(!got_further(&RequestError::TimedOut.into(), PROGRESS_BYTES - 1));
    }

    #[test]
    fn a_slot_is_taken_once_and_comes_back() {
        let mut slots = Slots::new(NonZero::new(2).unwrap());
        assert_eq!((slots.large, slots.small), (2, STREAMS_MAX - 2));
        let mut nothing = Schedule::new(&[], 1);
        assert_eq!(slots.next(&mut nothing), None);
        assert_eq!((slots.large, slots.small), (2, STREAMS_MAX - 2));
        slots.free(true);
        assert_eq!(slots.large, 3);
        assert_eq!(Slots::new(NonZero::<u32>::MAX).large, STREAMS_MAX / 2);
    }

    #[test]
    fn what_holds_for_all_paths_ends_the_push() {
        let refused = |code| RequestError::Refused(crate::wire::Refusal::new(code, "because"));
        assert!(stops_all(&refused(RefusalCode::NoSpace)));
        assert!(stops_all(&refused(RefusalCode::Forbidden)));
        assert!(!stops_all(&refused(RefusalCode::WrongNarHash)));
        assert!(!stops_all(&refused(RefusalCode::Busy)));
        assert!(!stops_all(&RequestError::TimedOut));
        let error = PushError::from(refused(RefusalCode::NoSpace));
        assert_eq!(one_line(&error), "the box refused: because");
    }
}
