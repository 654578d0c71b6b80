//! The edge as a Pingora proxy: a table of contents, one method for each phase, in the order in which a
//! request meets them.

use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, Result};

use crate::answer::{self, Answer};
use crate::call::Call;
use crate::edge::Edge;
use crate::gate::{self, Decision};
use crate::{access_log, body, deadline, forward};

/// The service.
pub(crate) struct Service(pub Arc<Edge>);

#[async_trait]
impl ProxyHttp for Service {
    type CTX = Call;

    /// The header has arrived: the request counts as in flight.
    fn new_ctx(&self) -> Call {
        deadline::header_arrived();
        Call::new(self.0.in_flight.enter())
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
        access_log::record(&self.0, session, error, call);
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

/// The outcome of a request whose client went away.
const GONE: &str = "gone";
/// The outcome of a request whose answer an order server broke off.
const BROKEN_OFF: &str = "broken_off";

impl Service {
    async fn gate(&self, session: &mut Session, call: &mut Call) -> Result<bool> {
        let arrived = gate::arrive(&self.0, session);
        call.client = arrived.client;
        let decision = match arrived.route {
            Ok(route) => {
                (call.route, call.kind) = (route.name, Some(route.kind));
                gate::decide(&self.0, session, route, call.client).await?
            }
            Err(answer) => Decision::Answer(answer),
        };
        match decision {
            Decision::Forward => {
                // A client may end its side after a whole POST and still read the answer.
                let may_half_close = session.req_header().method == Method::POST;
                session.set_abort_on_close(!may_half_close);
                Ok(false)
            }
            Decision::Answer(answer) => {
                self.send(session, call, &answer).await?;
                Ok(true)
            }
        }
    }

    async fn take_place(&self, session: &mut Session, call: &mut Call) -> Result<bool> {
        call.lease = self.0.upstreams.lease(&call.tried);
        if call.lease.is_some() {
            return Ok(true);
        }
        let answer = Answer::refusal(&lua_free_rules::refusal::Refusal::Overloaded);
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
