//! PROTOCOL.md's transport: QUIC to a box with a certain device ID, and messages on streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::{Signature, VerifyingKey};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig, WriteError,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tokio::time::timeout;

use crate::stranger::nar_path::sha256;
use crate::stranger::postcard::Reader;

/// As long as a box may be silent when it is its turn.
const ANSWER_MAX: Duration = Duration::from_secs(120);
const PING_EVERY: Duration = Duration::from_secs(15);
const ID_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// What stands before the 32 bytes of an Ed25519 key in an X.509 certificate (RFC 8410).
const KEY_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// The text of a device ID, without hyphens.
fn device_id(key: &[u8; 32]) -> String {
    let hash = sha256(key);
    let bit = |place: usize| hash[place / 8] >> (7 - place % 8) & 1;
    let digit = |place: usize| (0..5).fold(0, |value, next| value << 1 | bit(place * 5 + next));
    (0..32).map(|place| char::from(ID_ALPHABET[usize::from(digit(place))])).collect()
}

/// Looks at the certificate's key and at nothing else of it.
#[derive(Debug)]
struct Pin(String);

fn key_of(certificate: &CertificateDer) -> Result<[u8; 32], Error> {
    let certificate = webpki::EndEntityCert::try_from(certificate)
        .map_err(|error| Error::General(error.to_string()))?;
    let key = certificate.subject_public_key_info();
    let key = key.strip_prefix(&KEY_PREFIX).and_then(|key| key.try_into().ok());
    key.ok_or_else(|| Error::General("not an Ed25519 key".to_owned()))
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer,
        _intermediates: &[CertificateDer],
        _name: &ServerName,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let met = device_id(&key_of(certificate)?);
        if met == self.0 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General(format!("the box is {met} and not {}", self.0)))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has TLS 1.3 alone".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let wrong = |_| Error::General("the handshake is not signed by that key".to_owned());
        let key = VerifyingKey::from_bytes(&key_of(certificate)?).map_err(wrong)?;
        let signature = Signature::from_slice(signed.signature()).map_err(wrong)?;
        key.verify_strict(message, &signature).map_err(wrong)?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Connects to the box with this ID; hyphens in it do not count.
pub(super) async fn connect(address: SocketAddr, id: &str) -> (Endpoint, Connection) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pin(id.replace('-', ""))))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"larder/1".to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(PING_EVERY));
    transport.max_idle_timeout(Some(ANSWER_MAX.try_into().unwrap()));
    transport.max_concurrent_uni_streams(0_u8.into()).max_concurrent_bidi_streams(0_u8.into());
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let connecting = endpoint.connect_with(config, address, "box").unwrap();
    let connection = timeout(ANSWER_MAX, connecting).await.unwrap().unwrap();
    (endpoint, connection)
}

/// One stream. Dropping it ends the half that we write.
pub(super) struct Stream {
    send: SendStream,
    recv: RecvStream,
}

impl Stream {
    pub(super) async fn open(connection: &Connection) -> Self {
        let (send, recv) = connection.open_bi().await.unwrap();
        Self { send, recv }
    }

    pub(super) async fn say(&mut self, message: &[u8]) {
        let length = u32::try_from(message.len()).unwrap().to_le_bytes();
        for bytes in [&length[..], message] {
            match timeout(ANSWER_MAX, self.send.write_all(bytes)).await.unwrap() {
                // Who has answered already need not read on; the answer is there to be heard.
                Ok(()) | Err(WriteError::Stopped(_)) => {}
                Err(broken) => panic!("{broken}"),
            }
        }
    }

    /// Checks that the box has ended its half.
    pub(super) async fn assert_over(&mut self) {
        let more = timeout(ANSWER_MAX, self.recv.read_chunk(1, true)).await.unwrap().unwrap();
        assert!(more.is_none());
    }

    /// The code of the refusal that must come now, with a sentence and nothing behind it.
    pub(super) async fn refusal(&mut self) -> u64 {
        let answer = self.hear().await;
        let Answer::Refused { code, sentence } = answer else { panic!("{answer:?}") };
        assert!(!sentence.is_empty());
        self.assert_over().await;
        code
    }

    /// The next message of the box.
    pub(super) async fn hear(&mut self) -> Answer {
        let mut length = [0; 4];
        timeout(ANSWER_MAX, self.recv.read_exact(&mut length)).await.unwrap().unwrap();
        let length = u32::from_le_bytes(length);
        assert!(length <= 1_048_576);
        let mut message = vec![0; usize::try_from(length).unwrap()];
        timeout(ANSWER_MAX, self.recv.read_exact(&mut message)).await.unwrap().unwrap();
        Answer::read(&message)
    }
}

/// A cache as Welcome tells of it.
#[derive(Debug)]
pub(super) struct CacheAccess {
    pub(super) name: String,
    pub(super) may_write: bool,
    pub(super) public_keys: Vec<String>,
}

/// What of the box's messages a client that pushes must know.
#[derive(Debug)]
pub(super) enum Answer {
    Refused { code: u64, sentence: String },
    Welcome { protocol: u64, caches: Vec<CacheAccess>, inline_nar_bytes: u64, http_port: u64 },
    Missing { indexes: Vec<u64> },
    Need { batch: u64, indexes: Vec<u64> },
    Taken { batch: u64 },
    Done { outcome: Outcome },
}

#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Stored,
    Known,
    Hidden { missing: Vec<String> },
    KeptFirst,
}

impl Answer {
    fn read(message: &[u8]) -> Self {
        let mut reader = Reader::new(message);
        let answer = match reader.number() {
            0 => Self::Refused { code: reader.number(), sentence: reader.text() },
            // What may stand behind the last field of Welcome is passed over.
            1 => return Self::read_welcome(&mut reader),
            2 => Self::Missing { indexes: reader.list(Reader::number) },
            3 => Self::Need { batch: reader.number(), indexes: reader.list(Reader::number) },
            4 => Self::Taken { batch: reader.number() },
            5 => Self::Done { outcome: Outcome::read(&mut reader) },
            other => panic!("message {other} answers nothing that was asked"),
        };
        reader.end();
        answer
    }

    fn read_welcome(reader: &mut Reader) -> Self {
        let protocol = reader.number();
        let (_box_name, _personal) = (reader.text(), reader.truth());
        let caches = reader.list(CacheAccess::read);
        let (_missing_hashes, inline_nar_bytes) = (reader.number(), reader.number());
        let _batches_in_flight = reader.number();
        let http_port = reader.number();
        let _capabilities = reader.number();
        Self::Welcome { protocol, caches, inline_nar_bytes, http_port }
    }
}

impl CacheAccess {
    fn read(reader: &mut Reader) -> Self {
        let (name, _may_read, may_write) = (reader.text(), reader.truth(), reader.truth());
        let _signing = reader.number();
        let public_keys = reader.list(Reader::text);
        let _is_public = reader.truth();
        Self { name, may_write, public_keys }
    }
}

impl Outcome {
    fn read(reader: &mut Reader) -> Self {
        match reader.number() {
            0 => Self::Stored,
            1 => Self::Known,
            2 => Self::Hidden { missing: reader.list(Reader::text) },
            3 => Self::KeptFirst,
            other => panic!("{other} is no outcome"),
        }
    }
}
