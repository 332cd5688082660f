//! A certificate chain and its key, from two PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};

use crate::services::UnixSeconds;
use crate::transports::quic::identity;
use crate::transports::tls::acceptor::https;
use crate::transports::tls::certificate_files::CertificatePaths;
use crate::transports::tls::validity::Validity;

/// Why files are no certificate. Each says which file.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} holds no certificate in PEM form", path.display())]
    NoCertificate { path: PathBuf },
    #[error(
        "{} holds no private key in PEM form; one with a passphrase cannot be used",
        path.display()
    )]
    NoKey { path: PathBuf },
    #[error("{} is not well-formed PEM: {source}", path.display())]
    Malformed { path: PathBuf, source: pem::Error },
    #[error("the key in {} is not the one of the certificate in {}", key.display(), certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("TLS cannot use the certificate in {} with its key: {source}", path.display())]
    Unusable { path: PathBuf, source: rustls::Error },
}

/// A certificate that can be shown.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub(super) config: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
    validity: Option<Validity>,
}

impl Certificate {
    /// Reads both files. Blocks.
    pub(super) fn read(paths: &CertificatePaths) -> Result<Self, CertificateError> {
        let CertificatePaths { certificate: path, key: key_path } = paths;
        let chain = read_chain(path)?;
        let Some(leaf) = chain.first().cloned() else {
            return Err(CertificateError::NoCertificate { path: path.clone() });
        };
        let key = read_key(key_path)?;
        let unusable = |source| CertificateError::Unusable { path: path.clone(), source };
        let key = CertifiedKey::from_der(chain, key, &identity::provider());
        let key = key.map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                CertificateError::Mismatch { certificate: path.clone(), key: key_path.clone() }
            }
            source => unusable(source),
        })?;
        let config = identity::server_tls(Arc::new(key)).map_err(unusable)?;
        let validity = Validity::of_certificate(&leaf);
        Ok(Self { config: https(config), leaf, validity })
    }

    /// What is wrong with it at this time, by the box's clock, if anything.
    pub(super) fn problem(&self, path: &Path, now: UnixSeconds) -> Option<String> {
        const DAY: u64 = 86_400;
        let validity = self.validity?;
        if now > validity.not_after {
            let days = (now - validity.not_after) / DAY;
            return Some(format!("the certificate in {} expired {days} days ago", path.display()));
        }
        (now < validity.not_before).then(|| {
            let path = path.display();
            format!("the certificate in {path} is not valid yet, if the box's clock is right")
        })
    }

    /// Whether it is for this host name.
    pub(super) fn is_for(&self, host: &str) -> bool {
        let Ok(name) = ServerName::try_from(host) else { return false };
        webpki::EndEntityCert::try_from(&self.leaf)
            .is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(&name).is_ok())
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    chain.map_err(|error| of_pem(error, path))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => CertificateError::NoKey { path: path.to_owned() },
        other => of_pem(other, path),
    })
}

fn of_pem(error: pem::Error, path: &Path) -> CertificateError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => CertificateError::Read { path, source },
        source => CertificateError::Malformed { path, source },
    }
}
