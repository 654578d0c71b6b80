//! One line for each request, without query, cookies or tokens; and its metrics.

use pingora::Error;
use pingora::proxy::Session;

use crate::edge::Edge;
use crate::service::Call;

/// Notes a finished request.
pub(crate) fn record(edge: &Edge, session: &Session, error: Option<&Error>, call: &Call) {
    let duration = call.started.elapsed();
    edge.metrics
        .answer(call.route, call.outcome, duration.as_secs_f64());
    let request = session.req_header();
    tracing::debug!(
        client = %call.client,
        method = %request.method,
        // Known paths only: an unknown one may hold anything.
        route = call.route,
        status = session.response_written().map_or(0, |response| response.status.as_u16()),
        outcome = call.outcome,
        upstream = call.lease.as_ref().map(|lease| lease.upstream().name.as_str()),
        attempts = call.attempts,
        body_bytes = session.body_bytes_sent(),
        duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        error = error.map(tracing::field::display),
        "request"
    );
}
