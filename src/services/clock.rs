//! The wall clock. Nothing else reads it: time is an argument everywhere below.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::store::UnixSeconds;

/// Seconds since 1970; 0 on a machine that believes it is earlier.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
