//! Paths and headers of requests; the laws stand beside what they are of.
#![no_main]

use larder::transports::http::fuzzed;
use larder_fuzz::seed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((seed, rest)) = seed(data) else { return };
    if let Ok(path) = std::str::from_utf8(rest) {
        fuzzed::paths(path);
    }
    fuzzed::headers(rest, seed >> (seed % 64));
});
