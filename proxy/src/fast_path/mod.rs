//! The fast path: answers what the edge answers by itself straight on the connection, without a session of
//! Pingora's, and leaves everything else to Pingora.
//!
//! | file | what is in it |
//! |---|---|
//! | `mod` | a connection, request by request |
//! | `head` | which requests it takes on: those that can be read in one way only |
//! | `wait` | how long it waits for bytes |
//! | `wire` | an answer as bytes |
//! | `spare` | buffers between two requests |
//!
//! Nothing is decided here. What is answered, what is counted and what is written to the log is the gate's
//! and the access log's, as it is on Pingora's way; a request goes one way or the other with the same
//! outcome. A request is handed over whole, with everything that was read after it, and a connection comes
//! back only when Pingora says that nothing of the request is left on it.

mod head;
mod spare;
mod wait;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use http::Method;
use pingora::apps::ServerApp;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;
use tokio::time::timeout;

use crate::access_log::{self, Sent};
use crate::answer::Answer;
use crate::call::{Call, GONE};
use crate::client;
use crate::edge::Edge;
use crate::front::Front;
use crate::gate::{self, Decision};
use crate::routes::Route;
use head::{Plain, Reading};

/// A header that is longer is left to Pingora, which has the last word on its size.
const HEARD_MAX: usize = 8 << 10;
/// Room for what Pingora reads beside what it is given.
const READ_ON_BYTES: usize = 4 << 10;

/// The application behind the listener.
pub(crate) struct FastPath {
    edge: Arc<Edge>,
    front: Arc<Front>,
    enabled: bool,
    /// How long a connection may idle.
    idle_within: Duration,
    /// How long the rest of a header may take, and how long the client may take to read the answer.
    within: Duration,
}

/// What is to be done next on a connection.
enum Step {
    /// Wait for more bytes.
    Read,
    /// The first request needs something that is not at hand.
    Ask(Call, &'static Route),
    Serve(Way),
}

/// Which way the first request goes.
enum Way {
    Answer(Decided),
    /// Pingora is to serve it. Without a call, nothing of it was decided.
    HandOver(Option<Call>),
}

/// The answer to the first request.
struct Decided {
    call: Call,
    answer: Answer,
    method: Method,
    /// How many bytes the request had.
    bytes: usize,
    keep: bool,
}

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
    pub fn new(edge: Arc<Edge>, front: Front) -> Self {
        let limits = &edge.config.limits;
        Self {
            enabled: edge.config.fast_path,
            idle_within: limits.idle_timeout.duration(),
            within: limits.read_timeout.duration(),
            front: Arc::new(front),
            edge,
        }
    }

    /// Serves a connection, one request after the other, until its end.
    async fn serve(&self, mut stream: Stream, shutdown: &ShutdownWatch) {
        let peer = client::peer(stream.get_socket_digest().as_deref());
        let mut patience = wait::patience(self.idle_within, shutdown);
        let mut heard = Vec::new();
        let mut has_begun = false;
        loop {
            let way = match self.step(&heard, peer) {
                Step::Serve(way) => way,
                Step::Ask(call, route) => Box::pin(self.ask(&heard, call, route)).await,
                Step::Read => {
                    // First idle, then slow.
                    if !has_begun && !heard.is_empty() {
                        has_begun = true;
                        patience.renew(self.within);
                    }
                    if !patience.more(&mut stream, &mut heard).await {
                        return;
                    }
                    continue;
                }
            };
            let back = match way {
                Way::Answer(decided) => self.answer(stream, &mut heard, decided).await,
                Way::HandOver(call) => self.hand_over(stream, &mut heard, call, shutdown).await,
            };
            match back {
                Some(back) => stream = back,
                None => return,
            }
            has_begun = false;
            patience.renew(self.idle_within);
            if heard.is_empty() {
                spare::give(std::mem::take(&mut heard));
            } else {
                // Many requests may have come at once: other connections have their turn in between.
                tokio::task::consume_budget().await;
            }
        }
    }

    /// What is to be done about the first request in `heard`. Nothing is counted before it is certain
    /// that the request can be read in one way only.
    fn step(&self, heard: &[u8], peer: Option<IpAddr>) -> Step {
        let mut space = head::space();
        let body_max = self.edge.config.limits.body_max.0;
        let plain = match head::read(heard, &mut space) {
            Reading::Plain(plain) if plain.body.len() <= body_max => plain,
            Reading::Partial if heard.len() < HEARD_MAX => return Step::Read,
            _ => return Step::Serve(Way::HandOver(None)),
        };
        let request = &plain.request;
        let mut call = Call::new(self.edge.in_flight.enter());
        let route = match call.arrive(gate::arrive(&self.edge, request, peer)) {
            Ok(route) => route,
            Err(answer) => return Step::Serve(plain.settle(call, Decision::Answer(answer))),
        };
        let body = Some(plain.body);
        match gate::decide_at_once(&self.edge, request, body, route, call.client) {
            Some(decision) => Step::Serve(plain.settle(call, decision)),
            None => Step::Ask(call, route),
        }
    }

    /// Decides what could not be decided at once. The request is read anew, so that a connection that
    /// asks for nothing does not hold the room for it.
    async fn ask(&self, heard: &[u8], call: Call, route: &'static Route) -> Way {
        let mut space = head::space();
        let Reading::Plain(plain) = head::read(heard, &mut space) else {
            return Way::HandOver(None);
        };
        let (request, body) = (&plain.request, Some(plain.body));
        let decision = gate::decide(&self.edge, request, body, route, call.client).await;
        plain.settle(call, decision)
    }

    /// Answers the first request, and takes it off `heard`. Gives the connection back if it goes on.
    async fn answer(
        &self,
        mut stream: Stream,
        heard: &mut Vec<u8>,
        decided: Decided,
    ) -> Option<Stream> {
        let Decided {
            mut call,
            answer,
            method,
            bytes,
            keep,
        } = decided;
        let keep = keep && !self.edge.in_flight.is_draining();
        let sent = wire::send(&mut stream, &answer, &method, keep, self.within).await;
        call.outcome = if sent.is_ok() { answer.outcome } else { GONE };
        let told = Sent {
            status: answer.status.as_u16(),
            body_bytes: sent.as_ref().copied().unwrap_or_default(),
        };
        let error = sent.as_ref().err().map(|error| error as &dyn Display);
        access_log::record(&self.edge, &call, &method, &told, error);
        drop(call);
        if sent.is_err() {
            return None;
        }
        if keep {
            heard.drain(..bytes);
            return Some(stream);
        }
        // What cannot be told to the client in time is not told.
        let _ = timeout(self.within, stream.shutdown()).await;
        None
    }

    /// Hands everything that was read to Pingora. Gives the connection back if it goes on.
    async fn hand_over(
        &self,
        stream: Stream,
        heard: &mut Vec<u8>,
        call: Option<Call>,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let mut read = BytesMut::with_capacity(heard.len() + READ_ON_BYTES);
        read.extend_from_slice(heard);
        spare::give(std::mem::take(heard));
        Box::pin(self.front.serve_one(stream, read, call, shutdown)).await
    }
}

impl Plain<'_> {
    fn settle(&self, mut call: Call, decision: Decision) -> Way {
        match decision {
            Decision::Forward => {
                call.passed = true;
                Way::HandOver(Some(call))
            }
            Decision::Answer(answer) => Way::Answer(Decided {
                call,
                answer,
                method: self.request.method.clone(),
                bytes: self.bytes,
                keep: self.keep,
            }),
        }
    }
}
