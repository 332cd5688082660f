//! A client's connection to one box.

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::Endpoint;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::formats::limits::{SEND_RAW_BYTES_MAX, STREAM_IDLE_MAX};
use crate::formats::{AttachmentName, CacheName, StorePathHash};
use crate::transports::quic::connect::{self, ConnectError, ConnectOptions};
use crate::transports::quic::link::{Link, LinkError};
use crate::transports::quic::send::{self, ChunkSource};
use crate::transports::quic::stream::{MessageReader, MessageWriter, StreamError};
use crate::transports::quic::transport::CloseReason;
use crate::wire::hello::{Capabilities, Welcome};
use crate::wire::message::{
    AdminRequest, AdminResponse, BoxMessage, ClientMessage, Message, Offer, PushOutcome,
};
use crate::wire::missing;
use crate::wire::push::SenderError;
use crate::wire::{DeviceId, Refusal, Violation};

/// How long the last packet may take when a connection is closed.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// Why a box did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The box said no.
    #[error("the box refused")]
    Refused(#[source] Refusal),
    /// The connection broke, or the request was too long for a message.
    #[error("the request did not get through")]
    Stream(#[from] StreamError),
    /// The connection broke before the request went out.
    #[error("the connection to the box broke")]
    Lost(#[from] LinkError),
    /// The box said nothing for too long.
    #[error("the box was silent for {} s", STREAM_IDLE_MAX.as_secs())]
    TimedOut,
    /// The box answered with something that is no answer.
    #[error("the box broke the protocol")]
    Violation(#[from] Violation),
    /// What was to be pushed cannot be read on.
    #[error("{0}")]
    Source(String),
}

impl RequestError {
    /// What the box said, if it was the box that said no.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Refusal> {
        if let Self::Refused(refusal) = self { Some(refusal) } else { None }
    }

    /// Whether the same request may succeed on a new connection or a little later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.code.is_transient(),
            Self::Stream(StreamError::Framing(_)) | Self::Violation(_) | Self::Source(_) => false,
            Self::Stream(_) | Self::Lost(_) | Self::TimedOut => true,
        }
    }
}

impl From<SenderError> for RequestError {
    fn from(error: SenderError) -> Self {
        match error {
            SenderError::Refused(refusal) => Self::Refused(refusal),
            SenderError::Violation(violation) => Self::Violation(violation),
            SenderError::TimedOut => Self::TimedOut,
            SenderError::Source(reason) => Self::Source(reason),
        }
    }
}

/// A client's connection to one box, greeted. Cloning copies a pointer; when the last clone goes
/// the connection is closed.
#[derive(Clone, Debug)]
pub struct BoxConnection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// QUIC's socket; none for a connection by TLS.
    endpoint: Option<Endpoint>,
    link: Link,
    device_id: DeviceId,
    welcome: Welcome,
    _control: (MessageReader, MessageWriter),
    budget: send::Budget,
}

impl BoxConnection {
    /// Connects to the first of the addresses that answers as a box which one of the tokens is
    /// for, and greets it with that token.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; [`WrongDevice`](ConnectError::WrongDevice) if no address answered as
    /// an accepted box and at least one as another.
    pub async fn connect(options: ConnectOptions) -> Result<Self, ConnectError> {
        let greeted = connect::connect(options).await?;
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Self(Arc::new(Inner {
            endpoint: greeted.endpoint,
            link: greeted.link,
            device_id: greeted.device_id,
            welcome: greeted.welcome,
            _control: greeted.control,
            budget: send::Budget {
                raw_bytes: Arc::new(Semaphore::new(SEND_RAW_BYTES_MAX)),
                workers: Arc::new(Semaphore::new(processors)),
            },
        })))
    }

    /// The ID that the box proved.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        self.0.device_id
    }

    /// What the box said of itself and of the token.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.0.welcome
    }

    /// Which of these the cache lacks, in the order given; asks several questions if one would
    /// be too long.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn missing(
        &self,
        cache: &CacheName,
        hashes: &[StorePathHash],
    ) -> Result<Vec<StorePathHash>, RequestError> {
        let mut lacking = Vec::new();
        let at_once = usize::try_from(self.0.welcome.limits.missing_hashes).unwrap_or(1);
        for asked in hashes.chunks(at_once.max(1)) {
            let question = ClientMessage::Missing { cache: cache.clone(), hashes: asked.to_vec() };
            match self.ask(question).await? {
                BoxMessage::Missing { indexes } => lacking.extend(missing::pick(asked, &indexes)?),
                other => return Err(no_answer(&other)),
            }
        }
        Ok(lacking)
    }

    /// Pushes one path. Many may be under way at a time; beyond the box's number of streams and
    /// this connection's bounds on memory and processors they wait for each other.
    ///
    /// Dropping the future gives up; what the box took by then it keeps for a later push.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn push(
        &self,
        cache: &CacheName,
        offer: Offer,
        source: Box<dyn ChunkSource>,
    ) -> Result<PushOutcome, RequestError> {
        let (reader, writer) = self.open().await?;
        let sending = send::Sending {
            cache: cache.clone(),
            offer,
            source,
            limits: self.0.welcome.limits,
            budget: self.0.budget.clone(),
        };
        send::push(sending, reader, writer).await
    }

    /// Gives the box an attachment of a cache; false if it has one of that name, or cannot keep any.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn attach(
        &self,
        cache: &CacheName,
        name: AttachmentName,
        frame: Bytes,
    ) -> Result<bool, RequestError> {
        if !self.0.welcome.capabilities.has(Capabilities::ATTACHMENTS) {
            return Ok(false);
        }
        let attach = ClientMessage::Attach { cache: cache.clone(), name, frame };
        match self.ask(attach).await? {
            BoxMessage::Attached { is_new } => Ok(is_new),
            other => Err(no_answer(&other)),
        }
    }

    /// Asks the administration of the box; needs a personal token.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; what the administration itself refuses is an answer with its status.
    pub async fn admin(&self, request: AdminRequest) -> Result<AdminResponse, RequestError> {
        match self.ask(ClientMessage::Admin(request)).await? {
            BoxMessage::Admin(response) => Ok(response),
            other => Err(no_answer(&other)),
        }
    }

    /// Where the box is, if it was reached by TLS over TCP since QUIC stayed silent.
    #[must_use]
    pub fn by_tls(&self) -> Option<SocketAddr> {
        matches!(self.0.link, Link::Tls(_)).then(|| self.0.link.remote_address())
    }

    /// Bytes of UDP or TLS payload sent so far.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.0.link.sent_bytes()
    }

    /// Closes the connection, for all clones, and returns when the last packet is on its way.
    ///
    /// QUIC's closing period (RFC 9000, section 10.2) is not waited for: all that it brings is
    /// another last packet for a box that missed the first, and a box also lets go of who is
    /// silent.
    pub async fn close(self) {
        let (Link::Quic(connection), Some(endpoint)) = (&self.0.link, &self.0.endpoint) else {
            return self.0.link.close(CloseReason::Done).await;
        };
        let before = connection.stats().udp_tx.datagrams;
        self.0.link.close(CloseReason::Done).await;
        // Should something else have gone out in between, the box is left to notice the silence.
        let said = async {
            while connection.stats().udp_tx.datagrams == before {
                yield_now().await;
            }
        };
        // Where the box closed first nothing is said, and soon there is no connection.
        tokio::select! {
            () = said => {}
            _idle_or_late = timeout(FAREWELL_MAX, endpoint.wait_idle()) => {}
        }
    }

    async fn ask(&self, question: ClientMessage) -> Result<BoxMessage, RequestError> {
        let asked = async {
            let (mut reader, mut writer) = self.open().await?;
            // A box that refuses may stop reading; then its answer says more than our error.
            let sent = writer.send(&question).await;
            writer.finish();
            match reader.next().await? {
                Some(BoxMessage::Refused(refusal)) => Err(RequestError::Refused(refusal)),
                Some(answer) => Ok(answer),
                None => Err(sent.err().unwrap_or(StreamError::Cut).into()),
            }
        };
        timeout(STREAM_IDLE_MAX, asked).await.unwrap_or(Err(RequestError::TimedOut))
    }

    async fn open(&self) -> Result<(MessageReader, MessageWriter), RequestError> {
        let (send, recv) = self.0.link.open_bi().await?;
        Ok((MessageReader::unlimited(recv), MessageWriter::new(send)))
    }
}

fn no_answer(message: &BoxMessage) -> RequestError {
    Violation::OutOfTurn { message: message.name(), place: "as this answer" }.into()
}
