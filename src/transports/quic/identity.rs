//! Who a box is: an Ed25519 key, shown to TLS as a certificate of which only the key counts.
//!
//! The certificate is made anew at every start, signed by itself, and valid from 1970 to 9999; a
//! client looks at nothing in it but the public key, whose hash is the device ID. So nothing
//! about identity depends on a clock. PROTOCOL.md, "Identity".

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, ServerConfig,
    SignatureScheme, SupportedCipherSuite,
};

use crate::wire::DeviceId;
use crate::wire::hello::ALPN;

/// What TLS is told as the name of the server; nothing looks at it.
pub(in crate::transports) const SERVER_NAME: &str = "larder";

/// Why there is no identity or no TLS.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate could not be made.
    #[error("cannot make a certificate on the device key")]
    Certificate(#[from] rcgen::Error),
    /// TLS could not be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// TLS lacks the cipher that QUIC begins with.
    #[error("cannot set up QUIC on TLS")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
}

/// A box's key, ready for TLS.
#[derive(Debug)]
pub struct Identity {
    device_id: DeviceId,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    reset_key: hmac::Key,
}

impl Identity {
    /// The identity that grows from an Ed25519 seed.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Certificate`] if ring refuses the key; no seed is known for which it does.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, IdentityError> {
        let key = PrivatePkcs8KeyDer::from([&PKCS8_HEAD[..], &seed[..]].concat());
        let pair = KeyPair::try_from(&key)?;
        let mut parameters = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
        parameters.not_before = date_time_ymd(1970, 1, 1);
        parameters.not_after = date_time_ymd(9999, 12, 31);
        let certificate = parameters.self_signed(&pair)?.der().clone();
        let mut public_key = [0_u8; 32];
        for (to, from) in public_key.iter_mut().zip(pair.public_key_raw()) {
            *to = *from;
        }
        let reset_seed = blake3::derive_key("larder 2026 QUIC stateless reset", seed);
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &reset_seed);
        let device_id = DeviceId::of_public_key(&public_key);
        Ok(Self { device_id, certificate, key, reset_key })
    }

    /// The ID that clients pin.
    #[must_use]
    pub const fn device_id(&self) -> DeviceId {
        self.device_id
    }

    /// QUIC's settings that belong to the identity.
    ///
    /// A box that was started again does not know its old connections. It can still tell their
    /// clients so (RFC 9000, section 10.3), as the key for that comes from the seed; else each
    /// would wait until it thinks the box gone.
    ///
    /// # Errors
    ///
    /// [`IdentityError::NoRandom`].
    pub fn endpoint_config(&self) -> Result<EndpointConfig, IdentityError> {
        let mut start = [0_u8; 32];
        SystemRandom::new().fill(&mut start).map_err(|_unspecified| IdentityError::NoRandom)?;
        let mut config = EndpointConfig::new(Arc::new(self.reset_key.clone()));
        config.cid_generator(move || Box::new(ConnectionIds { start, count: 0 }));
        Ok(config)
    }

    /// The box's half of TLS for QUIC.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if TLS refuses the certificate.
    pub fn server_crypto(&self) -> Result<QuicServerConfig, IdentityError> {
        Ok(QuicServerConfig::try_from(self.pinned_tls()?)?)
    }

    /// The box's half of TLS for clients that pin it, over QUIC and TCP alike: version 1.3 only,
    /// ALPN `larder/1`, no early data, no resumption.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if TLS refuses the certificate.
    pub fn pinned_tls(&self) -> Result<ServerConfig, IdentityError> {
        let mut config = server_tls(self.certified_key()?)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// The certificate on the key, for TLS.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if TLS refuses the key.
    pub fn certified_key(&self) -> Result<Arc<CertifiedKey>, IdentityError> {
        let key = self.key.clone_key().into();
        let chain = vec![self.certificate.clone()];
        Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider())?))
    }
}

/// A box's half of TLS 1.3 with one certificate.
pub(in crate::transports) fn server_tls(
    key: Arc<CertifiedKey>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    // A client that can do both leaves the choice to a box that cannot do AES quickly.
    config.ignore_client_order = !has_aes_instructions();
    Ok(config)
}

/// Connection IDs that differ from those of every earlier start, and of which none is refused
/// unseen: an ID that nobody has is answered with a reset.
struct ConnectionIds {
    start: [u8; 32],
    count: u64,
}

const CONNECTION_ID_BYTES: usize = 8;

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.count = self.count.wrapping_add(1);
        let id = blake3::keyed_hash(&self.start, &self.count.to_le_bytes());
        let bytes = id.as_bytes().first_chunk::<CONNECTION_ID_BYTES>();
        ConnectionId::new(bytes.map_or(&[], |bytes| &bytes[..]))
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A PKCS#8 Ed25519 key up to its 32-byte seed (RFC 8410, section 7).
const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A SubjectPublicKeyInfo of Ed25519 up to its 32 bytes (RFC 8410, section 4).
const SPKI_HEAD: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Accepts a server by the ID of its key alone, and remembers whom it met.
#[derive(Debug)]
pub struct Pins {
    accepted: Vec<DeviceId>,
    met: Mutex<Option<DeviceId>>,
    provider: Arc<CryptoProvider>,
}

impl Pins {
    /// Accepts boxes with these IDs and no others.
    #[must_use]
    pub fn new(accepted: Vec<DeviceId>) -> Arc<Self> {
        Arc::new(Self { accepted, met: Mutex::new(None), provider: provider() })
    }

    /// The ID that the server showed, if it got so far; with a finished handshake it is proven.
    #[must_use]
    pub fn met(&self) -> Option<DeviceId> {
        *self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this box is accepted.
    #[must_use]
    pub fn accepts(&self, box_id: DeviceId) -> bool {
        self.accepted.contains(&box_id)
    }

    /// The client's half of TLS for QUIC.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if TLS cannot be set up.
    pub fn client_crypto(self: &Arc<Self>) -> Result<QuicClientConfig, IdentityError> {
        Ok(QuicClientConfig::try_from(self.client_tls()?)?)
    }

    /// The client's half of TLS.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if TLS cannot be set up.
    pub fn client_tls(self: &Arc<Self>) -> Result<Arc<ClientConfig>, IdentityError> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous();
        let builder: ConfigBuilder<ClientConfig, WantsClientCert> =
            builder.with_custom_certificate_verifier(Arc::<Self>::clone(self));
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would prove the key only through an earlier handshake.
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(Arc::new(config))
    }
}

impl ServerCertVerifier for Pins {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = public_key_of(end_entity).ok_or(CertificateError::BadEncoding)?;
        let id = DeviceId::of_public_key(&key);
        *self.met.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        if self.accepts(id) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// The Ed25519 key of a certificate; `None` for another kind of key or for no certificate.
fn public_key_of(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let info = parsed.subject_public_key_info();
    info.as_ref().strip_prefix(&SPKI_HEAD)?.try_into().ok()
}

/// ring's cryptography, with the ciphers in the order that this machine is quick at.
pub(in crate::transports) fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = cipher_suites(has_aes_instructions());
    Arc::new(provider)
}

fn cipher_suites(aes_is_quick: bool) -> Vec<SupportedCipherSuite> {
    let aes = [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384];
    let chacha = [TLS13_CHACHA20_POLY1305_SHA256];
    if aes_is_quick { [&aes[..], &chacha].concat() } else { [&chacha[..], &aes].concat() }
}

/// Whether AES runs in hardware. The processors of the Raspberry Pi 3 and 4 lack it.
fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_shows_the_key_that_the_seed_gives() {
        let identity = Identity::from_seed(&[7; 32]).unwrap();
        let key = public_key_of(&identity.certificate).unwrap();
        let by_dalek = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
        assert_eq!(&key, by_dalek.as_bytes());
        assert_eq!(identity.device_id(), DeviceId::of_public_key(&key));
        assert_eq!(identity.device_id(), Identity::from_seed(&[7; 32]).unwrap().device_id());
    }

    #[test]
    fn any_time_is_fine_but_another_key_is_not() {
        let identity = Identity::from_seed(&[7; 32]).unwrap();
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let verdict = |accepted: Vec<DeviceId>, seconds| {
            let pins = Pins::new(accepted);
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let verdict = pins.verify_server_cert(&identity.certificate, &[], &name, &[], now);
            assert_eq!(pins.met(), Some(identity.device_id()));
            verdict.is_ok()
        };
        for seconds in [0, 1, 4_000_000_000, 400_000_000_000] {
            assert!(verdict(vec![identity.device_id()], seconds), "{seconds}");
        }
        assert!(!verdict(vec![DeviceId([0; 20])], 1));
        assert!(!verdict(Vec::new(), 1));
    }

    #[test]
    fn what_is_no_ed25519_certificate_has_no_key() {
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let parameters = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
        let certificate = parameters.self_signed(&other).unwrap();
        assert_eq!(public_key_of(certificate.der()), None);
        assert_eq!(public_key_of(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn chacha_comes_first_without_aes_instructions() {
        assert_eq!(cipher_suites(false).first(), Some(&TLS13_CHACHA20_POLY1305_SHA256));
        assert_eq!(cipher_suites(true).last(), Some(&TLS13_CHACHA20_POLY1305_SHA256));
    }
}
