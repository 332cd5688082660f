//! Spans of time and moments as people write and read them.

use std::str::FromStr;
use std::time::Duration;

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
    fn moments_and_spans_are_short() {
        assert_eq!(moment(0), "1970-01-01 00:00 UTC");
        assert_eq!(moment(u64::MAX), format!("second {}", u64::MAX));
        assert_eq!(span(0), "0 s");
        assert_eq!(span(59), "59 s");
        assert_eq!(span(3600), "1 h 0 min");
        assert_eq!(span(100_000), "1 d 3 h");
    }
}
