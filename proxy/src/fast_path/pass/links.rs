//! Connections to order servers that wait for their next order. Each thread has its own, so that a connection
//! and who uses it wait at the same place.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio::time::{Instant, interval};

use crate::forward::POOLED_FOR;

/// Most that a thread keeps, whatever may be in flight.
const KEPT_MAX: usize = 4_096;

/// The connections.
#[derive(Debug)]
pub(crate) struct Links {
    /// Those that have waited longest first.
    idle: Mutex<VecDeque<Idle>>,
    /// Most that are kept; then the one that has waited longest goes.
    max: usize,
}

#[derive(Debug)]
struct Idle {
    address: SocketAddr,
    link: TcpStream,
    since: Instant,
}

impl Links {
    /// Keeps at most `max` connections: as many as there may be orders in flight.
    pub fn new(max: usize) -> Self {
        Self {
            idle: Mutex::default(),
            max: max.min(KEPT_MAX),
        }
    }

    /// A connection that is open and on which nothing has come unasked.
    pub fn take(&self, address: SocketAddr) -> Option<TcpStream> {
        let mut idle = self.lock();
        loop {
            let last = idle.iter().rposition(|idle| idle.address == address)?;
            let Idle { link, since, .. } = idle.remove(last)?;
            if since.elapsed() < POOLED_FOR && is_quiet(&link) {
                return Some(link);
            }
        }
    }

    /// Keeps a connection on which nothing is owed.
    pub fn keep(&self, address: SocketAddr, link: TcpStream) {
        let mut idle = self.lock();
        if idle.len() >= self.max {
            idle.pop_front();
        }
        idle.push_back(Idle {
            address,
            link,
            since: Instant::now(),
        });
    }

    /// Closes all to that order server: one of them was found dead, and others may be.
    pub fn forget(&self, address: SocketAddr) {
        self.lock().retain(|idle| idle.address != address);
    }

    /// Closes those that have waited too long, until the task is dropped.
    pub async fn expire(&self) {
        let mut ticks = interval(POOLED_FOR);
        loop {
            let now = ticks.tick().await;
            let mut idle = self.lock();
            while idle
                .pop_front_if(|idle| now.duration_since(idle.since) >= POOLED_FOR)
                .is_some()
            {}
        }
    }

    /// Nothing is half done in here, so a panic elsewhere leaves nothing to repair.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_quiet(link: &TcpStream) -> bool {
    matches!(link.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let address = listener.local_addr().unwrap();
        let (link, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (link.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn the_last_is_taken_first_unless_something_has_come_on_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let links = Links::new(KEPT_MAX);
        assert!(links.take(address).is_none());
        let mut others = Vec::new();
        let mut ports = Vec::new();
        for number in 0..4 {
            let (link, mut other) = pair(&listener).await;
            ports.push(link.local_addr().unwrap());
            if number == 2 {
                let unasked = b"HTTP/1.1 408 Request Timeout\r\n";
                other.write_all(unasked).await.unwrap();
            }
            if number == 3 {
                drop(other);
            } else {
                others.push(other);
            }
            if number >= 2 {
                // What has come is noticed.
                link.readable().await.unwrap();
            }
            links.keep(address, link);
        }
        let elsewhere = SocketAddr::from(([127, 0, 0, 1], 1));
        assert!(links.take(elsewhere).is_none());
        let taken = || links.take(address).map(|link| link.local_addr().unwrap());
        assert_eq!(
            [taken(), taken(), taken()],
            [Some(ports[1]), Some(ports[0]), None]
        );
    }

    #[tokio::test]
    async fn there_are_never_too_many() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let links = Links::new(5);
        let mut others = Vec::new();
        for _ in 0..8 {
            let (link, other) = pair(&listener).await;
            links.keep(listener.local_addr().unwrap(), link);
            others.push(other);
        }
        assert_eq!(links.lock().len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_waited_too_long_are_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (link, _other) = pair(&listener).await;
        let links = std::sync::Arc::new(Links::new(KEPT_MAX));
        links.keep(listener.local_addr().unwrap(), link);
        let expiring = tokio::spawn({
            let links = links.clone();
            async move { links.expire().await }
        });
        tokio::time::sleep(POOLED_FOR / 2).await;
        assert_eq!(links.lock().len(), 1);
        tokio::time::sleep(POOLED_FOR * 2).await;
        assert_eq!(links.lock().len(), 0);
        expiring.abort();
    }
}
