//! The laws of the files of Nix that are edited, for `fuzz/`: in no build but that.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::client::nix_config::conf::{Conf, UsedCache, directives};
use crate::client::nix_config::netrc;
use crate::client::nix_store::Location;
use crate::wire::{DeviceId, TokenText};

/// A text that is put in order stays so; lines that are put in are there and say so, and taken
/// out again they leave what was there.
pub fn nix_conf(text: &[u8]) {
    let conf = Conf::parse(text);
    let written = conf.to_text();
    assert_eq!(Conf::parse(&written), conf);
    let _any = directives(text);
    let used = UsedCache {
        cache: "fuzzed".parse().expect("a name"),
        device_id: DeviceId([3; DeviceId::LEN_BYTES]),
    };
    if conf.used().contains(&used) {
        return;
    }
    let mut with = conf.clone();
    with.put(&used, &["extra-substituters = http://box:5273/fuzzed".to_owned()]);
    let mut again = Conf::parse(&with.to_text());
    assert_eq!(again, with);
    assert!(again.used().contains(&used));
    again.put(&used, &[]);
    assert_eq!(again.to_text(), written);
}

/// A line of ours can be put in wherever the host is not taken, and taken out again.
pub fn netrc(text: &[u8]) {
    let device_id = DeviceId([3; DeviceId::LEN_BYTES]);
    let token = TokenText::new(device_id, [4; 32]);
    let without = netrc::without(text, device_id);
    let Ok(with) = netrc::with(&without, "box.local", &token) else { return };
    // A line of ours for another box of that name is replaced, and gone then.
    let host = b"machine box.local ";
    if !without.windows(host.len()).any(|text| text == host) {
        assert_eq!(netrc::without(&with, device_id), without);
    }
    assert_eq!(netrc::with(&with, "box.local", &token), Ok(with));
}

/// Any `NIX_REMOTE` is a place or is refused.
pub fn location(text: &[u8]) {
    let variable = |name: &str| (name == "NIX_REMOTE").then(|| OsStr::from_bytes(text).to_owned());
    let _either_way = Location::from_variables(variable);
}
