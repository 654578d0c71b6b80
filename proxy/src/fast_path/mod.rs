//! The fast path: answers what the edge answers by itself straight on the connection, passes orders on, both
//! without a session of Pingora's, and leaves everything else to Pingora.
//!
//! | file | what is in it |
//! |---|---|
//! | `mod` | what is to be done about a request |
//! | `reactor`, `seats` | plain connections, without a task: waiting for a request costs one nothing but its place |
//! | `task` | a connection with a task of its own: while a client is slow or Pingora is asked, or since it is encrypted |
//! | `head` | which requests it takes on: those that can be read in one way only |
//! | `wait` | how long a task waits for bytes |
//! | `wire`, `date` | an answer as bytes |
//! | `pass` | orders that go on to an order server |
//! | `lent` | a connection that is lent to Pingora |
//! | `spare` | buffers between two requests |
//!
//! Nothing is decided here. What is answered, what is counted and what is written to the log is the gate's
//! and the access log's, as it is on Pingora's way; a request goes one way or the other with the same
//! outcome. A request is handed over whole, with everything that was read after it, and a connection comes
//! back only when Pingora says that nothing of the request is left on it.

mod date;
mod head;
mod lent;
mod pass;
mod reactor;
mod seats;
mod spare;
mod task;
mod wait;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use lua_free_rules::refusal::Refusal;

use crate::access_log::{self, Sent};
use crate::answer::Answer;
use crate::call::{Call, GONE, Moment};
use crate::edge::Edge;
use crate::front::Front;
use crate::gate::{self, Decision, Errand};
use crate::request::Header;
use crate::routes::Kind;
use head::{Plain, Reading};
use pass::{Links, Outcome};
use wire::Message;

pub(crate) use reactor::Reactor;

/// A header that is longer is left to Pingora, which has the last word on its size.
const HEARD_MAX: usize = 8 << 10;

/// What the connections of a thread share.
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

/// What of the first request has not come yet.
enum Missing {
    Header,
    Body,
}

/// What is to be done about the first request on a connection.
enum Step {
    Now(Deed),
    /// What it is comes out when something has been waited for.
    Wait(Begun, Waiting),
}

/// What is done about a request.
enum Deed {
    Send(Begun, Message),
    /// Let Pingora serve it. Without a call, nothing of it was decided.
    HandOver(Option<Call>),
}

/// What is waited for.
enum Waiting {
    /// What an answer takes.
    Errand(Errand),
    /// An order server's answer to these bytes.
    Order(Vec<u8>),
}

/// The first request, of which only the answer is missing.
struct Begun {
    call: Call,
    method: &'static Method,
    /// How many bytes it had.
    bytes: usize,
    keep: bool,
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

    /// Whether it is to be taken.
    pub const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The connections that it keeps to order servers.
    pub fn links(&self) -> Arc<Links> {
        self.links.clone()
    }

    /// What is to be done about the first request in `heard`, which has arrived at that moment. Nothing is counted
    /// before it is whole, and certain that it can be read in one way only.
    fn step(&self, heard: &[u8], peer: Option<IpAddr>, moment: Moment) -> Result<Step, Missing> {
        let mut space = head::space();
        let body_max = self.edge.config.limits.body_max.0;
        let plain = match head::read(heard, &mut space) {
            Reading::Plain(plain) if plain.body.len() <= body_max => plain,
            Reading::Partial if heard.len() < HEARD_MAX => return Err(Missing::Header),
            Reading::Behind(body_bytes) if body_bytes <= body_max => return Err(Missing::Body),
            _ => return Ok(Step::Now(Deed::HandOver(None))),
        };
        let request = &plain.request;
        let mut call = Call::at(&self.edge, moment);
        let decision = match call.arrive(gate::arrive(&self.edge, request, peer, call.now)) {
            Ok(route) => gate::decide(&self.edge, &call, request, Some(plain.body), route),
            Err(answer) => answer.into(),
        };
        let begun = |call| Begun {
            call,
            method: plain.method,
            bytes: plain.bytes,
            keep: plain.keep,
        };
        Ok(match decision {
            Decision::Answer(answer) => {
                let begun = begun(call);
                let message = self.message(&begun, &answer, begun.call.started);
                Step::Now(Deed::Send(begun, message))
            }
            Decision::Ask(errand) => Step::Wait(begun(call), Waiting::Errand(errand)),
            Decision::Forward => {
                call.passed = true;
                match self.onward(&call, &plain) {
                    Some(request) => Step::Wait(begun(call), Waiting::Order(request)),
                    None => Step::Now(Deed::HandOver(Some(call))),
                }
            }
        })
    }

    /// The request as it goes on to an order server, if it does so from here: the busy ones do.
    fn onward(&self, call: &Call, plain: &Plain<'_>) -> Option<Vec<u8>> {
        let request = &plain.request;
        match request.header {
            Header::Lines(lines) if call.kind == Some(Kind::Order) => Some(pass::write_request(
                &self.edge, call, request, lines, plain.body,
            )),
            _ => None,
        }
    }

    /// An answer that was made `at` that moment.
    fn message(&self, begun: &Begun, answer: &Answer, at: Instant) -> Message {
        let keep = begun.keep && !self.edge.in_flight.is_draining();
        Message::of(answer, begun.method, keep, at)
    }

    /// Waits, and tells what is to be done.
    async fn wait(&self, mut begun: Begun, waiting: Waiting) -> Deed {
        let answer = match waiting {
            Waiting::Errand(errand) => errand.run(&self.edge).await,
            Waiting::Order(request) => {
                let keep = begun.keep;
                let keep = || keep && !self.edge.in_flight.is_draining();
                let call = &mut begun.call;
                let outcome = pass::carry(&self.edge, &self.links, call, &request, keep).await;
                spare::give(request);
                match outcome {
                    Outcome::Answered(message) => {
                        begun.call.give_back();
                        return Deed::Send(begun, message);
                    }
                    Outcome::Unusual => {
                        begun.call.lease = None;
                        return Deed::HandOver(Some(begun.call));
                    }
                    Outcome::Full => Answer::refusal(&Refusal::Overloaded),
                    Outcome::Failed => {
                        // As on Pingora's way, a failure ends the connection.
                        begun.keep = false;
                        Answer::refusal(&Refusal::Overloaded)
                    }
                }
            }
        };
        let message = self.message(&begun, &answer, Instant::now());
        Deed::Send(begun, message)
    }

    /// Notes what became of an answer. Returns the moment, if the connection goes on.
    fn settle(
        &self,
        mut begun: Begun,
        message: &Message,
        sent: io::Result<()>,
    ) -> Result<Instant, Ended> {
        let (outcome, body_bytes) = match sent {
            Ok(()) => (message.outcome, message.body_bytes),
            Err(_) => (GONE, 0),
        };
        begun.call.outcome = outcome;
        let told = Sent {
            status: message.status,
            body_bytes,
        };
        let error = sent.as_ref().err().map(|error| error as &dyn Display);
        let now = access_log::record(&self.edge, &begun.call, begun.method, &told, error);
        match sent {
            Ok(()) if message.keep => Ok(now),
            Ok(()) => Err(Ended::Closed),
            Err(_) => Err(Ended::Gone),
        }
    }
}

/// How a connection ended.
enum Ended {
    /// The client was told so.
    Closed,
    /// The client is gone.
    Gone,
}
