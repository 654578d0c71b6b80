//! A connection of the fast path's, lent to Pingora for a request.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufWriter, ReadBuf};
use tokio::net::TcpStream;

use crate::front::WRITTEN_AT_ONCE;

/// The connection.
#[derive(Debug)]
pub(super) struct Lent {
    /// `None` when it has been given back.
    stream: Option<BufWriter<TcpStream>>,
    /// Whether what is collected may be on its way in part.
    is_stuck: bool,
    id: UniqueIDType,
    socket: Arc<SocketDigest>,
}

impl Lent {
    /// Lends a connection with `peer`.
    pub fn out(stream: TcpStream, peer: Option<SocketAddr>) -> Stream {
        let id = stream.as_raw_fd();
        let socket = SocketDigest::from_raw_fd(id);
        // It has just been made: nobody has set anything before.
        let _ = socket.peer_addr.set(peer.map(Into::into));
        Box::new(Self {
            stream: Some(BufWriter::with_capacity(WRITTEN_AT_ONCE, stream)),
            is_stuck: false,
            id,
            socket: Arc::new(socket),
        })
    }

    /// What was lent; `None` if it is another one, or something of it was not written.
    pub fn back(stream: Stream) -> Option<TcpStream> {
        let mut lent = stream.into_any().downcast::<Self>().ok()?;
        let stream = lent.stream.take_if(|stream| stream.buffer().is_empty())?;
        Some(stream.into_inner())
    }

    /// Writes, by what `write` does.
    fn poll<T>(
        mut self: Pin<&mut Self>,
        write: impl FnOnce(Pin<&mut BufWriter<TcpStream>>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut stream = self.as_mut().stream()?;
        let written = write(stream.as_mut());
        let is_stuck = written.is_pending() && !stream.buffer().is_empty();
        self.is_stuck = is_stuck;
        written
    }

    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut BufWriter<TcpStream>>> {
        let stream = self.get_mut().stream.as_mut();
        stream
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// Pingora drops a connection whose answer breaks off, and counts on this to write what it has collected.
impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream
            && !self.is_stuck
        {
            // What cannot be written at once is not.
            let _ = stream.get_ref().try_write(stream.buffer());
        }
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(context, space)
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write_vectored(context, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[async_trait]
impl Shutdown for Lent {
    async fn shutdown(&mut self) {
        // A client that is gone needs no telling.
        if let Some(stream) = &mut self.stream {
            let _ = stream.shutdown().await;
        }
    }
}

impl UniqueID for Lent {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl GetSocketDigest for Lent {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket.clone())
    }
}

impl GetTimingDigest for Lent {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Lent {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl Ssl for Lent {}

impl Peek for Lent {}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// A connection that is lent, and its other end.
    async fn lent() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, peer) = accepted.unwrap();
        (Lent::out(stream, Some(peer)), client.unwrap())
    }

    #[tokio::test]
    async fn it_comes_back_when_all_is_written() {
        let (mut stream, mut client) = lent().await;
        let peer = stream.get_socket_digest().unwrap().peer_addr().cloned();
        let peer = peer.unwrap().as_inet().copied().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        stream.write_all(b"answer").await.unwrap();
        stream.flush().await.unwrap();
        let mut back = Lent::back(stream).unwrap();
        back.write_all(b", and another").await.unwrap();
        drop(back);
        let mut read = String::new();
        client.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "answer, and another");
    }

    #[tokio::test]
    async fn what_was_collected_is_written_when_it_is_dropped() {
        let (mut stream, mut client) = lent().await;
        stream.write_all(b"half an ans").await.unwrap();
        assert!(Lent::back(stream).is_none());
        let mut read = String::new();
        client.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "half an ans");
    }
}
