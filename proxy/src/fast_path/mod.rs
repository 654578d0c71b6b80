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
use std::io;
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
use crate::gate::{self, Decision, Errand};
use head::Reading;
use wait::Patience;

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

/// What is to be done about the first request on a connection.
enum Step {
    Answer(Begun, Answer),
    /// Answer, once there is what it takes.
    Ask(Begun, Errand),
    /// Let Pingora serve it. Without a call, nothing of it was decided.
    HandOver(Option<Call>),
}

/// The first request, of which only the answer is missing.
struct Begun {
    call: Call,
    method: Method,
    /// How many bytes it had.
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
        while let Some(step) = self
            .next(&mut stream, &mut heard, &mut patience, peer)
            .await
        {
            let back = match step {
                Step::Answer(begun, answer) => self.answer(stream, &mut heard, begun, answer).await,
                Step::Ask(begun, errand) => {
                    Box::pin(self.ask(stream, &mut heard, begun, errand)).await
                }
                Step::HandOver(call) => {
                    Box::pin(self.hand_over(stream, &mut heard, call, shutdown)).await
                }
            };
            match back {
                Some(back) => stream = back,
                None => return,
            }
            if heard.is_empty() {
                spare::give(std::mem::take(&mut heard));
            } else {
                // Many requests may have come at once: other connections have their turn in between.
                tokio::task::consume_budget().await;
            }
        }
    }

    /// Waits for the next request; `None` if none comes.
    async fn next<S: Future<Output = ()>>(
        &self,
        stream: &mut Stream,
        heard: &mut Vec<u8>,
        patience: &mut Patience<S>,
        peer: Option<IpAddr>,
    ) -> Option<Step> {
        patience.renew(self.idle_within);
        let mut has_begun = false;
        loop {
            if let Some(step) = self.step(heard, peer) {
                return Some(step);
            }
            // First idle, then slow.
            if !has_begun && !heard.is_empty() {
                has_begun = true;
                patience.renew(self.within);
            }
            if !patience.more(stream, heard).await {
                return None;
            }
        }
    }

    /// What is to be done about the first request in `heard`; `None` if it is not whole yet. Nothing is
    /// counted before it is certain that the request can be read in one way only.
    fn step(&self, heard: &[u8], peer: Option<IpAddr>) -> Option<Step> {
        let mut space = head::space();
        let body_max = self.edge.config.limits.body_max.0;
        let plain = match head::read(heard, &mut space) {
            Reading::Plain(plain) if plain.body.len() <= body_max => plain,
            Reading::Partial if heard.len() < HEARD_MAX => return None,
            _ => return Some(Step::HandOver(None)),
        };
        let request = &plain.request;
        let mut call = Call::new(self.edge.in_flight.enter());
        let decision = match call.arrive(gate::arrive(&self.edge, request, peer)) {
            Ok(route) => gate::decide(&self.edge, request, Some(plain.body), route, call.client),
            Err(answer) => Decision::Answer(answer),
        };
        let begun = |call| Begun {
            call,
            method: request.method.clone(),
            bytes: plain.bytes,
            keep: plain.keep,
        };
        Some(match decision {
            Decision::Answer(answer) => Step::Answer(begun(call), answer),
            Decision::Ask(errand) => Step::Ask(begun(call), errand),
            Decision::Forward => {
                call.passed = true;
                Step::HandOver(Some(call))
            }
        })
    }

    async fn ask(
        &self,
        stream: Stream,
        heard: &mut Vec<u8>,
        begun: Begun,
        errand: Errand,
    ) -> Option<Stream> {
        let answer = errand.run(&self.edge).await;
        self.answer(stream, heard, begun, answer).await
    }

    /// Answers the first request, and takes it off `heard`. Gives the connection back if it goes on.
    async fn answer(
        &self,
        mut stream: Stream,
        heard: &mut Vec<u8>,
        mut begun: Begun,
        answer: Answer,
    ) -> Option<Stream> {
        let keep = begun.keep && !self.edge.in_flight.is_draining();
        let sent = wire::send(&mut stream, &answer, &begun.method, keep, self.within).await;
        self.note(&mut begun, &answer, &sent);
        heard.drain(..begun.bytes);
        drop(begun);
        if sent.is_ok() && keep {
            return Some(stream);
        }
        if sent.is_ok() {
            // What cannot be told to the client in time is not told.
            let _ = timeout(self.within, stream.shutdown()).await;
        }
        None
    }

    fn note(&self, begun: &mut Begun, answer: &Answer, sent: &io::Result<usize>) {
        begun.call.outcome = if sent.is_ok() { answer.outcome } else { GONE };
        let told = Sent {
            status: answer.status.as_u16(),
            body_bytes: sent.as_ref().copied().unwrap_or_default(),
        };
        let error = sent.as_ref().err().map(|error| error as &dyn Display);
        access_log::record(&self.edge, &begun.call, &begun.method, &told, error);
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
        self.front.serve_one(stream, read, call, shutdown).await
    }
}
