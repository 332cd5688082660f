//! What the box does by itself while it runs.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::services::Services;
use crate::services::chain::Chain;

/// How long it takes until a token's last use is written down: one commit in that time at most.
const LAST_USES_EVERY: Duration = Duration::from_secs(20);
/// How often it is forgotten who sent chunks more than a day ago.
const OLD_UPLOADS_EVERY: Duration = Duration::from_secs(60 * 60);
/// How old the numbers of the store in the metrics may be.
const COUNT_EVERY: Duration = Duration::from_secs(60);
/// How often it is written down which paths were read: what a loss of power costs of that.
const USES_EVERY: Duration = Duration::from_secs(10 * 60);
/// How often the overlap of managed keys is counted down. What the box runs less than this before
/// it stops does not count, so a key is retired late, never early.
const KEYS_EVERY: Duration = Duration::from_secs(3600);

/// How often it is tried whether a disk that refused something takes bytes again.
const DISK_EVERY: Duration = Duration::from_secs(5);

/// How often it is looked at what the wall clock does.
const CLOCK_EVERY: Duration = Duration::from_secs(60);

/// Writes down last uses of tokens and paths, forgets who sent what long ago, counts down the
/// overlap of keys, watches the wall clock, counts what is in the store for the metrics, runs
/// collections and checks and makes backups, until `stop` fires. An error ends none of it.
pub async fn run(services: Services, stop: CancellationToken) {
    let mut last_uses = interval(LAST_USES_EVERY);
    let mut count = interval(COUNT_EVERY);
    let mut old_uploads = interval(OLD_UPLOADS_EVERY);
    let mut keys = interval(KEYS_EVERY);
    let mut uses = interval(USES_EVERY);
    uses.reset();
    uses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clock = interval(CLOCK_EVERY);
    let mut disk = interval(DISK_EVERY);
    disk.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A tick comes at once.
    keys.reset();
    keys.set_missed_tick_behavior(MissedTickBehavior::Delay);
    last_uses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    count.set_missed_tick_behavior(MissedTickBehavior::Delay);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    old_uploads.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let beside = async {
        loop {
            tokio::select! {
                _ = last_uses.tick() => services.auth.write_last_uses().await,
                _ = old_uploads.tick() => forget_old_uploads(&services).await,
                _ = keys.tick() => {
                    age_keys(&services).await;
                    expire_pins(&services).await;
                }
                _ = uses.tick() => {
                    if let Err(error) = services.lookup.write_uses().await {
                        warn!(error = %Chain(&error), "Cannot write down which paths were read");
                    }
                }
                _ = disk.tick() => services.status.try_disk().await,
                _ = clock.tick() => keep_clock(&services, false).await,
                _ = count.tick() => {
                    if let Err(error) = services.status.count_store().await {
                        warn!(error = %Chain(&error), "Cannot count what is in the store");
                    }
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = beside => {}
        () = services.checks.run() => {}
        () = services.collections.run() => {}
        () = services.backups.run() => {}
    }
    services.auth.write_last_uses().await;
    keep_clock(&services, true).await;
}

/// By the wall clock; not while that is not believed.
async fn forget_old_uploads(services: &Services) {
    let Some(now) = services.clock.trusted_now() else { return };
    if let Err(error) = services.publish.forget_old_uploads(now).await {
        warn!(error = %Chain(&error), "Cannot forget who sent chunks long ago");
    }
}

/// By how long the box runs. An owner who counts the days by a calendar is not surprised while
/// the calendar is wrong: what runs then does not count.
async fn age_keys(services: &Services) {
    if services.clock.trusted_now().is_none() {
        return;
    }
    if let Err(error) = services.keys.age(KEYS_EVERY.as_secs()).await {
        warn!(error = %Chain(&error), "Cannot write down how old keys are");
    }
}

/// By the wall clock; not while that is not believed.
async fn expire_pins(services: &Services) {
    let Some(now) = services.clock.trusted_now() else { return };
    if let Err(error) = services.pins.expire(now).await {
        warn!(error = %Chain(&error), "Cannot end pins whose days are over");
    }
}

async fn keep_clock(services: &Services, is_last: bool) {
    if let Err(error) = services.clock.keep(is_last).await {
        warn!(error = %Chain(&error), "Cannot write down what the clock says");
    }
}
