//! One line for each request, without query, cookies or tokens; and its metrics.

use std::fmt::Display;
use std::time::Instant;

use http::Method;

use crate::call::Call;
use crate::edge::Edge;

/// What was sent to the client.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// 0 if there was no answer.
    pub status: u16,
    pub body_bytes: usize,
}

/// Notes a finished request; returns the moment of its end.
pub(crate) fn record(
    edge: &Edge,
    call: &Call,
    method: &Method,
    sent: &Sent,
    error: Option<&dyn Display>,
) -> Instant {
    let now = Instant::now();
    let duration = now.saturating_duration_since(call.started);
    edge.metrics
        .answer(call.route, call.outcome, duration.as_secs_f64());
    tracing::debug!(
        client = %call.client,
        %method,
        // Known paths only: an unknown one may hold anything.
        route = call.route,
        status = sent.status,
        outcome = call.outcome,
        upstream = call.upstream().map(|upstream| upstream.name.as_str()),
        attempts = call.attempts,
        body_bytes = sent.body_bytes,
        duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        error = error.map(tracing::field::display),
        "request"
    );
    now
}
