//! The way to a box: which one, with which token, as whom.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::client::host::{HostError, Target};
use crate::transports::quic::{BoxConnection, ConnectError, ConnectOptions};
use crate::wire::TokenText;

/// What a box is told of this program.
pub const AGENT: &str = concat!("larder ", env!("CARGO_PKG_VERSION"));

/// Everything that is needed to connect, as often as it takes.
#[derive(Clone, Debug)]
pub struct Connector {
    /// The box that is meant. Its addresses are looked up anew each time, for a laptop moves.
    pub target: Target,
    /// Tokens at hand; each is shown to its own box alone.
    pub tokens: Vec<TokenText>,
    /// Seed of this user's device key.
    pub device_seed: [u8; 32],
    /// Hears once if UDP does not get through.
    pub notice: Notice,
}

/// Tells people once that connections go another way than they should.
#[derive(Clone)]
pub struct Notice {
    say: Arc<dyn Fn(&str) + Send + Sync>,
    was_said: Arc<AtomicBool>,
}

impl Notice {
    /// A notice by way of `say`, which gets a sentence.
    #[must_use]
    pub fn new(say: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { say: Arc::new(say), was_said: Arc::default() }
    }

    fn of_connection(&self, connection: &BoxConnection) {
        let Some(address) = connection.by_tls() else { return };
        if !self.was_said.swap(true, Ordering::Relaxed) {
            (self.say)(&format!("UDP to {address} is blocked; using TLS over TCP"));
        }
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notice")
    }
}

/// Why the box is not reached.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// It was not found.
    #[error(transparent)]
    Host(#[from] HostError),
    /// It was not connected to, or refused.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl ReachError {
    /// Whether the same may succeed later without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Host(HostError::Several(_)) => false,
            Self::Host(_) => true,
            Self::Connect(ConnectError::Unreachable { .. } | ConnectError::Greeting(_)) => true,
            Self::Connect(ConnectError::Refused(refusal)) => refusal.code.is_transient(),
            Self::Connect(_) => false,
        }
    }
}

impl Connector {
    /// Finds the box, connects, and greets.
    ///
    /// # Errors
    ///
    /// [`ReachError`].
    pub async fn connect(&self) -> Result<BoxConnection, ReachError> {
        let options = ConnectOptions {
            addresses: self.target.addresses().await?,
            tokens: self.tokens.clone(),
            device_seed: self.device_seed,
            agent: AGENT.to_owned(),
        };
        let connection = BoxConnection::connect(options).await?;
        self.notice.of_connection(&connection);
        Ok(connection)
    }
}
