//! A listener: how many connections it takes, how it serves them, and how it stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::error::{BackendError, Result};
use crate::metrics::Metrics;

/// Open connections of one listener; further ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 4_096;
/// Connections that may wait to be accepted: an edge opens many at once when a sale does, and one that
/// does not fit waits a second for its next try. The system may allow fewer.
const BACKLOG: u32 = 4_096;
/// How long a request's header may take, and how long an idle connection is kept: longer than an
/// edge keeps it, so that the edge is the one who closes.
const HEADER_READ_MAX: Duration = Duration::from_secs(75);
const HEADERS_BYTES_MAX: usize = 32 << 10;
/// Pause after the system refused a connection, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listens at `address`; returns where that is, since port 0 lets the system choose.
pub(crate) fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listen = |source| BackendError::Listen { address, source };
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let socket = socket.map_err(listen)?;
    socket.set_reuseaddr(true).map_err(listen)?;
    socket.bind(address).map_err(listen)?;
    let listener = socket.listen(BACKLOG).map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    Ok((listener, bound))
}

/// Serves until `stop` says true, then finishes what is in flight; idle connections are closed.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    metrics: Metrics,
    mut stop: watch::Receiver<bool>,
) {
    let (places, graceful) = (
        Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        GracefulShutdown::new(),
    );
    let mut connections = JoinSet::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_MAX)
        .max_buf_size(HEADERS_BYTES_MAX);
    loop {
        let place = tokio::select! {
            // The semaphore is never closed.
            Ok(place) = Arc::clone(&places).acquire_owned() => place,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and written whole; without it the edge would wait for its own delay.
        let _without_delay = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        let open = Open::count(metrics.clone());
        connections.spawn(async move {
            let _held = (place, open);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// An open connection, counted.
struct Open(Metrics);

impl Open {
    fn count(metrics: Metrics) -> Self {
        metrics.connection_opened();
        Self(metrics)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connection_closed();
    }
}
