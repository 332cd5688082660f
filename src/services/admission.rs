//! Who may come in, and how often he may ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::services::pace::Pace;
use crate::services::turns::{Turn, Turns};

/// Where somebody comes from, as far as bounds tell one from another: an IPv4 address as its
/// mapped IPv6 one, or the first 64 bits of an IPv6 address, for whoever has one of those has
/// them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin(pub [u8; 16]);

impl Origin {
    /// Whoever asks without an address.
    pub const NOWHERE: Self = Self([0; 16]);
}

/// What a box grants to each address and token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionOptions {
    /// Requests of an address, and of a token, in a second; more wait their turn.
    pub requests_per_second: u32,
    /// HTTP connections at a time.
    pub http_connections: usize,
    /// Connections of the protocol at a time, QUIC and TLS each.
    pub quic_connections: usize,
    /// Connections of one address at a time, HTTP and QUIC each.
    pub connections_per_address: u32,
    /// Bodies of NARs and of files out of them that are sent by HTTP at a time. Those of one address
    /// have an eighth of them, those of this machine half as many beside.
    pub transfers: usize,
}

/// Transfers of which one address may have one at a time.
const TRANSFERS_PART: usize = 8;

/// Room to send a body; others wait for it until this is dropped.
#[derive(Debug)]
pub struct Transfer {
    _turn: Turn<Origin>,
}

/// Bounds what one address can take from the others; [`Auth`](crate::services::Auth) does it for
/// tokens.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: AdmissionOptions,
    requests: Pace<Origin>,
    http: Crowd,
    quic: Crowd,
    transfers: Turns<Origin>,
    near_transfers: Turns<Origin>,
}

impl Admission {
    pub(super) fn new(options: AdmissionOptions) -> Self {
        let transfers = options.transfers;
        Self(Arc::new(Inner {
            options,
            requests: Pace::per_second(options.requests_per_second),
            http: Crowd::new(options.connections_per_address),
            quic: Crowd::new(options.connections_per_address),
            transfers: Turns::bounded(transfers, (transfers / TRANSFERS_PART).max(1)),
            near_transfers: Turns::new((transfers / 2).max(1)),
        }))
    }

    /// HTTP connections at a time, all together.
    #[must_use]
    pub fn http_connections(&self) -> usize {
        self.0.options.http_connections
    }

    /// Connections of the protocol at a time, all together, QUIC and TLS each.
    #[must_use]
    pub fn quic_connections(&self) -> usize {
        self.0.options.quic_connections
    }

    /// Waits until a request from there has its turn.
    pub async fn request(&self, from: Origin) {
        self.0.requests.turn(from).await;
    }

    /// Waits until a body may be sent there; `None` is this machine. What is read ahead for who does
    /// not take it is bounded so, and who takes none leaves room to the others.
    pub async fn transfer(&self, to: Option<Origin>) -> Transfer {
        let _turn = match to {
            Some(origin) => self.0.transfers.take(origin, 1).await,
            None => self.0.near_transfers.take(Origin::NOWHERE, 1).await,
        };
        Transfer { _turn }
    }

    /// Takes up an HTTP connection, or `None` if there are enough from there.
    #[must_use]
    pub fn http_connection(&self, from: Origin) -> Option<Guest> {
        self.0.http.enter(from)
    }

    /// Takes up a QUIC connection, or `None` if there are enough from there.
    #[must_use]
    pub fn quic_connection(&self, from: Origin) -> Option<Guest> {
        self.0.quic.enter(from)
    }
}

/// Counts those who are there by where they come from; as many entries as there are guests.
#[derive(Debug)]
struct Crowd {
    each_max: u32,
    counts: Arc<Mutex<HashMap<Origin, u32>>>,
}

/// Somebody who is there until this is dropped.
#[derive(Debug)]
pub struct Guest {
    from: Origin,
    counts: Arc<Mutex<HashMap<Origin, u32>>>,
}

impl Crowd {
    fn new(each_max: u32) -> Self {
        Self { each_max, counts: Arc::default() }
    }

    fn enter(&self, from: Origin) -> Option<Guest> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&from).copied().unwrap_or(0);
        if count >= self.each_max {
            return None;
        }
        counts.insert(from, count + 1);
        Some(Guest { from, counts: Arc::clone(&self.counts) })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let left = counts.get(&self.from).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            counts.remove(&self.from);
        } else {
            counts.insert(self.from, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_no_more_than_its_share() {
        let crowd = Crowd::new(2);
        let (one, two) = (Origin([1; 16]), Origin([2; 16]));
        let first = crowd.enter(one).unwrap();
        let second = crowd.enter(one).unwrap();
        assert!(crowd.enter(one).is_none());
        assert!(crowd.enter(two).is_some());
        drop(first);
        assert!(crowd.enter(one).is_some());
        drop(second);
        assert!(crowd.counts.lock().unwrap().is_empty(), "who is gone is forgotten");
    }
}
