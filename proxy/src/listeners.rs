//! Listening sockets: one for each thread at the same address, so that the system spreads new connections over
//! the threads, and none of them wakes the others for a connection that it takes.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::net::sockopt::{set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

/// Connections that may wait to be accepted; the system may allow fewer (`net.core.somaxconn`).
pub(crate) const BACKLOG: i32 = 65_535;

/// Opens so many at `address`, of which port 0 lets the system choose.
///
/// # Errors
/// If something listens there already, even with leave to share; or if the system does not give them.
pub(crate) fn open(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let first = socket(address)?;
    set_socket_reuseaddr(&first, true)?;
    // The first one takes the address for itself alone. Only then is it shared: with sockets of the same user that
    // ask to share it before they bind, as no edge's first one does.
    bind(&first, &address)?;
    listen(&first, BACKLOG)?;
    set_socket_reuseport(&first, true)?;
    let first = TcpListener::from(first);
    let address = first.local_addr()?;
    let another = |_| {
        let another = socket(address)?;
        set_socket_reuseaddr(&another, true)?;
        set_socket_reuseport(&another, true)?;
        bind(&another, &address)?;
        listen(&another, BACKLOG)?;
        Ok(another.into())
    };
    let others = (1..count).map(another).collect::<io::Result<Vec<_>>>()?;
    Ok([first].into_iter().chain(others).collect())
}

fn socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn they_share_what_comes_and_nobody_else_gets_any() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = open(any, 4).unwrap();
        let address = listeners[0].local_addr().unwrap();
        for taken in [open(address, 1), open(address, 2)] {
            assert_eq!(taken.unwrap_err().kind(), ErrorKind::AddrInUse);
        }
        let clients: Vec<_> = (0..64)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let accepted = listeners.iter().map(|listener| {
            assert_eq!(listener.local_addr().unwrap(), address);
            std::iter::from_fn(|| listener.accept().ok()).count()
        });
        let accepted: Vec<_> = accepted.collect();
        assert_eq!(accepted.iter().sum::<usize>(), clients.len());
        // That one of four has none of 64 happens once in 25 million times.
        assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
        drop(listeners);
        open(address, 2).unwrap();
    }
}
