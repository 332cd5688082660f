//! Says on the network that this box is here, and goodbye when it stops.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use mdns_sd::{DaemonEvent, IfKind, Receiver, ServiceDaemon, ServiceInfo};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::formats::BoxName;
use crate::formats::CacheName;
use crate::transports::discovery::record::Record;
use crate::transports::discovery::{BINARY_CACHE_TYPE, LARDER_TYPE};
use crate::wire::device_id::DeviceId;

/// What a box announces; the caches come by a channel, for they change.
#[derive(Clone, Debug)]
pub struct AnnounceOptions {
    /// The name of the box; its addresses are announced as `{name}.local`.
    pub name: BoxName,
    /// The name of the machine, as `gethostname` tells it.
    pub machine_name: String,
    /// Who the box is.
    pub device_id: DeviceId,
    /// The address that both ports are bound to; `0.0.0.0` or `::` stands for all.
    pub listen: IpAddr,
    /// UDP port of the push protocol.
    pub quic_port: u16,
    /// TCP port of the substituter.
    pub http_port: u16,
}

/// Announces the box until `stop` fires, then says goodbye, which takes at most a second.
///
/// The names are answered by a thread of the mDNS library, on every interface that can multicast;
/// addresses that come and go are followed within five seconds, and `public_caches` at once. A
/// failure is logged and tried again with pauses of up to a minute, so a machine without a
/// network costs nothing. A box that listens on loopback alone is not announced.
///
/// A name that another machine has already is changed by the library as RFC 6762, section 9,
/// says (`office-2.local`), and logged; the name inside the TXT record and the device ID stay.
pub async fn serve(
    options: AnnounceOptions,
    mut public_caches: watch::Receiver<Vec<CacheName>>,
    stop: CancellationToken,
) {
    if options.listen.is_loopback() {
        info!("Not announced on the network: the box listens on loopback only");
        stop.cancelled().await;
        return;
    }
    let mut pause = RETRY_PAUSE_FIRST;
    while let Err(error) = announce(&options, &mut public_caches, &stop).await {
        warn!(%error, "Cannot announce the box on the network; trying again in {pause:?}");
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => pause = (pause * 2).min(RETRY_PAUSE_MAX),
        }
    }
}

const RETRY_PAUSE_FIRST: Duration = Duration::from_secs(2);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Characters of the longer of our service types, without its underscore. RFC 6335 allows 15;
/// `nix_binary_cache` is what other tools use.
const TYPE_LEN_MAX: u8 = 16;

/// Where avahi, if it runs, takes requests.
const AVAHI_SOCKET: &str = "/run/avahi-daemon/socket";

async fn announce(
    options: &AnnounceOptions,
    public_caches: &mut watch::Receiver<Vec<CacheName>>,
    stop: &CancellationToken,
) -> Result<(), mdns_sd::Error> {
    let responder = Responder::start()?;
    let mut caches_may_change = true;
    responder.register(options, &public_caches.borrow_and_update())?;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            changed = public_caches.changed(), if caches_may_change => {
                caches_may_change = changed.is_ok();
                responder.register(options, &public_caches.borrow_and_update())?;
            }
            event = responder.events.recv_async() => {
                report(event.map_err(|_| mdns_sd::Error::DaemonShutdown)?);
            }
        }
    }
    responder.say_goodbye().await;
    Ok(())
}

/// The library's thread. It ends, with a goodbye, when this is dropped.
struct Responder {
    daemon: ServiceDaemon,
    events: Receiver<DaemonEvent>,
}

impl Responder {
    fn start() -> Result<Self, mdns_sd::Error> {
        let daemon = ServiceDaemon::new()?;
        let events = daemon.monitor()?;
        daemon.set_service_name_len_max(TYPE_LEN_MAX)?;
        Ok(Self { daemon, events })
    }

    /// Announces both services, or announces them anew with what has changed.
    fn register(
        &self,
        options: &AnnounceOptions,
        caches: &[CacheName],
    ) -> Result<(), mdns_sd::Error> {
        let avahi_runs = Path::new(AVAHI_SOCKET).exists();
        let host = host_name(&options.name, &options.machine_name, avahi_runs);
        let record = Record {
            name: options.name.clone(),
            device_id: options.device_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            caches: caches.to_vec(),
            http_port: options.http_port,
        };
        let properties = record.to_properties();
        for (kind, port) in
            [(LARDER_TYPE, options.quic_port), (BINARY_CACHE_TYPE, options.http_port)]
        {
            let name = options.name.as_str();
            let mut service = ServiceInfo::new(kind, name, &host, (), port, properties.as_slice())?
                .enable_addr_auto();
            if !options.listen.is_unspecified() {
                service.set_interfaces(vec![IfKind::Addr(options.listen)]);
            }
            self.daemon.register(service)?;
        }
        Ok(())
    }

    async fn say_goodbye(self) {
        if let Ok(ended) = self.daemon.shutdown() {
            // Whether the thread told in time or not, the box stops.
            let _in_time = timeout(GOODBYE_MAX, ended.recv_async()).await;
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        // Fails if the thread has ended, which is what is wanted.
        let _ends_or_has_ended = self.daemon.shutdown();
    }
}

/// The name that addresses are announced under.
///
/// Where avahi answers for the machine's own name, a second responder with other records for it
/// would make avahi rename the machine; so a box of that name leaves it to avahi, which has the
/// same addresses, and points its services to a name that no box can have.
fn host_name(name: &BoxName, machine_name: &str, avahi_runs: bool) -> String {
    let machine_label = machine_name.split('.').next().unwrap_or_default();
    if avahi_runs && machine_label.eq_ignore_ascii_case(name.as_str()) {
        format!("{name}-larder.local.")
    } else {
        format!("{name}.local.")
    }
}

fn report(event: DaemonEvent) {
    match event {
        DaemonEvent::NameChange(change) => warn!(
            interface = change.intf_name,
            "Another machine has the name {}; announced as {}", change.original, change.new_name
        ),
        DaemonEvent::Error(error) => warn!(%error, "Announcing the box met an error"),
        DaemonEvent::IpAdd(address) => info!(%address, "Announcing a new address"),
        DaemonEvent::IpDel(address) => info!(%address, "An address is gone"),
        event => debug!(?event, "Announcing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_name_is_left_to_avahi() {
        let name: BoxName = "office".parse().unwrap();
        for (machine, avahi_runs, expected) in [
            ("office", false, "office.local."),
            ("office", true, "office-larder.local."),
            ("Office.example.org", true, "office-larder.local."),
            ("nas", true, "office.local."),
        ] {
            assert_eq!(host_name(&name, machine, avahi_runs), expected, "{machine} {avahi_runs}");
        }
    }

    #[tokio::test]
    async fn a_box_on_loopback_announces_nothing_and_stops_when_told() {
        let (_caches, changes) = watch::channel(Vec::new());
        let stop = CancellationToken::new();
        let options = AnnounceOptions {
            name: "office".parse().unwrap(),
            machine_name: "office".to_owned(),
            device_id: DeviceId([1; 20]),
            listen: IpAddr::from([127, 0, 0, 1]),
            quic_port: 1,
            http_port: 1,
        };
        let announcing = serve(options, changes, stop.clone());
        stop.cancel();
        timeout(Duration::from_secs(10), announcing).await.expect("it stops");
    }
}
