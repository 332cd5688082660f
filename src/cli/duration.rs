//! Spans of time and moments as people write and read them.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};

/// How long something is good: `90m`, `12h`, `30d`, `2w`. Days have 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime(pub(super) Duration);

/// A text that is no such span.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no duration; write it like 90m, 12h, 30d or 2w")]
pub(super) struct ParseLifetimeError(String);

impl FromStr for Lifetime {
    type Err = ParseLifetimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseLifetimeError(text.to_owned());
        let span: Span = text.parse().map_err(|_not_friendly| wrong())?;
        let exact = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
        let exact = Duration::try_from(exact).map_err(|_negative| wrong())?;
        if exact.as_secs() == 0 { Err(wrong()) } else { Ok(Self(exact)) }
    }
}

/// A moment of the past: a day, a time of it (UTC), or how long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// Seconds since 1970.
    At(u64),
    Ago(Duration),
}

/// A text that is no such moment.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no time; write it like 2026-11-23, '2026-11-23 06:25' (UTC), 12h or 7d")]
pub(super) struct ParseSinceError(String);

impl Since {
    /// In seconds since 1970.
    pub(super) fn before(self, now: u64) -> u64 {
        match self {
            Self::At(moment) => moment,
            Self::Ago(span) => now.saturating_sub(span.as_secs()),
        }
    }
}

impl FromStr for Since {
    type Err = ParseSinceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(Lifetime(span)) = text.parse() {
            return Ok(Self::Ago(span));
        }
        let with_zone = text.parse::<Timestamp>();
        let timestamp = with_zone.ok().or_else(|| {
            let civil = text.trim_end_matches(" UTC").parse::<DateTime>().ok()?;
            TimeZone::UTC.to_timestamp(civil).ok()
        });
        let seconds = timestamp.and_then(|it| u64::try_from(it.as_second()).ok());
        seconds.map(Self::At).ok_or_else(|| ParseSinceError(text.to_owned()))
    }
}

/// A moment in seconds since 1970, such as `2026-11-23 06:25 UTC`.
pub(super) fn moment(unix_seconds: u64) -> String {
    let timestamp = i64::try_from(unix_seconds).ok().and_then(|it| Timestamp::from_second(it).ok());
    timestamp.map_or_else(
        || format!("second {unix_seconds}"),
        |timestamp| timestamp.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

/// A span with its two largest units, such as `3 d 4 h`.
pub(super) fn span(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let mut left = seconds;
    let mut words = Vec::new();
    for (unit, size) in units {
        let count = left / size;
        left %= size;
        if count > 0 || (!words.is_empty() && words.len() < 2) {
            words.push(format!("{count} {unit}"));
        }
        if words.len() == 2 {
            break;
        }
    }
    if words.is_empty() { "0 s".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_as_people_write_them() {
        for (text, seconds) in
            [("90m", 5400), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)]
        {
            let lifetime = text.parse::<Lifetime>().unwrap();
            assert_eq!(lifetime.0.as_secs(), seconds, "{text}");
        }
        for text in ["", "soon", "30", "-1d", "0s", "1y", "1mo", "10ms"] {
            assert!(text.parse::<Lifetime>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_past_is_read_as_it_is_shown() {
        for (text, at) in [
            ("1970-01-02", 86_400),
            ("1970-01-01 00:01", 60),
            ("1970-01-01 00:01 UTC", 60),
            ("1970-01-01T00:01:05", 65),
            ("1970-01-01T02:00:00+01:00", 3600),
            ("30m", 8_200),
            ("7d", 0),
        ] {
            assert_eq!(text.parse::<Since>().unwrap().before(10_000), at, "{text}");
        }
        for text in ["", "soon", "1969-12-31", "2026-13-01", "-1d", "12"] {
            assert!(text.parse::<Since>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn moments_and_spans_are_short() {
        assert_eq!(moment(0), "1970-01-01 00:00 UTC");
        assert_eq!(moment(u64::MAX), format!("second {}", u64::MAX));
        assert_eq!(span(0), "0 s");
        assert_eq!(span(59), "59 s");
        assert_eq!(span(3600), "1 h 0 min");
        assert_eq!(span(100_000), "1 d 3 h");
    }
}
