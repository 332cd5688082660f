//! Finds the boxes of this network.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use mdns_sd::{ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::formats::BoxName;
use crate::formats::CacheName;
use crate::transports::discovery::LARDER_TYPE;
use crate::transports::discovery::record::Record;
use crate::wire::device_id::DeviceId;

/// How long to look for boxes where nobody says otherwise.
pub const BROWSE_TIME_DEFAULT: Duration = Duration::from_secs(2);

/// A box as it announced itself. Nothing of this is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBox {
    /// What it calls itself; two boxes may have the same name.
    pub name: BoxName,
    /// Who it says it is.
    pub device_id: DeviceId,
    /// Where its QUIC port is, nearest to certain first: IPv4, IPv6, link-local IPv6 with the
    /// interface as its scope, loopback.
    pub addresses: Vec<SocketAddr>,
    /// UDP port of the push protocol.
    pub quic_port: u16,
    /// TCP port of the substituter.
    pub http_port: u16,
    /// Its version of larder, or nothing.
    pub version: String,
    /// Its public caches; those that found no room in the announcement are missing.
    pub caches: Vec<CacheName>,
}

/// Looks for boxes for at most `longest`; ends after 1.4 s if any answered by then and none came
/// in the last 400 ms. In order of their names.
///
/// It takes that long because a box that answered somebody else less than a second ago keeps
/// silent to the first question (RFC 6762, section 6) and is heard only when it is asked again,
/// a second later; and one box may be taken for the only one.
///
/// At most 64 boxes, of 16 addresses each. No network is no error: nothing is found there.
///
/// # Errors
///
/// What the operating system says when the mDNS thread cannot be started.
pub async fn browse(longest: Duration) -> Result<Vec<FoundBox>, BrowseError> {
    let daemon = ServiceDaemon::new()?;
    let events = daemon.browse(LARDER_TYPE)?;
    let started = Instant::now();
    let give_up = started + longest;
    let mut until = give_up;
    let mut found = BTreeMap::new();
    // An error means that the thread has ended, so nothing more will come.
    while let Ok(Ok(event)) = timeout_at(until, events.recv_async()).await {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                take(&mut found, &service);
            }
            ServiceEvent::ServiceRemoved(_, full_name) => {
                found.remove(&full_name);
            }
            _ => continue,
        }
        let settled = (Instant::now() + QUIET).max(started + ASKED_TWICE);
        until = if found.is_empty() { give_up } else { settled.min(give_up) };
    }
    // Fails if the thread has ended, which is what is wanted.
    let _ends_or_has_ended = daemon.shutdown();
    let mut found: Vec<_> = found.into_values().collect();
    found.sort_by(|a, b| (&a.name, a.device_id).cmp(&(&b.name, b.device_id)));
    Ok(found)
}

/// Why nobody could be looked for.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask the network for boxes")]
pub struct BrowseError(#[from] mdns_sd::Error);

/// An answer that comes later than this after the others is missed.
const QUIET: Duration = Duration::from_millis(400);
/// The question goes out after 20 to 120 ms and again a second later; answers take as long.
const ASKED_TWICE: Duration = Duration::from_millis(1400);
const BOXES_MAX: usize = 64;
const ADDRESSES_MAX: usize = 16;

fn take(found: &mut BTreeMap<String, FoundBox>, service: &ResolvedService) {
    let full_name = service.get_fullname();
    let Some(found_box) = found_box(service) else {
        debug!(full_name, "Not a box, or not one that we understand");
        return;
    };
    if found.len() < BOXES_MAX || found.contains_key(full_name) {
        found.insert(full_name.to_owned(), found_box);
    }
}

fn found_box(service: &ResolvedService) -> Option<FoundBox> {
    let record = Record::from_properties(&service.txt_properties)?;
    let quic_port = service.get_port();
    let mut addresses: Vec<_> = service
        .get_addresses()
        .iter()
        .map(|address| socket_address(address, quic_port))
        .filter(|address| !address.ip().is_unspecified() && !address.ip().is_multicast())
        .collect();
    addresses.sort_by_key(|address| (remoteness(address.ip()), *address));
    addresses.truncate(ADDRESSES_MAX);
    let Record { name, device_id, version, caches, http_port } = record;
    let complete = !addresses.is_empty();
    complete.then_some(FoundBox {
        name,
        device_id,
        addresses,
        quic_port,
        http_port,
        version,
        caches,
    })
}

fn socket_address(address: &ScopedIp, port: u16) -> SocketAddr {
    match address {
        ScopedIp::V6(address) if address.addr().is_unicast_link_local() => {
            SocketAddrV6::new(*address.addr(), port, 0, address.scope_id().index).into()
        }
        address => SocketAddr::new(address.to_ip_addr(), port),
    }
}

/// The order in which addresses are worth trying.
fn remoteness(address: IpAddr) -> u8 {
    match address {
        address if address.is_loopback() => 3,
        IpAddr::V4(_) => 0,
        IpAddr::V6(address) if address.is_unicast_link_local() => 2,
        IpAddr::V6(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use mdns_sd::ServiceInfo;

    use super::*;

    fn service(addresses: &str, properties: &[(&str, String)]) -> ResolvedService {
        ServiceInfo::new(LARDER_TYPE, "office", "office.local.", addresses, 5273, properties)
            .unwrap()
            .as_resolved_service()
    }

    fn properties() -> Vec<(&'static str, String)> {
        let record = Record {
            name: "office".parse().unwrap(),
            device_id: DeviceId([3; 20]),
            version: "1.0".to_owned(),
            caches: vec!["main".parse().unwrap()],
            http_port: 80,
        };
        record.to_properties()
    }

    #[test]
    fn addresses_are_worth_trying_in_their_order() {
        let service = service("::1,fe80::1,192.168.1.7,127.0.0.1,2001:db8::1", &properties());

        let found = found_box(&service).unwrap();

        let addresses: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(
            addresses,
            [
                "192.168.1.7:5273",
                "[2001:db8::1]:5273",
                "[fe80::1]:5273",
                "127.0.0.1:5273",
                "[::1]:5273"
            ]
        );
        assert_eq!((found.quic_port, found.http_port), (5273, 80));
        assert_eq!(found.device_id, DeviceId([3; 20]));
    }

    #[test]
    fn a_strangers_service_is_no_box() {
        assert_eq!(found_box(&service("192.168.1.7", &[])), None);
        assert_eq!(found_box(&service("0.0.0.0,224.0.0.251", &properties())), None);
    }

    #[test]
    fn a_flood_of_boxes_is_bounded() {
        let mut found = BTreeMap::new();
        for number in 0..2 * BOXES_MAX {
            let name = format!("office{number}");
            let service = ServiceInfo::new(
                LARDER_TYPE,
                &name,
                "office.local.",
                "192.168.1.7",
                5273,
                properties().as_slice(),
            );
            take(&mut found, &service.unwrap().as_resolved_service());
        }
        assert_eq!(found.len(), BOXES_MAX);
    }
}
