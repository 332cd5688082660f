//! Getting to know a box: who answers, whether that is known to be the one that is meant, and what
//! it says of its caches.
//!
//! A key that Nix will trust is taken from a box alone that is *known*: by the device ID that a
//! person said, by a token that carries it, or since somebody confirmed it before. Whoever else
//! answers, found by mDNS or behind an address, may be anybody.

use std::net::SocketAddr;

use ring::rand::{SecureRandom, SystemRandom};

use crate::client::box_client::{AGENT, ReachError};
use crate::client::config::ClientConfig;
use crate::client::host::Target;
use crate::transports::quic::{ConnectError, look, meet};
use crate::wire::hello::Welcome;
use crate::wire::{DeviceId, TokenText};

/// Whom to accept, and what to show.
#[derive(Clone, Debug)]
pub struct Asker<'a> {
    /// Which box is meant.
    pub target: &'a Target,
    /// The ID that a person said it has.
    pub said: Option<DeviceId>,
    /// What was saved, above all who was confirmed.
    pub config: &'a ClientConfig,
    /// Tokens at hand; each is shown to its own box alone.
    pub tokens: &'a [TokenText],
    /// Whether one of the tokens was given for this very command, so that no other box is meant.
    pub is_token_given: bool,
}

/// A box that was asked.
#[derive(Clone, Debug)]
pub struct Acquaintance {
    /// Where it answered.
    pub address: SocketAddr,
    /// The ID that it proved.
    pub device_id: DeviceId,
    /// Whether that is known to be the box that is meant.
    pub is_known: bool,
    /// The token that it was shown.
    pub token: Option<TokenText>,
    /// What it said.
    pub welcome: Welcome,
}

impl Asker<'_> {
    /// Finds the box and asks it. `device_seed` matters to a token that is for one device.
    ///
    /// # Errors
    ///
    /// [`ReachError`]; above all that another box answers than the one that is known.
    pub async fn ask(&self, device_seed: Option<[u8; 32]>) -> Result<Acquaintance, ReachError> {
        let (addresses, device_id, is_known) = match self.expected() {
            Some(expected) => (self.target.addresses_of(expected).await?, expected, true),
            None => {
                let addresses = self.target.addresses().await?;
                let (address, found) = meet(&addresses).await?;
                let is_known = self.knows(found);
                self.check_stranger(address, found, is_known)?;
                (vec![address], found, is_known)
            }
        };
        let token = self.tokens.iter().find(|token| token.device_id() == device_id);
        let seed = device_seed.map_or_else(throwaway_seed, Ok)?;
        let asked = look(&addresses, device_id, token, &seed, AGENT.to_owned()).await;
        let (address, welcome) = asked?;
        Ok(Acquaintance { address, device_id, is_known, token: token.cloned(), welcome })
    }

    /// The only box that is meant, if that is known beforehand.
    fn expected(&self) -> Option<DeviceId> {
        let given = self.tokens.first().filter(|_| self.is_token_given).map(TokenText::device_id);
        let Target::Named(host) = self.target else { return self.said.or(given) };
        let saved = || {
            let tokens = self.config.tokens.values();
            let mut here = tokens.filter(|saved| saved.host.as_ref() == Some(host));
            here.next().map(|saved| saved.token.device_id()).filter(|_only| here.next().is_none())
        };
        self.said.or_else(|| self.config.paired(host)).or(given).or_else(saved)
    }

    fn knows(&self, found: DeviceId) -> bool {
        self.tokens.iter().any(|token| token.device_id() == found)
            || self.config.boxes.values().any(|paired| *paired == found)
    }

    /// The box whose data folder is here is the one whose token lies in it, and no other.
    fn check_stranger(
        &self,
        address: SocketAddr,
        found: DeviceId,
        is_known: bool,
    ) -> Result<(), ConnectError> {
        if is_known || *self.target != Target::Here || self.tokens.is_empty() {
            return Ok(());
        }
        let expected = self.tokens.iter().map(TokenText::device_id).collect();
        Err(ConnectError::WrongDevice { address, expected, found })
    }
}

/// A device key for one question: without a token nobody asks who we are.
fn throwaway_seed() -> Result<[u8; 32], ConnectError> {
    let mut seed = [0; 32];
    let random = SystemRandom::new().fill(&mut seed);
    random.map_err(|_unspecified| std::io::Error::other("the system gives no random bytes"))?;
    Ok(seed)
}
