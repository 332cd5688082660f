//! What a box says of itself in the TXT record of its service.

use mdns_sd::TxtProperties;

use crate::formats::BoxName;
use crate::formats::CacheName;
use crate::wire::device_id::DeviceId;

/// The facts of a TXT record. Anybody on the network can say them of anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: BoxName,
    pub(super) device_id: DeviceId,
    pub(super) version: String,
    pub(super) caches: Vec<CacheName>,
    pub(super) http_port: u16,
}

impl Record {
    /// As keys and values for DNS-SD. Caches that do not fit into their value are left out,
    /// the last first; `path` is where the root's substituter answers.
    pub(super) fn to_properties(&self) -> Vec<(&'static str, String)> {
        vec![
            (NAME, self.name.to_string()),
            (DEVICE_ID, self.device_id.to_string()),
            (VERSION, self.version.clone()),
            (CACHES, joined(&self.caches)),
            (HTTP_PORT, self.http_port.to_string()),
            (PATH, "/".to_owned()),
        ]
    }

    /// Reads what a stranger sent; nothing if it names no box. What does not parse among the
    /// caches is left out, and so is a version that is not plain text: both end on terminals.
    pub(super) fn from_properties(properties: &TxtProperties) -> Option<Self> {
        let text = |key| properties.get_property_val_str(key);
        let version = text(VERSION).filter(|version| is_plain_version(version));
        let caches = text(CACHES).unwrap_or_default().split(',');
        Some(Self {
            name: text(NAME)?.parse().ok()?,
            device_id: text(DEVICE_ID)?.parse().ok()?,
            version: version.unwrap_or_default().to_owned(),
            caches: caches.filter_map(|name| name.parse().ok()).collect(),
            http_port: text(HTTP_PORT)?.parse().ok()?,
        })
    }
}

const NAME: &str = "name";
const DEVICE_ID: &str = "id";
const VERSION: &str = "version";
const CACHES: &str = "caches";
const HTTP_PORT: &str = "http";
const PATH: &str = "path";

/// A key, an equals sign and a value have at most 255 bytes together (RFC 6763, section 6.1).
const CACHES_BYTES_MAX: usize = 255 - CACHES.len() - 1;
const VERSION_LEN_MAX: usize = 32;

fn joined(caches: &[CacheName]) -> String {
    let mut text = String::new();
    for cache in caches {
        let comma = usize::from(!text.is_empty());
        if text.len() + comma + cache.as_str().len() > CACHES_BYTES_MAX {
            break;
        }
        if comma > 0 {
            text.push(',');
        }
        text.push_str(cache.as_str());
    }
    text
}

fn is_plain_version(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+-".contains(&byte);
    text.len() <= VERSION_LEN_MAX && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use mdns_sd::IntoTxtProperties;

    use super::*;

    fn record(caches: usize) -> Record {
        Record {
            name: "office".parse().unwrap(),
            device_id: DeviceId([7; 20]),
            version: "0.1.0-dev+3".to_owned(),
            caches: (0..caches).map(|n| format!("cache-{n:04}").parse().unwrap()).collect(),
            http_port: 5273,
        }
    }

    fn read(properties: Vec<(&str, String)>) -> Option<Record> {
        Record::from_properties(&properties.as_slice().into_txt_properties())
    }

    #[test]
    fn what_is_said_is_read() {
        for caches in [0, 1, 3] {
            assert_eq!(read(record(caches).to_properties()), Some(record(caches)));
        }
    }

    #[test]
    fn caches_that_do_not_fit_are_left_out_whole() {
        let properties = record(100).to_properties();

        for (key, value) in &properties {
            assert!(key.len() + 1 + value.len() <= 255, "{key}={value}");
        }
        let read = read(properties).unwrap();
        assert_eq!(read.caches, record(read.caches.len()).caches);
        assert_eq!(read.caches.len(), 22, "ten characters each with a comma, in 248 bytes");
    }

    #[test]
    fn what_names_no_box_is_nothing() {
        for (key, value) in
            [("name", "\x1b[2Joffice"), ("name", ""), ("id", "short"), ("http", "70000")]
        {
            let mut properties = record(1).to_properties();
            properties.retain(|(other, _)| *other != key);
            assert_eq!(read(properties.clone()), None, "no {key}");
            properties.push((key, value.to_owned()));
            assert_eq!(read(properties), None, "{key} = {value:?}");
        }
    }

    #[test]
    fn text_for_terminals_is_plain() {
        let mut properties = record(0).to_properties();
        properties.retain(|(key, _)| *key != "version" && *key != "caches");
        properties.push(("version", "1\x1b[31m".to_owned()));
        properties.push(("caches", "main,\x1b[31m,../x,office".to_owned()));

        let read = read(properties).unwrap();

        assert_eq!(read.version, "");
        assert_eq!(read.caches, ["main".parse().unwrap(), "office".parse().unwrap()]);
    }
}
