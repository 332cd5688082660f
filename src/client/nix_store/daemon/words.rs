//! The words of Nix's worker protocol: integers of 8 bytes, and texts with their length before
//! them, filled up with zeros to the next 8 bytes.
//!
//! Source: `src/libutil/serialise.cc` (Nix 2.34; the same in 2.8).

use std::io::{Read, Write};

use crate::client::nix_store::daemon::DaemonError;

/// Longest path, hash, signature, content address or version: Linux's `PATH_MAX`.
pub(super) const TEXT_BYTES_MAX: usize = 4096;

/// A request in the making, to be sent in one piece.
#[derive(Debug, Default)]
pub(super) struct Request(Vec<u8>);

impl Request {
    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub(super) fn text(self, text: &str) -> Self {
        let mut request = self.number(u64::try_from(text.len()).unwrap_or(u64::MAX));
        request.0.extend_from_slice(text.as_bytes());
        request.0.resize(request.0.len().next_multiple_of(8), 0);
        request
    }

    pub(super) fn send(self, to: &mut impl Write) -> Result<(), DaemonError> {
        to.write_all(&self.0).and_then(|()| to.flush()).map_err(DaemonError::of_io)
    }
}

/// Reads an integer.
pub(super) fn number(from: &mut impl Read) -> Result<u64, DaemonError> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes).map_err(DaemonError::of_io)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Reads a truth value. Nix writes 0 and 1.
pub(super) fn truth(from: &mut impl Read) -> Result<bool, DaemonError> {
    match number(from)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DaemonError::Malformed("truth value")),
    }
}

/// Reads a text of at most `bytes_max` bytes. Its length is believed only as the bytes come.
pub(super) fn bytes(from: &mut impl Read, bytes_max: usize) -> Result<Vec<u8>, DaemonError> {
    let length = length(from, bytes_max)?;
    let mut text = Vec::new();
    from.take(length).read_to_end(&mut text).map_err(DaemonError::of_io)?;
    if u64::try_from(text.len()) != Ok(length) {
        return Err(DaemonError::Closed);
    }
    let mut padding = [0; 8];
    let padding = padding.get_mut(..text.len().next_multiple_of(8) - text.len());
    let padding = padding.unwrap_or_default();
    from.read_exact(padding).map_err(DaemonError::of_io)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(DaemonError::Malformed("padding"));
    }
    Ok(text)
}

/// Reads a text that is part of a fact.
pub(super) fn text(from: &mut impl Read) -> Result<String, DaemonError> {
    let bytes = bytes(from, TEXT_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|_bytes| DaemonError::Malformed("text"))
}

/// Reads a list of at most `count_max` texts.
pub(super) fn texts(from: &mut impl Read, count_max: usize) -> Result<Vec<String>, DaemonError> {
    let count = length(from, count_max)?;
    (0..count).map(|_| text(from)).collect()
}

/// Reads an integer that says how much follows.
pub(super) fn length(from: &mut impl Read, max: usize) -> Result<u64, DaemonError> {
    let length = number(from)?;
    if usize::try_from(length).is_ok_and(|length| length <= max) {
        Ok(length)
    } else {
        Err(DaemonError::TooLong { length, max })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(request: Request) -> Vec<u8> {
        request.0
    }

    proptest! {
        #[test]
        fn texts_come_back(texts_in in proptest::collection::vec(".{0,40}", 0..9)) {
            let mut request = Request::default().number(u64::try_from(texts_in.len()).unwrap());
            for text in &texts_in {
                request = request.text(text);
            }
            let bytes = written(request);
            prop_assert_eq!(bytes.len() % 8, 0);
            prop_assert_eq!(texts(&mut bytes.as_slice(), 9).unwrap(), texts_in);
            for cut in 0..bytes.len() {
                prop_assert!(matches!(texts(&mut &bytes[..cut], 9), Err(DaemonError::Closed)));
            }
        }

        #[test]
        fn garbage_never_takes_more_than_it_is(garbage in proptest::collection::vec(any::<u8>(), 0..99)) {
            let _answer = texts(&mut garbage.as_slice(), 9);
            let _answer = bytes(&mut garbage.as_slice(), usize::MAX);
        }
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_kept() {
        for huge in [4097, u64::from(u32::MAX), u64::MAX] {
            let bytes = written(Request::default().number(huge));
            let error = text(&mut bytes.as_slice()).unwrap_err();
            assert!(matches!(error, DaemonError::TooLong { length, max: 4096 } if length == huge));
            let error = texts(&mut bytes.as_slice(), 64).unwrap_err();
            assert!(matches!(error, DaemonError::TooLong { length, max: 64 } if length == huge));
        }
    }

    #[test]
    fn padding_and_truth_are_checked() {
        let mut bytes = written(Request::default().text("abc"));
        assert_eq!(text(&mut bytes.as_slice()).unwrap(), "abc");
        *bytes.last_mut().unwrap() = 1;
        let error = text(&mut bytes.as_slice()).unwrap_err();
        assert!(matches!(error, DaemonError::Malformed("padding")));
        let two = written(Request::default().number(2));
        assert!(matches!(truth(&mut two.as_slice()), Err(DaemonError::Malformed("truth value"))));
    }
}
