//! narinfos: what is accepted is within its bounds, and its own text reads back as the same.
#![no_main]

use larder::formats::NarInfo;
use larder::formats::limits::{REFERENCES_MAX, SIGNATURES_MAX};
use larder_fuzz::within;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // A signature of five letters is dropped, one of a hundred kept: nothing is held many times.
    let Ok(read) = within(16 * text.len() + (64 << 10), || text.parse::<NarInfo>()) else { return };
    let info = &read.info;
    assert!(info.nar_size > 0 && read.file_size != Some(0) && !read.url.is_empty());
    assert!(info.references.len() <= REFERENCES_MAX && info.signatures.len() <= SIGNATURES_MAX);
    assert!(info.references.is_sorted_by(|one, next| one < next));
    let written = read.to_string();
    assert_eq!(written.parse().as_ref(), Ok(&read), "{written}");
    assert_eq!(written.parse::<NarInfo>().map(|again| again.to_string()), Ok(written));
    assert!(info.fingerprint().starts_with("1;/nix/store/"));
});
