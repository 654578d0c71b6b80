//! The way to an order server and back: which one, with what headers, and what to do when it fails.
//! A request is sent again only where that cannot do a thing twice: if it never left, or if it is
//! idempotent by its method or, as an order, by its key.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::{COOKIE, EXPECT};
use http::{HeaderName, HeaderValue};
use lua_free_rules::refusal::Refusal;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};

use crate::call::Call;
use crate::client::{self, FORWARDED_FOR};
use crate::edge::Edge;
use crate::request::Header;
use crate::routes::Kind;
use crate::sold_out::{self, Sold};
use crate::upstreams::Lease;

/// Requests are sent at most this often: once, and again twice. An order whose answer the fast path could not
/// read may be sent once more.
pub(crate) const ATTEMPTS_MAX: usize = 3;
/// How long an unused connection to an order server is kept.
pub(crate) const POOLED_FOR: Duration = Duration::from_secs(30);
/// The header in which they tell how it came to them.
pub(crate) const FORWARDED_PROTO: &str = "x-forwarded-proto";
/// Headers of this prefix are ours: no client may set them.
const OURS: &str = "floodgate-";
/// But for this one, by which payment providers sign: it proves itself, to the order server.
const SIGNATURE: &str = "floodgate-signature";
/// What clients write to be taken for others, beside what is replaced.
const MASKS: [&str; 4] = [
    "forwarded",
    "x-real-ip",
    "x-forwarded-host",
    "x-forwarded-port",
];

/// What is between two neighbours, and goes no further.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

/// The order server that the call has a place at.
pub(crate) fn peer(edge: &Edge, call: &mut Call) -> Result<Box<HttpPeer>> {
    if call.lease.is_none() {
        call.lease = Some(edge.upstreams.lease(&call.tried).ok_or_else(none_left)?);
    }
    let address = count_attempt(edge, call).ok_or_else(none_left)?;
    let limits = &edge.config.limits;
    let mut peer = HttpPeer::new(address, false, String::new());
    let connect_timeout = limits.connect_timeout.duration();
    peer.options.connection_timeout = Some(connect_timeout);
    peer.options.total_connection_timeout = Some(connect_timeout);
    peer.options.read_timeout = Some(limits.upstream_timeout.duration());
    peer.options.write_timeout = Some(limits.upstream_timeout.duration());
    peer.options.idle_timeout = Some(POOLED_FOR);
    Ok(Box::new(peer))
}

/// Counts one more try at the order server that the call has a place at; `None` if it has none.
pub(crate) fn count_attempt(edge: &Edge, call: &mut Call) -> Option<SocketAddr> {
    let upstream = call.lease.as_ref()?.upstream();
    edge.metrics.upstream_request(&upstream.name, call.route);
    call.attempts += 1;
    Some(upstream.address)
}

fn none_left() -> Box<Error> {
    let words = "no order server is left to try";
    Error::explain(ErrorType::ConnectError, words).into_up()
}

/// Tells the order server who asks, in headers that the client cannot write himself.
pub(crate) fn mark(edge: &Edge, call: &Call, request: &mut RequestHeader) -> Result<()> {
    let kept_back = request.headers.keys().filter(|name| !passes(name.as_str()));
    let kept_back: Vec<HeaderName> = kept_back.cloned().collect();
    for name in &kept_back {
        request.remove_header(name);
    }
    // HTTP/2 clients may send each cookie in a field of its own; HTTP/1.1 has one field for all.
    let cookies = client::cookies(Header::from(&request.headers)).map(Cow::into_owned);
    request.remove_header(&COOKIE);
    if let Some(cookies) = cookies {
        request.insert_header(COOKIE, cookies)?;
    }
    request.insert_header(FORWARDED_FOR, call.client.to_string())?;
    request.insert_header(FORWARDED_PROTO, HeaderValue::from_static(scheme(edge)))?;
    Ok(())
}

/// Whether a field of the client's goes on to the order server.
pub(crate) fn passes(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    let starts = name.get(..OURS.len());
    let is_ours = starts.is_some_and(|starts| starts.eq_ignore_ascii_case(OURS)) && !is(SIGNATURE);
    // Many servers take an underscore for a hyphen: `X_Forwarded_For` would pass as ours.
    let is_disguised = name.contains('_');
    // The body is here already; nobody waits for a go-ahead.
    let is_settled = is(EXPECT.as_str());
    !is_ours && !is_disguised && !is_settled && !MASKS.into_iter().any(is) && !is_hop_by_hop(name)
}

/// Whether a field is between two neighbours.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP
        .iter()
        .any(|field| name.eq_ignore_ascii_case(field))
}

/// How the client came.
pub(crate) fn scheme(edge: &Edge) -> &'static str {
    if edge.https { "https" } else { "http" }
}

/// Takes off what the order server tells the edge, and acts on it.
pub(crate) fn take_signals(edge: &Edge, response: &mut ResponseHeader) {
    for value in response.headers.get_all(sold_out::HEADER) {
        take_signal(edge, value.as_bytes());
    }
    response.remove_header(sold_out::HEADER);
}

/// Acts on what the order server tells in that field.
pub(crate) fn take_signal(edge: &Edge, value: &[u8]) {
    match std::str::from_utf8(value).ok().and_then(Sold::parse) {
        Some(sold) => edge.promos.sold(sold),
        None => tracing::warn!("an order server sent a malformed {}", sold_out::HEADER),
    }
}

/// After a connection could not be made: nothing was sent, so any request may go elsewhere.
pub(crate) fn after_no_connection(edge: &Edge, call: &mut Call, error: &mut Error) {
    let failed = give_up(edge, call, error);
    call.tried.extend(failed);
    let next = edge.upstreams.lease(&call.tried);
    go_on(edge, call, error, next);
}

/// After an order server failed with the request in its hands.
pub(crate) fn after_failure(
    edge: &Edge,
    session: &Session,
    call: &mut Call,
    error: &mut Error,
    pooled: bool,
) {
    if *error.esource() != ErrorSource::Upstream {
        error.set_retry(false);
        return;
    }
    let is_repeatable =
        session.req_header().method.is_idempotent() || call.kind == Some(Kind::Order);
    if !is_repeatable || session.response_written().is_some() || session.retry_buffer_truncated() {
        give_up(edge, call, error);
        error.set_retry(false);
        return;
    }
    try_elsewhere(edge, call, error, pooled);
}

/// After an order server failed with a request that may be sent twice.
pub(crate) fn try_elsewhere(edge: &Edge, call: &mut Call, error: &mut Error, pooled: bool) {
    let failed = give_up(edge, call, error);
    let known = call.tried.len();
    call.tried.extend(failed);
    let mut next = edge.upstreams.lease(&call.tried);
    if pooled && next.is_none() {
        // A connection from the pool may just have been closed: that says nothing of the server.
        call.tried.truncate(known);
        next = edge.upstreams.lease(&call.tried);
    }
    go_on(edge, call, error, next);
}

/// Gives the place back; returns where it was.
fn give_up(edge: &Edge, call: &mut Call, error: &Error) -> Option<SocketAddr> {
    let lease = call.lease.take()?;
    let upstream = lease.upstream();
    tracing::warn!(upstream = %upstream.name, route = call.route, %error, "an order server failed");
    edge.metrics.upstream_failure(&upstream.name);
    let unreachable = matches!(
        error.etype(),
        ErrorType::ConnectRefused | ErrorType::ConnectNoRoute
    );
    if unreachable {
        upstream.refused();
    }
    Some(upstream.address)
}

/// Sends the request to the next order server, if there is one and tries are left.
fn go_on(edge: &Edge, call: &mut Call, error: &mut Error, next: Option<Lease>) {
    call.lease = next.filter(|_| call.attempts < ATTEMPTS_MAX);
    error.set_retry(call.lease.is_some());
    if call.lease.is_some() {
        edge.metrics.retries.inc();
    }
}

/// What the client is told of a failure; `None` if he is gone, or has part of an answer.
pub(crate) fn refusal(session: &Session, error: &Error) -> Option<Refusal> {
    if session.response_written().is_some() {
        return None;
    }
    match error.esource() {
        ErrorSource::Upstream => Some(Refusal::Overloaded),
        ErrorSource::Internal | ErrorSource::Unset => Some(Refusal::Unexpected),
        ErrorSource::Downstream => match error.etype() {
            ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed => None,
            ErrorType::ReadTimedout => Some(Refusal::BadParameter(
                "the request did not arrive in time".to_owned(),
            )),
            _ => Some(Refusal::BadParameter(
                "the request is not well-formed".to_owned(),
            )),
        },
    }
}
