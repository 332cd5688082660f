//! Every text with a type of its own: what reads, writes, and reads the same again.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use larder::formats::cache_info::CacheInfo;
use larder::formats::realisation::{DrvOutput, Realisation};
use larder::formats::signature::{PublicKey, SecretKey, Signature};
use larder::formats::{
    BoxName, CacheName, Compression, FilePath, PinName, Sha256Hash, StorePath, StorePathHash,
};
use larder::wire::{DeviceId, PairingCode, TokenText};
use libfuzzer_sys::fuzz_target;

fn law<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    let Ok(read) = text.parse::<T>() else { return };
    let written = read.to_string();
    let again = written.parse::<T>().ok();
    assert_eq!(again.as_ref(), Some(&read), "{written}");
}

fuzz_target!(|text: &str| {
    law::<BoxName>(text);
    law::<CacheInfo>(text);
    law::<CacheName>(text);
    law::<Compression>(text);
    law::<DeviceId>(text);
    law::<DrvOutput>(text);
    law::<FilePath>(text);
    law::<PinName>(text);
    law::<PublicKey>(text);
    law::<Sha256Hash>(text);
    law::<Signature>(text);
    law::<StorePath>(text);
    law::<StorePathHash>(text);
    let _either_way = (text.parse::<PairingCode>().is_ok(), FilePath::from_url(text).is_some());
    if let Ok(token) = text.parse::<TokenText>() {
        // Letters of either case are read, and those that are easily taken for digits.
        let again = token.to_secret_text().parse::<TokenText>().expect("our own text");
        assert!(again.secret() == token.secret() && again.device_id() == token.device_id());
    }
    if let Ok(key) = text.parse::<SecretKey>() {
        assert_eq!(
            key.to_secret_text().parse::<SecretKey>().unwrap().public_key(),
            key.public_key()
        );
        let signature = key.sign(text.as_bytes());
        assert!(key.public_key().verifies(text.as_bytes(), &signature));
    }
    if let Ok(realisation) = Realisation::from_json(text.as_bytes()) {
        let json = realisation.to_json();
        let again = Realisation::from_json(json.as_bytes()).expect("our own JSON");
        assert_eq!(again.to_json(), json);
        assert_eq!(again.fingerprint(), realisation.fingerprint());
    }
});
