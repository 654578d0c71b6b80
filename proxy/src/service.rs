//! The edge as a Pingora proxy: a table of contents, one method for each phase, in the order in which a
//! request meets them.

use std::fmt::Display;
use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use lua_free_rules::refusal::Refusal;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, Result};

use crate::access_log::{self, Sent};
use crate::answer::{self, Answer, OwnOrKept};
use crate::body::{self, Fault};
use crate::call::{self, Call, GONE};
use crate::edge::Edge;
use crate::gate::{self, Decision};
use crate::request::Request;
use crate::routes::{self, Route};
use crate::{client, deadline, forward};

/// The service.
pub(crate) struct Service(pub Arc<Edge>);

#[async_trait]
impl ProxyHttp for Service {
    type CTX = Call;

    /// The header has arrived: the request counts as in flight, if it does not already.
    fn new_ctx(&self) -> Call {
        deadline::header_arrived();
        call::handed_over().unwrap_or_else(|| Call::new(&self.0))
    }

    /// Nothing to filter: answers are compressed in advance.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    /// The gate: most requests are answered here.
    async fn request_filter(&self, session: &mut Session, call: &mut Call) -> Result<bool> {
        self.gate(session, call).await
    }

    /// A place at an order server, or 503 while the connection stays open.
    async fn proxy_upstream_filter(&self, session: &mut Session, call: &mut Call) -> Result<bool> {
        self.take_place(session, call).await
    }

    /// Where the request goes.
    async fn upstream_peer(
        &self,
        _session: &mut Session,
        call: &mut Call,
    ) -> Result<Box<HttpPeer>> {
        forward::peer(&self.0, call)
    }

    /// No connection.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        call: &mut Call,
        mut error: Box<Error>,
    ) -> Box<Error> {
        forward::after_no_connection(&self.0, call, &mut error);
        error
    }

    /// What the order server is told beside what the client said.
    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        call: &mut Call,
    ) -> Result<()> {
        forward::mark(&self.0, call, request)
    }

    /// What the order server tells the edge.
    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        _call: &mut Call,
    ) -> Result<()> {
        forward::take_signals(&self.0, response);
        Ok(())
    }

    /// An answer that broke off before its header.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        call: &mut Call,
        pooled: bool,
    ) -> Box<Error> {
        forward::after_failure(&self.0, session, call, &mut error, pooled);
        error
    }

    /// All tries failed.
    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        call: &mut Call,
    ) -> FailToProxy {
        self.tell_failure(session, error, call).await
    }

    /// The end of every request.
    async fn logging(&self, session: &mut Session, error: Option<&Error>, call: &mut Call) {
        self.note(session, error, call);
    }

    /// `logging` tells each failure once.
    fn suppress_error_log(&self, _session: &Session, _call: &Call, _error: &Error) -> bool {
        true
    }

    /// `forward` tells each failed try.
    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _call: &Call,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// The outcome of a request whose answer an order server broke off.
const BROKEN_OFF: &str = "broken_off";

impl Service {
    async fn gate(&self, session: &mut Session, call: &mut Call) -> Result<bool> {
        let answer = match self.decide(session, call).await? {
            Decision::Forward => {
                // A client may end its side after a whole POST and still read the answer.
                let may_half_close = session.req_header().method == Method::POST;
                session.set_abort_on_close(!may_half_close);
                return Ok(false);
            }
            Decision::Answer(answer) => answer,
            Decision::Ask(errand) => OwnOrKept::Own(errand.run(&self.0).await),
        };
        self.send(session, call, &answer).await?;
        Ok(true)
    }

    /// Bodies are read before the gate is asked: they are short, and a connection can only serve on
    /// after them.
    async fn decide(&self, session: &mut Session, call: &mut Call) -> Result<Decision<'_>> {
        let route = match self.arrive(session, call) {
            Ok(route) => route,
            Err(answer) => return Ok(answer.into()),
        };
        let limits = &self.0.config.limits;
        let within = limits.read_timeout.duration();
        let body = match body::read(session, limits.body_max.0, within).await {
            Ok(body) => body,
            Err(Fault::Refused(refusal)) => return Ok(Decision::refuse(&refusal)),
            Err(Fault::Gone(error)) => return Err(error.into_down()),
        };
        if call.passed {
            return Ok(Decision::Forward);
        }
        // The body may have been long on its way.
        call.now = self.0.now();
        let request = Request::of(session.req_header());
        Ok(gate::decide(&self.0, call, &request, body.bytes(), route))
    }

    /// The route. What the fast path has let pass is not counted again, but it must be the same here.
    fn arrive(&self, session: &Session, call: &mut Call) -> Result<&'static Route, Answer> {
        let request = Request::of(session.req_header());
        if !call.passed {
            let digest = session.digest();
            let socket = digest.and_then(|digest| digest.socket_digest.as_deref());
            let peer = client::peer(socket).map(|peer| peer.ip());
            return call.arrive(gate::arrive(&self.0, &request, peer, call.now));
        }
        let route = routes::find(request.method, request.path).ok();
        route
            .filter(|route| route.name == call.route)
            .ok_or_else(|| {
                tracing::error!(route = call.route, "a request was read in two ways");
                Answer::refusal(&Refusal::Unexpected)
            })
    }

    fn note(&self, session: &Session, error: Option<&Error>, call: &Call) {
        let answer = session.response_written();
        let sent = Sent {
            status: answer.map_or(0, |answer| answer.status.as_u16()),
            body_bytes: session.body_bytes_sent(),
        };
        let error = error.map(|error| error as &dyn Display);
        let method = &session.req_header().method;
        access_log::record(&self.0, call, method, &sent, error);
    }

    async fn take_place(&self, session: &mut Session, call: &mut Call) -> Result<bool> {
        call.lease = self.0.upstreams.lease(&call.tried);
        if call.lease.is_some() {
            return Ok(true);
        }
        let answer = Answer::refusal(&Refusal::Overloaded);
        self.send(session, call, &answer).await?;
        Ok(false)
    }

    async fn tell_failure(
        &self,
        session: &mut Session,
        error: &Error,
        call: &mut Call,
    ) -> FailToProxy {
        call.lease = None;
        call.outcome = match error.esource() {
            ErrorSource::Upstream => BROKEN_OFF,
            _ => GONE,
        };
        let mut status = 0;
        if let Some(refusal) = forward::refusal(session, error) {
            // Pingora closes the connection after a failure; the answer should not say otherwise.
            session.set_keepalive(None);
            let answer = Answer::refusal(&refusal);
            status = answer.status.as_u16();
            if let Err(error) = self.send(session, call, &answer).await {
                tracing::debug!(%error, "the client did not take the answer");
            }
        }
        FailToProxy {
            error_code: status,
            can_reuse_downstream: false,
        }
    }

    async fn send(&self, session: &mut Session, call: &mut Call, answer: &Answer) -> Result<()> {
        call.outcome = answer.outcome;
        body::discard_short(session, self.0.config.limits.body_max.0).await;
        answer::send(session, answer).await?;
        body::linger(session).await;
        Ok(())
    }
}
