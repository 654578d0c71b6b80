//! Why a crowd could not be played, or not to its end.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Everything that stops a run. What buyers were refused is a result, not an error.
#[derive(Debug, thiserror::Error)]
pub enum CrowdError {
    /// The URL cannot be used.
    #[error("`{0}`: {1}")]
    Url(String, String),
    /// The guard.
    #[error(
        "{0} is not on this machine. A crowd is a flood of requests: point it only at a server \
         that is yours, and then say so with --i-own-this-server"
    )]
    NotLoopback(SocketAddr),
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Settings(String),
    /// A file.
    #[error("{path}: {1}", path = .0.display())]
    File(PathBuf, std::io::Error),
    /// The server refused or failed what the run needs beforehand.
    #[error("{0}")]
    Prepare(String),
    /// The operating system refused a thread, a socket or a signal handler.
    #[error("the system refuses: {0}")]
    System(#[from] std::io::Error),
    /// A thread of the generator ended in a panic.
    #[error("a thread of the crowd failed")]
    Thread,
}
