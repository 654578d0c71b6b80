//! Why the edge could not start. What goes wrong later is answered to the buyer as a refusal.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The edge could not start. For the operator.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A page cannot be read.
    #[error("cannot read the pages: {path}: {source}")]
    Pages {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Certificate or key are not usable.
    #[error("cannot end TLS with {file}: {reason}")]
    Tls {
        /// The PEM file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The system gives no threads to serve on.
    #[error("cannot start the threads that serve: {0}")]
    Threads(#[from] std::io::Error),
    /// The system gives no randomness.
    #[error("the system gives no randomness: {0}")]
    Random(#[from] getrandom::Error),
    /// The client for order servers cannot be built.
    #[error("cannot build the client for order servers: {0}")]
    Client(#[from] reqwest::Error),
    /// A metric cannot be registered.
    #[error("cannot register a metric: {0}")]
    Metrics(#[from] prometheus::Error),
}
