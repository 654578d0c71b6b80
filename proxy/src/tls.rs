//! Ends TLS on the public listener: certificate and key are read and checked here, so that a bad pair is
//! an error of starting and not a panic of the listener.

use std::fmt::Display;
use std::sync::Arc;

use lua_free_rules::config;
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

/// What it takes to end TLS.
#[derive(Debug)]
pub(crate) struct Tls {
    files: config::Tls,
    pair: Arc<Sole>,
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// If a file cannot be read, or certificate and key do not belong together.
    pub fn read(files: &config::Tls) -> Result<Self, ProxyError> {
        let certificates = CertificateDer::pem_file_iter(&files.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| failed(&files.certificate, &error))?;
        if certificates.is_empty() {
            return Err(failed(&files.certificate, &"it holds no certificate"));
        }
        let key = PrivateKeyDer::from_pem_file(&files.key);
        let key = key.map_err(|error| failed(&files.key, &error))?;
        let provider = rustls::crypto::ring::default_provider();
        let pair = CertifiedKey::from_der(certificates, key, &provider)
            .map_err(|error| failed(&files.key, &error))?;
        Ok(Self {
            files: files.clone(),
            pair: Arc::new(Sole(Arc::new(pair))),
        })
    }

    /// For one listener: HTTP/2 where the client offers it, else HTTP/1.1.
    ///
    /// # Errors
    /// If Pingora does not take them.
    pub fn settings(&self) -> Result<TlsSettings, ProxyError> {
        let Self { files, pair } = self;
        let mut settings = TlsSettings::intermediate(&files.certificate, &files.key)
            .map_err(|error| failed(&files.certificate, &error))?;
        settings.set_cert_resolver(pair.clone());
        settings.enable_h2();
        Ok(settings)
    }
}

fn failed(file: &str, reason: &dyn Display) -> ProxyError {
    ProxyError::Tls {
        file: file.to_owned(),
        reason: reason.to_string(),
    }
}
