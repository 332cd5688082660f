//! Single byte ranges (RFC 9110, 14).

use axum::http::header::{IF_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderValue};

/// Which bytes of a file of known length a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: nothing else was asked for, or nothing that is understood, or several ranges
    /// (RFC 9110, 14.2, lets a server leave `Range` aside), or the file is not the one of
    /// `If-Range`.
    Whole,
    /// `length` bytes from `offset`; at least one.
    Part { offset: u64, length: u64 },
    /// None that the file has: 416.
    OutOfBounds,
}

/// Reads `Range` and `If-Range` for a file of `size` bytes whose strong tag is `etag`.
pub(super) fn wanted(headers: &HeaderMap, etag: &HeaderValue, size: u64) -> Wanted {
    // A date cannot say that the bytes are the same ones, so only a tag counts.
    if headers.get(IF_RANGE).is_some_and(|condition| condition != etag) {
        return Wanted::Whole;
    }
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    range.and_then(|range| parse(range, size)).unwrap_or(Wanted::Whole)
}

/// `None` for what is not one range of bytes.
fn parse(range: &str, size: u64) -> Option<Wanted> {
    let (unit, range) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let (offset, end) = match (first, last) {
        (Some(first), Some(last)) if first > last => return None,
        (Some(first), last) => (first, last.map_or(size, |last| last.saturating_add(1)).min(size)),
        (None, Some(suffix)) => (size.saturating_sub(suffix), size),
        (None, None) => return None,
    };
    Some(match end.checked_sub(offset) {
        Some(length @ 1..) => Wanted::Part { offset, length },
        _ => Wanted::OutOfBounds,
    })
}

/// A number, or nothing; `None` for what is neither. One too large for any file is the largest.
fn number(digits: &str) -> Option<Option<u64>> {
    if digits.is_empty() {
        return Some(None);
    }
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Some(digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ETAG: HeaderValue = HeaderValue::from_static("\"a-1\"");

    fn of(range: &str) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        wanted(&headers, &ETAG, 100)
    }

    #[test]
    fn one_range_is_taken() {
        for (range, offset, length) in [
            ("bytes=0-0", 0, 1),
            ("bytes=10-19", 10, 10),
            ("bytes=99-", 99, 1),
            ("bytes=0-", 0, 100),
            ("bytes=50-1000", 50, 50),
            ("bytes=50-99999999999999999999999", 50, 50),
            ("bytes=-1", 99, 1),
            ("bytes=-1000", 0, 100),
            ("Bytes= 3-4 ", 3, 2),
        ] {
            assert_eq!(of(range), Wanted::Part { offset, length }, "{range}");
        }
    }

    #[test]
    fn what_the_file_does_not_have_is_out_of_bounds() {
        for range in ["bytes=100-", "bytes=100-200", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert_eq!(of(range), Wanted::OutOfBounds, "{range}");
        }
    }

    #[test]
    fn what_is_no_single_range_means_the_whole() {
        for range in
            ["bytes=0-1,3-4", "bytes=-", "bytes=5-4", "bytes=a-b", "bytes=+1-2", "lines=1-2", "x"]
        {
            assert_eq!(of(range), Wanted::Whole, "{range}");
        }
    }

    #[test]
    fn a_part_of_another_file_is_not_given() {
        let part = Wanted::Part { offset: 1, length: 2 };
        for (condition, expected) in [
            ("\"a-1\"", part),
            ("\"a-2\"", Wanted::Whole),
            ("W/\"a-1\"", Wanted::Whole),
            ("Mon, 23 Nov 2026 00:00:00 GMT", Wanted::Whole),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_static("bytes=1-2"));
            headers.insert(IF_RANGE, condition.parse().unwrap());
            assert_eq!(wanted(&headers, &ETAG, 100), expected, "{condition}");
        }
    }

    proptest! {
        #[test]
        fn no_range_leaves_the_file(range in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in 0..1000_u64) {
            if let Some(Wanted::Part { offset, length }) = parse(&range, size) {
                prop_assert!(length > 0 && offset.checked_add(length).is_some_and(|end| end <= size));
            }
        }
    }
}
