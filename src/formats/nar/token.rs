//! The strings that a NAR is made of, taken from bytes that arrive in pieces of any size.

use crate::formats::limits;

/// Why bytes are no NAR that we take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NarError {
    /// The bytes ended inside the archive.
    #[error("the NAR ends too early, after {0} bytes")]
    Truncated(u64),
    /// Something follows the end of the archive.
    #[error("bytes follow the end of the NAR at offset {0}")]
    TrailingBytes(u64),
    /// Not the word that the grammar wants here.
    #[error("the NAR is malformed before offset {offset}: expected {expected}")]
    Grammar {
        /// What the grammar allows.
        expected: &'static str,
        /// Where the wrong word ends.
        offset: u64,
    },
    /// A byte of padding is not zero.
    #[error("the NAR has padding that is not zero at offset {0}")]
    Padding(u64),
    /// A string is longer than its kind may be.
    #[error("the NAR has {what} of {found} bytes before offset {offset}; at most {max} are taken")]
    TooLong {
        /// The kind of string.
        what: &'static str,
        /// Its length.
        found: u64,
        /// The bound.
        max: usize,
        /// Where its length ends.
        offset: u64,
    },
    /// A directory entry's name is empty, `.`, `..`, or has a slash or a NUL.
    #[error("the NAR has the file name '{0}', which no directory can hold")]
    Name(String),
    /// Two entries are out of order or have the same name.
    #[error("the NAR's entry '{0}' is not behind its predecessor in byte order")]
    Order(String),
    /// A symlink's target is empty or has a NUL.
    #[error("the NAR has a symlink with an impossible target")]
    Target,
    /// Directories are nested too deeply.
    #[error("the NAR nests directories deeper than {}", limits::NAR_DEPTH_MAX)]
    Depth,
}

/// A string that is being collected. Reused from one string to the next.
#[derive(Debug, Default)]
pub(super) struct Collector {
    length: [u8; 8],
    /// Bytes of `length` that are there.
    length_bytes: usize,
    /// The string, once its length is known.
    text: Vec<u8>,
    /// Bytes of padding that are still to come, once the text is whole.
    padding: usize,
}

/// The largest string that may come next, and what it is called when it is larger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) what: &'static str,
    pub(super) max: usize,
}

impl Collector {
    /// Takes bytes from the front of `input`. True when the length is whole.
    pub(super) fn take_length(&mut self, input: &mut &[u8]) -> bool {
        let wanted = self.length.len() - self.length_bytes;
        let (taken, rest) = input.split_at(wanted.min(input.len()));
        self.length[self.length_bytes..self.length_bytes + taken.len()].copy_from_slice(taken);
        self.length_bytes += taken.len();
        *input = rest;
        self.length_bytes == self.length.len()
    }

    /// The length that [`take_length`](Self::take_length) has completed.
    pub(super) fn length(&self) -> u64 {
        u64::from_le_bytes(self.length)
    }

    /// Takes a string within `bound` from the front of `input`, with its padding. True when it is
    /// whole; then [`text`](Self::text) has it until [`clear`](Self::clear).
    pub(super) fn take(
        &mut self,
        input: &mut &[u8],
        bound: Bound,
        position: u64,
    ) -> Result<bool, NarError> {
        let start = input.len();
        if !self.take_length(input) {
            return Ok(false);
        }
        let at = |input: &&[u8]| position + bytes_u64(start - input.len());
        let too_long = |found| NarError::TooLong {
            what: bound.what,
            found,
            max: bound.max,
            offset: at(input),
        };
        let length = usize::try_from(self.length())
            .ok()
            .filter(|length| *length <= bound.max)
            .ok_or_else(|| too_long(self.length()))?;
        let missing = length - self.text.len();
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.text.extend_from_slice(taken);
        *input = rest;
        if self.text.len() < length {
            return Ok(false);
        }
        let wanted = super::padding_len(self.length()) - self.padding;
        let (taken, rest) = input.split_at(wanted.min(input.len()));
        if let Some(place) = first_set(taken) {
            return Err(NarError::Padding(at(input) + bytes_u64(place)));
        }
        self.padding += taken.len();
        *input = rest;
        Ok(taken.len() == wanted)
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(super) fn clear(&mut self) {
        self.length_bytes = 0;
        self.text.clear();
        self.padding = 0;
    }
}

/// Where in padding the first byte is that is not 0.
pub(super) fn first_set(padding: &[u8]) -> Option<usize> {
    padding.iter().position(|byte| *byte != 0)
}

/// A length in memory as a count of bytes on the wire.
pub(super) fn bytes_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
