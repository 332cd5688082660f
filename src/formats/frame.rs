//! Frames: a chunk as one zstd frame (RFC 8878), which is how it travels, lies on disk and is
//! served. Frames one behind the other are a zstd file, so what a stranger's frame asks of a
//! decoder, every reader of the cache is asked: hence the strict rules of [`accept`].

use std::cell::RefCell;
use std::io;

use zstd::zstd_safe::{DCtx, find_frame_compressed_size};

use crate::formats::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};

/// The four bytes that begin a frame; skippable frames begin otherwise (RFC 8878, 3.1.1 and 3.1.2).
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Why bytes are not the frame of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A chunk has 1 byte to [`CHUNK_BYTES_MAX`].
    #[error("a chunk of {0} bytes is out of bounds (1 to {CHUNK_BYTES_MAX})")]
    RawLength(u32),
    /// Longer than any chunk's frame.
    #[error("the frame has {0} bytes; at most {FRAME_BYTES_MAX} are taken")]
    TooLong(usize),
    /// Not a zstd frame, or its header is cut off.
    #[error("the bytes are no zstd frame")]
    Header,
    /// It needs a dictionary.
    #[error("the frame needs a dictionary")]
    Dictionary,
    /// Its window is larger than any chunk.
    #[error("the frame wants a window of {0} bytes; at most {CHUNK_BYTES_MAX} are taken")]
    Window(u64),
    /// It says another length than was declared.
    #[error("the frame says {found} bytes, but {declared} were declared")]
    ContentSize {
        /// What came with the frame.
        declared: u32,
        /// What its header says.
        found: u64,
    },
    /// Something follows the frame, or it is cut off.
    #[error("the bytes are not exactly one frame")]
    NotOne,
    /// It does not decompress to the declared length.
    #[error("the frame does not hold the declared {declared} bytes")]
    Content {
        /// What came with the frame.
        declared: u32,
    },
}

thread_local! {
    /// A context for each thread that decompresses: about 100 KiB, made once.
    static CONTEXT: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// Checks that `frame` is exactly one frame without dictionary, with a window of at most
/// [`CHUNK_BYTES_MAX`], that holds `raw_len` bytes, and gives these. Never more than `raw_len`
/// bytes are written, so a bomb ends at its declared size.
///
/// # Errors
///
/// [`FrameError`].
pub fn accept(frame: &[u8], raw_len: u32) -> Result<Vec<u8>, FrameError> {
    if raw_len == 0 || raw_len > CHUNK_BYTES_MAX {
        return Err(FrameError::RawLength(raw_len));
    }
    if frame.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(frame.len()));
    }
    let header = Header::parse(frame)?;
    if header.window > u64::from(CHUNK_BYTES_MAX) {
        return Err(FrameError::Window(header.window));
    }
    if let Some(found) = header.content_size.filter(|found| *found != u64::from(raw_len)) {
        return Err(FrameError::ContentSize { declared: raw_len, found });
    }
    if find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err(FrameError::NotOne);
    }
    let wrong = FrameError::Content { declared: raw_len };
    let expected = usize::try_from(raw_len).map_err(|_width| wrong)?;
    let mut raw = Vec::with_capacity(expected);
    let written = CONTEXT.with_borrow_mut(|context| context.decompress(&mut raw, frame));
    if written == Ok(expected) && raw.len() == expected { Ok(raw) } else { Err(wrong) }
}

/// What a frame's header says (RFC 8878, 3.1.1.1).
struct Header {
    window: u64,
    content_size: Option<u64>,
}

impl Header {
    fn parse(frame: &[u8]) -> Result<Self, FrameError> {
        let rest = frame.strip_prefix(&MAGIC).ok_or(FrameError::Header)?;
        let (descriptor, rest) = rest.split_first().ok_or(FrameError::Header)?;
        if descriptor & 0b11 != 0 {
            return Err(FrameError::Dictionary);
        }
        if descriptor & 0b1000 != 0 {
            return Err(FrameError::Header); // the reserved bit
        }
        let single_segment = descriptor & 0b10_0000 != 0;
        let (window, rest) = match single_segment {
            true => (None, rest),
            false => {
                let (byte, rest) = rest.split_first().ok_or(FrameError::Header)?;
                let base = 1_u64 << (10 + (byte >> 3));
                (Some(base + base / 8 * u64::from(byte & 0b111)), rest)
            }
        };
        let content_size = match (descriptor >> 6, single_segment) {
            (0, false) => None,
            (0, true) => Some(number(rest, 1)?),
            (1, _) => Some(number(rest, 2)? + 256),
            (2, _) => Some(number(rest, 4)?),
            _ => Some(number(rest, 8)?),
        };
        let window = window.or(content_size).ok_or(FrameError::Header)?;
        Ok(Self { window, content_size })
    }
}

fn number(bytes: &[u8], length: usize) -> Result<u64, FrameError> {
    let field = bytes.get(..length).ok_or(FrameError::Header)?;
    Ok(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Makes frames. One for each worker: a context takes about 1 MiB.
pub struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    /// A compressor of the given zstd level.
    ///
    /// # Errors
    ///
    /// If zstd does not know the level.
    pub fn new(level: i32) -> io::Result<Self> {
        zstd::bulk::Compressor::new(level).map(Self)
    }

    /// The frame of a chunk.
    ///
    /// # Errors
    ///
    /// Only if zstd has no memory.
    pub fn compress(&mut self, raw: &[u8]) -> io::Result<Vec<u8>> {
        self.0.compress(raw)
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zstd::zstd_safe::CParameter;

    use super::*;

    fn length(bytes: &[u8]) -> u32 {
        u32::try_from(bytes.len()).unwrap()
    }

    fn frame(raw: &[u8]) -> Vec<u8> {
        Compressor::new(3).unwrap().compress(raw).unwrap()
    }

    fn with(raw: &[u8], parameters: &[CParameter]) -> Vec<u8> {
        let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
        for parameter in parameters {
            compressor.set_parameter(*parameter).unwrap();
        }
        compressor.compress(raw).unwrap()
    }

    #[test]
    fn two_frames_in_one_are_refused() {
        let two = [frame(b"one"), frame(b"two")].concat();
        assert_eq!(accept(&two, 6), Err(FrameError::ContentSize { declared: 6, found: 3 }));
        assert_eq!(accept(&two, 3), Err(FrameError::NotOne));
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7];
        let behind = [frame(b"one").as_slice(), &skippable].concat();
        assert_eq!(accept(&behind, 3), Err(FrameError::NotOne));
        let before = [skippable.as_slice(), &frame(b"one")].concat();
        assert_eq!(accept(&before, 3), Err(FrameError::Header));
    }

    #[test]
    fn a_frame_that_is_cut_off_or_followed_is_refused() {
        let whole = frame(&[b"some bytes ".as_slice(); 40].concat());
        for cut in 0..whole.len() {
            assert!(accept(&whole[..cut], 440).is_err(), "{cut} of {}", whole.len());
        }
        let longer = [whole.as_slice(), &[0]].concat();
        assert_eq!(accept(&longer, 440), Err(FrameError::NotOne));
    }

    #[test]
    fn a_frame_with_a_dictionary_is_refused() {
        let dictionary: Vec<u8> = (0..1_u32 << 10).flat_map(|n| (n * 7).to_le_bytes()).collect();
        let with_id = {
            // A frame header that names dictionary 1 (flag 1), single segment, one byte content.
            let mut bytes = MAGIC.to_vec();
            bytes.extend([0b10_0001, 1, 1, 9, 0, 0, b'x']);
            bytes
        };
        assert_eq!(accept(&with_id, 1), Err(FrameError::Dictionary));
        // A raw dictionary has no number in the header; what it is needed for is missed.
        let mut compressor = zstd::bulk::Compressor::with_dictionary(3, &dictionary).unwrap();
        let frame = compressor.compress(&dictionary[..2048]).unwrap();
        assert_eq!(accept(&frame, 2048), Err(FrameError::Content { declared: 2048 }));
    }

    #[test]
    fn a_huge_window_is_refused() {
        let raw = vec![7; 100_000];
        let parameters = [CParameter::WindowLog(27), CParameter::ContentSizeFlag(false)];
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        for parameter in parameters {
            encoder.set_parameter(parameter).unwrap();
        }
        std::io::Write::write_all(&mut encoder, &raw).unwrap();
        let frame = encoder.finish().unwrap();
        assert_eq!(accept(&frame, 100_000), Err(FrameError::Window(1 << 27)));
    }

    #[test]
    fn a_bomb_ends_at_its_declared_size() {
        let bomb = frame(&vec![0; 100 << 20]);
        assert!(bomb.len() < 20_000, "{}", bomb.len());
        assert_eq!(accept(&bomb, 1000), Err(FrameError::Window(2 << 20)));
        // The same lie without a size in the header, in a window that is allowed.
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        encoder.set_parameter(CParameter::WindowLog(17)).unwrap();
        encoder.set_parameter(CParameter::ContentSizeFlag(false)).unwrap();
        std::io::Write::write_all(&mut encoder, &vec![0; 10 << 20]).unwrap();
        let bomb = encoder.finish().unwrap();
        assert_eq!(accept(&bomb, 1000), Err(FrameError::Content { declared: 1000 }));
        assert_eq!(
            accept(&frame(b"abc"), 4),
            Err(FrameError::ContentSize { declared: 4, found: 3 })
        );
    }

    #[test]
    fn lengths_out_of_bounds_are_refused() {
        assert_eq!(accept(&frame(b""), 0), Err(FrameError::RawLength(0)));
        assert_eq!(
            accept(b"x", CHUNK_BYTES_MAX + 1),
            Err(FrameError::RawLength(CHUNK_BYTES_MAX + 1))
        );
        let long = vec![0; FRAME_BYTES_MAX + 1];
        assert_eq!(accept(&long, 1), Err(FrameError::TooLong(FRAME_BYTES_MAX + 1)));
    }

    #[test]
    fn a_frame_without_its_size_or_with_a_checksum_is_taken() {
        let raw = [b"some bytes ".as_slice(); 400].concat();
        let parameters = [CParameter::ContentSizeFlag(false), CParameter::ChecksumFlag(true)];
        let frame = with(&raw, &parameters);
        assert_eq!(accept(&frame, length(&raw)), Ok(raw));
    }

    #[test]
    fn the_largest_chunk_fits_whatever_it_holds() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()[7]
        })
        .take(usize::try_from(CHUNK_BYTES_MAX).unwrap())
        .collect();
        let frame = frame(&noise);
        assert!(frame.len() > noise.len() && frame.len() <= FRAME_BYTES_MAX);
        assert_eq!(accept(&frame, CHUNK_BYTES_MAX), Ok(noise));
    }

    proptest! {
        #[test]
        fn what_is_compressed_is_accepted(raw in proptest::collection::vec(any::<u8>(), 1..5000), level in 1..10) {
            let frame = Compressor::new(level).unwrap().compress(&raw).unwrap();
            prop_assert_eq!(accept(&frame, length(&raw)), Ok(raw));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), raw_len in 0..400_000_u32) {
            let _either_way = accept(&bytes, raw_len);
            let _either_way = accept(&[MAGIC.as_slice(), &bytes].concat(), raw_len);
        }
    }
}
