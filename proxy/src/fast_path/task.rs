//! A connection with a task of its own: one whose client is slow, that more came on than one request, that
//! Pingora is asked to serve, or that is encrypted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora::apps::ServerApp;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::lent::Lent;
use super::wait::Patience;
use super::wire::Message;
use super::{Begun, Deed, Ended, FastPath, Missing, Step, spare};
use crate::call::{Call, Moment};
use crate::client;

/// A body usually comes right behind its header. One that does not is left to Pingora, which waits for it, and
/// says so if it does not come.
const BODY_WITHIN: Duration = Duration::from_millis(100);
/// Room for what Pingora reads beside what it is given.
const READ_ON_BYTES: usize = 4 << 10;

/// What has come on a connection and is not answered.
pub(super) struct Heard {
    pub bytes: Vec<u8>,
    /// Since when the client may send the next request.
    pub since: Instant,
}

/// A connection that can be lent to Pingora.
trait Connection: AsyncRead + AsyncWrite + Unpin + Sized {
    fn lend(self, peer: Option<SocketAddr>) -> Stream;
    fn back(stream: Stream) -> Option<Self>;
}

impl Connection for Stream {
    fn lend(self, _peer: Option<SocketAddr>) -> Stream {
        self
    }

    fn back(stream: Stream) -> Option<Self> {
        Some(stream)
    }
}

impl Connection for TcpStream {
    fn lend(self, peer: Option<SocketAddr>) -> Stream {
        Lent::out(self, peer)
    }

    fn back(stream: Stream) -> Option<Self> {
        Lent::back(stream)
    }
}

/// Connections that Pingora has accepted, and decrypts.
#[async_trait]
impl ServerApp for FastPath {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let is_http_1 = matches!(stream.selected_alpn_proto(), None | Some(ALPN::H1));
        if self.enabled && is_http_1 {
            self.serve(stream, shutdown).await;
            None
        } else {
            self.front.process_new(stream, shutdown).await
        }
    }

    async fn cleanup(&self) {
        self.front.cleanup().await;
    }
}

impl FastPath {
    /// Serves a connection until its end.
    pub(super) async fn serve(&self, mut stream: Stream, shutdown: &ShutdownWatch) {
        let peer = client::peer(stream.get_socket_digest().as_deref());
        let mut patience = None;
        let mut heard = Heard {
            bytes: Vec::new(),
            since: Instant::now(),
        };
        loop {
            let next = self.serve_some(stream, &mut heard, None, &mut patience, peer, shutdown);
            match next.await {
                Some(next) => stream = next,
                None => return,
            }
        }
    }

    /// Serves a connection on which something has come, until nothing of that is unanswered. Gives it back if it
    /// goes on. `first` is what is to be done about the first request in `heard`, if that is known.
    pub(super) async fn serve_heard(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        heard: &mut Heard,
        first: Option<Step>,
        shutdown: &ShutdownWatch,
    ) -> Option<TcpStream> {
        let (peer, patience) = (Some(peer), &mut None);
        self.serve_some(stream, heard, first, patience, peer, shutdown)
            .await
    }

    async fn serve_some<C: Connection>(
        &self,
        mut connection: C,
        heard: &mut Heard,
        mut first: Option<Step>,
        patience: &mut Option<Patience>,
        peer: Option<SocketAddr>,
        shutdown: &ShutdownWatch,
    ) -> Option<C> {
        loop {
            let step = match first.take() {
                Some(step) => step,
                None => {
                    // Where nothing is waited for, none is needed.
                    let new = || Patience::new(self.idle_within, shutdown);
                    let patience = patience.get_or_insert_with(new);
                    self.next(&mut connection, heard, patience, peer).await?
                }
            };
            let deed = match step {
                Step::Now(deed) => deed,
                Step::Wait(begun, waiting) => Box::pin(self.wait(begun, waiting)).await,
            };
            connection = match deed {
                Deed::Send(begun, message) => self.send(connection, heard, begun, message).await?,
                Deed::HandOver(call) => {
                    let stream = connection.lend(peer);
                    let back = Box::pin(self.hand_over(stream, heard, call, shutdown)).await?;
                    C::back(back)?
                }
            };
            if heard.bytes.is_empty() {
                spare::give(std::mem::take(&mut heard.bytes));
                // While the edge closes, nobody else looks what has come meanwhile.
                if !*shutdown.borrow() {
                    return Some(connection);
                }
            }
            // Many requests may have come at once: other connections have their turn in between.
            tokio::task::consume_budget().await;
        }
    }

    /// Waits for the next request; `None` if none comes.
    async fn next(
        &self,
        connection: &mut impl Connection,
        heard: &mut Heard,
        patience: &mut Patience,
        peer: Option<SocketAddr>,
    ) -> Option<Step> {
        let peer = peer.map(|peer| peer.ip());
        patience.renew(heard.since, self.idle_within);
        let (mut has_begun, mut is_behind) = (false, false);
        loop {
            match self.step(&heard.bytes, peer, Moment::now(&self.edge)) {
                Ok(step) => return Some(step),
                // First idle, then slow.
                Err(Missing::Header) if !has_begun && !heard.bytes.is_empty() => {
                    has_begun = true;
                    patience.renew(Instant::now(), self.within);
                }
                Err(Missing::Body) if !is_behind => {
                    is_behind = true;
                    patience.renew(Instant::now(), BODY_WITHIN);
                }
                Err(Missing::Header | Missing::Body) => {}
            }
            if !patience.more(connection, &mut heard.bytes).await {
                return is_behind.then_some(Step::Now(Deed::HandOver(None)));
            }
        }
    }

    /// Answers the first request, and takes it off `heard`. Gives the connection back if it goes on.
    async fn send<C: Connection>(
        &self,
        mut connection: C,
        heard: &mut Heard,
        begun: Begun,
        mut message: Message,
    ) -> Option<C> {
        heard.bytes.drain(..begun.bytes);
        let sent = message.write(&mut connection, self.within).await;
        match self.settle(begun, &message, sent) {
            Ok(now) => {
                heard.since = now;
                Some(connection)
            }
            Err(Ended::Closed) => {
                // What cannot be told to the client in time is not told.
                let _ = timeout(self.within, connection.shutdown()).await;
                None
            }
            Err(Ended::Gone) => None,
        }
    }

    /// Hands everything that was read to Pingora. Gives the connection back if it goes on.
    async fn hand_over(
        &self,
        stream: Stream,
        heard: &mut Heard,
        call: Option<Call>,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let mut read = BytesMut::with_capacity(heard.bytes.len() + READ_ON_BYTES);
        read.extend_from_slice(&heard.bytes);
        spare::give(std::mem::take(&mut heard.bytes));
        let back = self.front.serve_one(stream, read, call, shutdown).await;
        heard.since = Instant::now();
        back
    }
}
