//! The crowd's keep-alive connections: opened as they are needed up to a bound, kept, and handed out
//! in the order in which they were asked for.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::http::{Connection, HttpFault, Request, Response};

/// Opens connections.
pub trait Dial {
    /// What they run over.
    type Stream: AsyncRead + AsyncWrite + Unpin;

    /// Opens one.
    fn dial(&self) -> impl Future<Output = io::Result<Self::Stream>>;
}

/// Opens TCP connections to one address.
#[derive(Debug, Clone, Copy)]
pub struct Tcp(pub SocketAddr);

impl Dial for Tcp {
    type Stream = TcpStream;

    async fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.0).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Whether to stay for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// Read it.
    ForAnswer,
    /// Send, then cut the connection.
    HangUp,
}

/// A bounded set of connections to one server.
pub struct Pool<D: Dial> {
    dialer: D,
    host: String,
    idle: RefCell<Vec<Connection<D::Stream>>>,
    permits: Semaphore,
}

impl<D: Dial> Pool<D> {
    /// At most `connections` at a time.
    pub fn new(dialer: D, host: &str, connections: usize) -> Self {
        let permits = Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS));
        Self {
            dialer,
            host: host.to_owned(),
            idle: RefCell::new(Vec::new()),
            permits,
        }
    }

    /// Sends a request and reads its answer, waiting for a free connection first. `sent` is set to
    /// the moment before the first byte is written: whatever happens later, and even if this is
    /// dropped half-way, it tells whether the request may have arrived. No answer when hanging up.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub async fn exchange(
        &self,
        request: &Request,
        stay: Stay,
        sent: &Cell<Option<Instant>>,
    ) -> Result<Option<Response>, HttpFault> {
        // The semaphore is never closed.
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|_| HttpFault::Closed)?;
        let mut connection = self.connection().await?;
        sent.set(Some(Instant::now()));
        connection.send(&request.encode(&self.host)).await?;
        if stay == Stay::HangUp {
            return Ok(None);
        }
        let response = connection.receive().await?;
        self.idle.borrow_mut().push(connection);
        Ok(Some(response))
    }

    async fn connection(&self) -> Result<Connection<D::Stream>, HttpFault> {
        loop {
            // The guard must not be held while the connection is looked at.
            let idle = self.idle.borrow_mut().pop();
            let Some(mut connection) = idle else { break };
            if connection.is_usable().await {
                return Ok(connection);
            }
        }
        self.dialer
            .dial()
            .await
            .map(Connection::new)
            .map_err(HttpFault::Connect)
    }
}
