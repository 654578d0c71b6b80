//! The fast path: answers what the edge answers by itself straight on the connection, passes orders on, both
//! without a session of Pingora's, and leaves everything else to Pingora.
//!
//! | file | what is in it |
//! |---|---|
//! | `mod` | a connection, request by request |
//! | `head` | which requests it takes on: those that can be read in one way only |
//! | `wait` | how long it waits for bytes |
//! | `wire`, `date` | an answer as bytes |
//! | `pass` | orders that go on to an order server |
//! | `spare` | buffers between two requests |
//!
//! Nothing is decided here. What is answered, what is counted and what is written to the log is the gate's
//! and the access log's, as it is on Pingora's way; a request goes one way or the other with the same
//! outcome. A request is handed over whole, with everything that was read after it, and a connection comes
//! back only when Pingora says that nothing of the request is left on it.

mod date;
mod head;
mod pass;
mod spare;
mod wait;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::BytesMut;
use http::Method;
use lua_free_rules::refusal::Refusal;
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
use crate::request::Header;
use crate::routes::Kind;
use head::{Plain, Reading};
use pass::{Answered, Links, Outcome};
use wait::Patience;

/// A header that is longer is left to Pingora, which has the last word on its size.
const HEARD_MAX: usize = 8 << 10;
/// A body usually comes right behind its header. One that does not is left to Pingora, which waits for it, and
/// says so if it does not come.
const BODY_WITHIN: Duration = Duration::from_millis(100);
/// Room for what Pingora reads beside what it is given.
const READ_ON_BYTES: usize = 4 << 10;

/// The application behind the listener.
pub(crate) struct FastPath {
    edge: Arc<Edge>,
    front: Arc<Front>,
    links: Arc<Links>,
    enabled: bool,
    /// How long a connection may idle.
    idle_within: Duration,
    /// How long the rest of a header may take, and how long the client may take to read the answer.
    within: Duration,
}

/// What has come on a connection and is not answered.
struct Heard {
    bytes: Vec<u8>,
    /// Since when the client may send the next request.
    since: Instant,
}

/// What of the first request has not come yet.
enum Missing {
    Header,
    Body,
}

/// What is to be done about the first request on a connection.
enum Step {
    Answer(Begun, Answer),
    /// Answer, once there is what it takes.
    Ask(Begun, Errand),
    /// Send these bytes to an order server, and answer what it answers.
    Pass(Begun, Vec<u8>),
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
        let in_flight_max = usize::try_from(limits.in_flight_max).unwrap_or(usize::MAX);
        let links_max = in_flight_max.saturating_mul(edge.upstreams.all().len());
        Self {
            enabled: edge.config.fast_path,
            idle_within: limits.idle_timeout.duration(),
            within: limits.read_timeout.duration(),
            front: Arc::new(front),
            links: Arc::new(Links::new(links_max)),
            edge,
        }
    }

    /// The connections that it keeps to order servers.
    pub fn links(&self) -> Arc<Links> {
        self.links.clone()
    }

    /// Serves a connection, one request after the other, until its end.
    async fn serve(&self, mut stream: Stream, shutdown: &ShutdownWatch) {
        let peer = client::peer(stream.get_socket_digest().as_deref());
        let mut patience = wait::patience(self.idle_within, shutdown);
        let mut heard = Heard {
            bytes: Vec::new(),
            since: Instant::now(),
        };
        while let Some(step) = self
            .next(&mut stream, &mut heard, &mut patience, peer)
            .await
        {
            let back = match step {
                Step::Answer(begun, answer) => {
                    let at = begun.call.started;
                    self.answer(stream, &mut heard, begun, answer, at).await
                }
                Step::Ask(begun, errand) => {
                    Box::pin(self.ask(stream, &mut heard, begun, errand)).await
                }
                Step::Pass(begun, request) => {
                    Box::pin(self.pass(stream, &mut heard, begun, request, shutdown)).await
                }
                Step::HandOver(call) => {
                    Box::pin(self.hand_over(stream, &mut heard, call, shutdown)).await
                }
            };
            match back {
                Some(back) => stream = back,
                None => return,
            }
            if heard.bytes.is_empty() {
                spare::give(std::mem::take(&mut heard.bytes));
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
        heard: &mut Heard,
        patience: &mut Patience<S>,
        peer: Option<IpAddr>,
    ) -> Option<Step> {
        patience.renew(heard.since, self.idle_within);
        let (mut has_begun, mut is_behind) = (false, false);
        loop {
            match self.step(&heard.bytes, peer) {
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
            if !patience.more(stream, &mut heard.bytes).await {
                return is_behind.then_some(Step::HandOver(None));
            }
        }
    }

    /// What is to be done about the first request in `heard`. Nothing is counted before it is whole, and
    /// certain that it can be read in one way only.
    fn step(&self, heard: &[u8], peer: Option<IpAddr>) -> Result<Step, Missing> {
        let mut space = head::space();
        let body_max = self.edge.config.limits.body_max.0;
        let plain = match head::read(heard, &mut space) {
            Reading::Plain(plain) if plain.body.len() <= body_max => plain,
            Reading::Partial if heard.len() < HEARD_MAX => return Err(Missing::Header),
            Reading::Behind(body_bytes) if body_bytes <= body_max => return Err(Missing::Body),
            _ => return Ok(Step::HandOver(None)),
        };
        let request = &plain.request;
        let mut call = Call::new(&self.edge);
        let decision = match call.arrive(gate::arrive(&self.edge, request, peer, call.now)) {
            Ok(route) => gate::decide(&self.edge, &call, request, Some(plain.body), route),
            Err(answer) => Decision::Answer(answer),
        };
        let begun = |call| Begun {
            call,
            method: request.method.clone(),
            bytes: plain.bytes,
            keep: plain.keep,
        };
        Ok(match decision {
            Decision::Answer(answer) => Step::Answer(begun(call), answer),
            Decision::Ask(errand) => Step::Ask(begun(call), errand),
            Decision::Forward => {
                call.passed = true;
                match self.onward(&call, &plain) {
                    Some(request) => Step::Pass(begun(call), request),
                    None => Step::HandOver(Some(call)),
                }
            }
        })
    }

    /// The request as it goes on to an order server, if it does so from here: the busy ones do.
    fn onward(&self, call: &Call, plain: &Plain<'_>) -> Option<Vec<u8>> {
        match plain.request.header {
            Header::Lines(lines) if call.kind == Some(Kind::Order) => {
                pass::write_request(&self.edge, call, &plain.request, lines, plain.body).ok()
            }
            _ => None,
        }
    }

    async fn ask(
        &self,
        stream: Stream,
        heard: &mut Heard,
        begun: Begun,
        errand: Errand,
    ) -> Option<Stream> {
        let answer = errand.run(&self.edge).await;
        self.answer(stream, heard, begun, answer, Instant::now())
            .await
    }

    /// Answers the first request, and takes it off `heard`. Gives the connection back if it goes on.
    async fn answer(
        &self,
        mut stream: Stream,
        heard: &mut Heard,
        mut begun: Begun,
        answer: Answer,
        at: Instant,
    ) -> Option<Stream> {
        let keep = begun.keep && !self.edge.in_flight.is_draining();
        let sent = wire::send(&mut stream, &answer, &begun.method, (keep, at), self.within).await;
        heard.since = self.note(&mut begun, answer.status.as_u16(), answer.outcome, &sent);
        self.finish(stream, heard, begun, sent.is_ok(), keep).await
    }

    /// Passes the first request on. Gives the connection back if it goes on.
    async fn pass(
        &self,
        mut stream: Stream,
        heard: &mut Heard,
        mut begun: Begun,
        request: Vec<u8>,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let keep = begun.keep;
        let keep = || keep && !self.edge.in_flight.is_draining();
        let outcome = pass::carry(&self.edge, &self.links, &mut begun.call, &request, keep).await;
        spare::give(request);
        let answered = match outcome {
            Outcome::Answered(answered) => answered,
            Outcome::Unusual => {
                begun.call.lease = None;
                return self
                    .hand_over(stream, heard, Some(begun.call), shutdown)
                    .await;
            }
            Outcome::Full | Outcome::Failed => {
                // As on Pingora's way, a failure ends the connection.
                begun.keep &= matches!(outcome, Outcome::Full);
                let answer = Answer::refusal(&Refusal::Overloaded);
                let at = Instant::now();
                return self.answer(stream, heard, begun, answer, at).await;
            }
        };
        begun.call.give_back();
        let Answered { status, keep, .. } = answered;
        let sent = wire::write(&mut stream, &answered.bytes, &[], self.within).await;
        spare::give(answered.bytes);
        let sent = sent.map(|()| answered.body_bytes);
        let outcome = begun.call.outcome;
        heard.since = self.note(&mut begun, status, outcome, &sent);
        self.finish(stream, heard, begun, sent.is_ok(), keep).await
    }

    /// Takes the first request, which has been answered, off `heard`. Gives the connection back if it goes on.
    async fn finish(
        &self,
        mut stream: Stream,
        heard: &mut Heard,
        begun: Begun,
        is_sent: bool,
        keep: bool,
    ) -> Option<Stream> {
        heard.bytes.drain(..begun.bytes);
        drop(begun);
        if is_sent && keep {
            return Some(stream);
        }
        if is_sent {
            // What cannot be told to the client in time is not told.
            let _ = timeout(self.within, stream.shutdown()).await;
        }
        None
    }

    fn note(
        &self,
        begun: &mut Begun,
        status: u16,
        outcome: &'static str,
        sent: &io::Result<usize>,
    ) -> Instant {
        begun.call.outcome = if sent.is_ok() { outcome } else { GONE };
        let told = Sent {
            status,
            body_bytes: sent.as_ref().copied().unwrap_or_default(),
        };
        let error = sent.as_ref().err().map(|error| error as &dyn Display);
        access_log::record(&self.edge, &begun.call, &begun.method, &told, error)
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
