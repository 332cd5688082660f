//! How long and how much stays in a cache.

use serde::{Deserialize, Serialize};

/// What makes paths leave a cache that nothing pins and nothing visible refers to. Without either
/// they leave only when the disk gets full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheLimits {
    /// Days after which what nobody reads leaves.
    pub retention_days: Option<u32>,
    /// Bytes of NARs in their stored form, counted for each path; beyond them the paths leave that
    /// were read or pushed longest ago.
    pub quota_bytes: Option<u64>,
}

impl CacheLimits {
    /// Paths leave only when the disk gets full.
    pub const NONE: Self = Self { retention_days: None, quota_bytes: None };
    /// Most days of a retention: ten years, for which the box has to remember a number each.
    pub const RETENTION_DAYS_MAX: u32 = 3650;

    /// Whether the days are some and not too many, and the bytes some.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.retention_days.is_none_or(|days| (1..=Self::RETENTION_DAYS_MAX).contains(&days))
            && self.quota_bytes != Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_is_of_one_day_to_ten_years() {
        let of = |days| CacheLimits { retention_days: Some(days), quota_bytes: None };
        assert!(of(1).is_possible() && of(3650).is_possible());
        assert!(!of(0).is_possible() && !of(3651).is_possible());
        assert!(CacheLimits::default().is_possible());
        assert!(!CacheLimits { retention_days: None, quota_bytes: Some(0) }.is_possible());
    }
}
