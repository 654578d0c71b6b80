//! Ends TLS on the public listener: certificate and key are read and checked here, so that a bad pair is
//! an error of starting and not a panic of the listener.

use std::sync::Arc;

use lua_free_rules::config::Tls;
use pingora::listeners::tls::TlsSettings;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::error::ProxyError;

/// The one certificate of this listener.
#[derive(Debug)]
struct Sole(Arc<CertifiedKey>);

impl ResolvesServerCert for Sole {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// The listener's TLS: HTTP/2 where the client offers it, else HTTP/1.1.
///
/// # Errors
/// If a file cannot be read, or certificate and key do not belong together.
pub(crate) fn settings(tls: &Tls) -> Result<TlsSettings, ProxyError> {
    let failed = |file: &str, reason: String| ProxyError::Tls {
        file: file.to_owned(),
        reason,
    };
    let certificates = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(&tls.certificate, error.to_string()))?;
    if certificates.is_empty() {
        let reason = "it holds no certificate".to_owned();
        return Err(failed(&tls.certificate, reason));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|error| failed(&tls.key, error.to_string()))?;
    let provider = rustls::crypto::ring::default_provider();
    let pair = CertifiedKey::from_der(certificates, key, &provider)
        .map_err(|error| failed(&tls.key, error.to_string()))?;
    let mut settings = TlsSettings::intermediate(&tls.certificate, &tls.key)
        .map_err(|error| failed(&tls.certificate, error.to_string()))?;
    settings.set_cert_resolver(Arc::new(Sole(Arc::new(pair))));
    settings.enable_h2();
    Ok(settings)
}
