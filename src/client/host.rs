//! Which box is meant, and where it is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;
use std::{io, iter};

use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::client::config::ClientConfig;
use crate::formats::BoxName;
use crate::transports::discovery::browse::{BROWSE_TIME_DEFAULT, BrowseError, FoundBox, browse};
use crate::wire::DeviceId;

/// The port of a box, TCP and UDP, where nobody says otherwise.
pub const PORT_DEFAULT: u16 = 5273;

/// How long the system's resolver may take. mDNS behind it answers within a second or not at all.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

/// A box as people name it: `office`, `office.local`, `192.168.1.7`, `[::1]:5273`,
/// `http://office.local:5273/`.
///
/// A single word is the name that a box announces; anything else is for the system's resolver.
/// The port is that of TCP and UDP alike, [`PORT_DEFAULT`] if there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A box by the name that it announces.
    Named(BoxName),
    /// An address.
    Address(SocketAddr),
    /// A host name.
    Resolved {
        /// The name, such as `office.local`.
        name: String,
        /// The port.
        port: u16,
    },
}

/// A text that names no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no host; write a box's name, HOST[:PORT] or http://HOST[:PORT]")]
pub struct ParseHostError(String);

impl FromStr for Host {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseHostError(text.to_owned());
        let schemes = ["http://", "https://"];
        let url = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
        let authority = url.map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
        if let Ok(address) = authority.parse::<SocketAddr>() {
            return Ok(Self::Address(address));
        }
        let bare = authority.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(authority).parse::<IpAddr>() {
            return Ok(Self::Address(SocketAddr::new(address, PORT_DEFAULT)));
        }
        let is_a_word = url.is_none() && authority != "localhost";
        if let (true, Ok(name)) = (is_a_word, authority.parse::<BoxName>()) {
            return Ok(Self::Named(name));
        }
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().map_err(|_digits| wrong())?),
            None => (authority, PORT_DEFAULT),
        };
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if name.is_empty() || name.len() > HOST_NAME_LEN_MAX || !name.bytes().all(fits) {
            return Err(wrong());
        }
        Ok(Self::Resolved { name: name.to_owned(), port })
    }
}

/// Longest name in the DNS (RFC 1035, section 2.3.4).
const HOST_NAME_LEN_MAX: usize = 253;

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "{name}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Resolved { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

/// Where to look for the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one that was named.
    Named(Host),
    /// The one whose data folder is here.
    Here,
    /// Whichever is the only one on this network.
    OnlyOne,
}

impl Target {
    /// The box that is meant: the one that was `said`; else the configured one; else the one
    /// whose data folder is here; else the one that the only saved token was saved for; else
    /// whichever is the only one on this network.
    #[must_use]
    pub fn choose(said: Option<Host>, config: &ClientConfig, is_box_here: bool) -> Self {
        let saved = || {
            let mut hosts = config.tokens.values().filter_map(|saved| saved.host.clone());
            hosts.next().filter(|_only| hosts.next().is_none())
        };
        match said.or_else(|| config.host.clone()) {
            Some(host) => Self::Named(host),
            None if is_box_here => Self::Here,
            None => saved().map_or(Self::OnlyOne, Self::Named),
        }
    }

    /// Where to look for the box with that ID when nobody says where it is: where it was paired,
    /// or its token was saved; here, if the box here `is_own`; else among those that announce
    /// themselves.
    #[must_use]
    pub fn of_device(device_id: DeviceId, config: &ClientConfig, is_own: bool) -> Self {
        let paired = config.boxes.iter().find(|(_, paired)| **paired == device_id);
        let saved = || config.tokens.get(&device_id).and_then(|saved| saved.host.clone());
        let known = paired.and_then(|(host, _)| host.parse().ok()).or_else(saved);
        known.map_or(if is_own { Self::Here } else { Self::OnlyOne }, Self::Named)
    }

    /// The addresses of its QUIC port, best first.
    ///
    /// # Errors
    ///
    /// [`HostError`].
    pub async fn addresses(&self) -> Result<Vec<SocketAddr>, HostError> {
        match self {
            Self::Here => Ok(vec![
                SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_DEFAULT)),
                SocketAddr::from((Ipv6Addr::LOCALHOST, PORT_DEFAULT)),
            ]),
            Self::Named(Host::Address(address)) => Ok(vec![*address]),
            Self::Named(Host::Resolved { name, port }) => resolve(name, *port).await,
            Self::Named(Host::Named(name)) => only_one(announced(name).await?, Some(name.as_str())),
            Self::OnlyOne => only_one(browse(BROWSE_TIME_DEFAULT).await?, None),
        }
    }
}

impl Target {
    /// The host in a substituter's URL, as others would write it: the one that was named, else the
    /// name that the box announces.
    #[must_use]
    pub fn substituter_host(&self, box_name: &str) -> String {
        match self {
            Self::Named(Host::Address(address)) => url_host(address.ip()),
            Self::Named(Host::Resolved { name, .. }) => name.clone(),
            _ => format!("{box_name}.local"),
        }
    }

    /// The same, but an address where this machine's resolver does not know the name: Nix would
    /// not find the box either. `address` is where the box answered.
    pub async fn reachable_host(&self, box_name: &str, address: SocketAddr) -> String {
        let host = self.substituter_host(box_name);
        let is_address = matches!(self, Self::Named(Host::Address(_)));
        let port = address.port();
        let looked_up = timeout(LOOKUP_MAX, lookup_host((host.as_str(), port))).await;
        let is_known =
            looked_up.is_ok_and(|found| found.is_ok_and(|mut found| found.next().is_some()));
        if is_address || is_known { host } else { url_host(address.ip()) }
    }

    /// The addresses of the box with that ID, among those that announce themselves if no other
    /// place was named.
    ///
    /// # Errors
    ///
    /// [`HostError`].
    pub async fn addresses_of(&self, device_id: DeviceId) -> Result<Vec<SocketAddr>, HostError> {
        if *self != Self::OnlyOne {
            return self.addresses().await;
        }
        let mut found = browse(BROWSE_TIME_DEFAULT).await?;
        found.retain(|found| found.device_id == device_id);
        let addresses = found.into_iter().flat_map(|found| found.addresses).collect::<Vec<_>>();
        if addresses.is_empty() { Err(HostError::NoSuchDevice(device_id)) } else { Ok(addresses) }
    }
}

/// An address as it stands in a URL (RFC 3986, section 3.2.2).
fn url_host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Why a box was not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// Nobody announces that name, and no resolver knows it.
    #[error("no box called '{0}' is on this network")]
    NoSuchBox(String),
    /// Nobody announces that ID.
    #[error("no box on this network announces the device ID {0}")]
    NoSuchDevice(DeviceId),
    /// Nobody announces a box.
    #[error("no box is on this network")]
    NoBox,
    /// Several do.
    #[error("several boxes are on this network:{}", list(.0))]
    Several(Vec<FoundBox>),
    /// The resolver does not know the name.
    #[error("cannot find the host {name}")]
    Lookup {
        /// The name.
        name: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The resolver said nothing.
    #[error("cannot find the host {name}: no answer within {} s", LOOKUP_MAX.as_secs())]
    LookupTimedOut {
        /// The name.
        name: String,
    },
    /// The network cannot be asked.
    #[error(transparent)]
    Browse(#[from] BrowseError),
}

fn list(boxes: &[FoundBox]) -> String {
    let line = |found: &FoundBox| {
        let address = found.addresses.first().map(SocketAddr::to_string).unwrap_or_default();
        format!("\n  {}  {}  {}", found.name, address, found.device_id)
    };
    boxes.iter().map(line).collect()
}

fn only_one(found: Vec<FoundBox>, name: Option<&str>) -> Result<Vec<SocketAddr>, HostError> {
    match <[FoundBox; 1]>::try_from(found) {
        Ok([found]) => Ok(found.addresses),
        Err(none) if none.is_empty() => {
            Err(name.map_or(HostError::NoBox, |name| HostError::NoSuchBox(name.to_owned())))
        }
        Err(several) => Err(HostError::Several(several)),
    }
}

async fn announced(name: &BoxName) -> Result<Vec<FoundBox>, HostError> {
    let mut found = browse(BROWSE_TIME_DEFAULT).await?;
    found.retain(|found| found.name == *name);
    Ok(found)
}

/// Asks the system's resolver; many cannot answer for `.local`, so boxes are asked there.
async fn resolve(name: &str, port: u16) -> Result<Vec<SocketAddr>, HostError> {
    let looked_up = timeout(LOOKUP_MAX, lookup_host((name, port))).await;
    let looked_up = match looked_up {
        Ok(Ok(addresses)) => Ok(addresses.collect::<Vec<_>>()),
        Ok(Err(source)) => Err(HostError::Lookup { name: name.to_owned(), source }),
        Err(_elapsed) => Err(HostError::LookupTimedOut { name: name.to_owned() }),
    };
    let first_label = name.strip_suffix(".local").and_then(|label| label.parse::<BoxName>().ok());
    match (looked_up, first_label) {
        (Ok(addresses), _) if !addresses.is_empty() => Ok(without_doubles(addresses)),
        (failed, Some(label)) => {
            let found = announced(&label).await?;
            if found.is_empty() {
                failed.and_then(|_none| only_one(found, Some(label.as_str())))
            } else {
                only_one(found, Some(label.as_str()))
            }
        }
        (failed, None) => failed,
    }
}

fn without_doubles(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut kept = Vec::new();
    for address in addresses {
        if !kept.contains(&address) {
            kept.extend(iter::once(address));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::TokenText;

    fn shown(text: &str) -> Option<(char, String)> {
        let host: Host = text.parse().ok()?;
        let kind = match &host {
            Host::Named(_) => 'n',
            Host::Address(_) => 'a',
            Host::Resolved { .. } => 'r',
        };
        Some((kind, host.to_string()))
    }

    #[test]
    fn hosts_are_read_as_people_write_them() {
        for (text, kind, expected) in [
            ("office", 'n', "office"),
            ("localhost", 'r', "localhost:5273"),
            ("office.local", 'r', "office.local:5273"),
            ("build-box", 'r', "build-box:5273"),
            ("office:80", 'r', "office:80"),
            ("192.168.1.7", 'a', "192.168.1.7:5273"),
            ("192.168.1.7:80", 'a', "192.168.1.7:80"),
            ("::1", 'a', "[::1]:5273"),
            ("[::1]", 'a', "[::1]:5273"),
            ("[::1]:80", 'a', "[::1]:80"),
            ("http://office", 'r', "office:5273"),
            ("http://office.local:81/", 'r', "office.local:81"),
            ("https://127.0.0.1:4", 'a', "127.0.0.1:4"),
        ] {
            assert_eq!(shown(text), Some((kind, expected.to_owned())), "{text}");
            let again = shown(text).and_then(|(_, text)| shown(&text));
            assert_eq!(again, shown(text), "{text}");
        }
        for text in ["", "a b", "http://", "http://a/b", "a:b", "a:70000", "ftp://a", ":1", "büro"]
        {
            assert_eq!(shown(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_nearest_word_says_which_box() {
        let host = |text: &str| text.parse::<Host>().unwrap();
        let token = |device: u8| TokenText::new(DeviceId([device; 20]), [1; 32]);
        let mut config = ClientConfig::default();
        assert_eq!(Target::choose(None, &config, false), Target::OnlyOne);
        config.save_token(token(1), None);
        assert_eq!(Target::choose(None, &config, false), Target::OnlyOne);
        config.save_token(token(2), Some(host("saved")));
        assert_eq!(Target::choose(None, &config, false), Target::Named(host("saved")));
        assert_eq!(Target::choose(None, &config, true), Target::Here);
        config.save_token(token(3), Some(host("other")));
        assert_eq!(Target::choose(None, &config, false), Target::OnlyOne);
        config.host = Some(host("configured"));
        assert_eq!(Target::choose(None, &config, true), Target::Named(host("configured")));
        let said = Target::choose(Some(host("said")), &config, true);
        assert_eq!(said, Target::Named(host("said")));
    }

    #[test]
    fn the_substituter_is_where_others_find_it() {
        let host = |text: &str| Target::Named(text.parse().unwrap()).substituter_host("office");
        assert_eq!(host("10.0.0.1:80"), "10.0.0.1");
        assert_eq!(host("[::1]:80"), "[::1]");
        assert_eq!(host("nix.example.org"), "nix.example.org");
        assert_eq!(host("attic"), "office.local");
        assert_eq!(Target::Here.substituter_host("office"), "office.local");
    }

    fn found(name: &str, device: u8) -> FoundBox {
        FoundBox {
            name: name.parse().unwrap(),
            device_id: DeviceId([device; 20]),
            addresses: vec![SocketAddr::from(([192, 168, 1, device], 5273))],
            quic_port: 5273,
            http_port: 5273,
            version: String::new(),
            caches: Vec::new(),
        }
    }

    #[test]
    fn several_boxes_are_listed_not_guessed() {
        let one = only_one(vec![found("office", 1)], None).unwrap();
        assert_eq!(one, ["192.168.1.1:5273".parse().unwrap()]);
        let message = only_one(vec![found("office", 1), found("attic", 2)], None).unwrap_err();
        let message = message.to_string();
        assert!(message.contains("office  192.168.1.1:5273  04"), "{message}");
        assert!(message.contains("attic  192.168.1.2:5273"), "{message}");
        assert!(matches!(only_one(Vec::new(), None), Err(HostError::NoBox)));
        let named = only_one(Vec::new(), Some("office"));
        assert!(matches!(named, Err(HostError::NoSuchBox(name)) if name == "office"));
    }
}
