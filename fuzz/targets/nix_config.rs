//! The files of Nix that `larder use` edits; the laws stand beside what they are of.
#![no_main]

use larder::client::nix_config::fuzzed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    fuzzed::nix_conf(text);
    fuzzed::netrc(text);
    fuzzed::location(text);
});
