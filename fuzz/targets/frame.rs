//! Frames: what is accepted is what zstd itself makes of it, of the declared length and in bounded
//! memory; what our compressor makes is accepted.
#![no_main]

use larder::formats::frame::{Compressor, accept};
use larder::formats::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};
use larder_fuzz::{seed, within};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((seed, frame)) = seed(data) else { return };
    // Mostly the true length, so that the rest of the rules is reached too.
    let declared = match seed >> 62 {
        0 => (seed & 0x7ffff) as u32,
        _ => zstd::zstd_safe::get_frame_content_size(frame)
            .ok()
            .flatten()
            .and_then(|size| u32::try_from(size).ok())
            .unwrap_or((seed & 0xffff) as u32),
    };
    if let Ok(raw) =
        within(declared.min(CHUNK_BYTES_MAX) as usize + (4 << 10), || accept(frame, declared))
    {
        assert!(raw.len() == declared as usize && frame.len() <= FRAME_BYTES_MAX);
        assert!((1..=CHUNK_BYTES_MAX).contains(&declared));
        let by_zstd = zstd::stream::decode_all(frame).expect("zstd takes it too");
        assert_eq!(by_zstd, raw);
        // What stands behind another frame reads the same: frames are served as one file.
        let twice = zstd::stream::decode_all([frame, frame].concat().as_slice()).unwrap();
        assert_eq!(twice, [raw.as_slice(), &raw].concat());
    }
    let raw = &frame[..frame.len().min(CHUNK_BYTES_MAX as usize)];
    if !raw.is_empty() {
        let made = Compressor::new(1 + (seed % 5) as i32).unwrap().compress(raw).unwrap();
        assert_eq!(accept(&made, raw.len() as u32).as_deref(), Ok(raw));
    }
});
