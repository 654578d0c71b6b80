//! The admin listener, never for the public.
//!
//! | path | answer |
//! |---|---|
//! | `/live` | 200 while the process runs |
//! | `/ready` | 200 once the engine was heard, until stopping begins; else 503. The state, in JSON |
//! | `/metrics` | Prometheus' text format |

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::edge::Edge;

const CONNECTIONS_MAX: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready<'a> {
    ready: bool,
    /// Whether stopping has begun.
    draining: bool,
    threads_lost: u64,
    pages: usize,
    promos: usize,
    /// Milliseconds since the engine was heard; absent if it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_heard_ms_ago: Option<i64>,
    upstreams: Vec<UpstreamState<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UpstreamState<'a> {
    address: &'a str,
    healthy: bool,
    in_flight: u32,
}

/// Serves until the task is dropped.
pub(crate) async fn serve(listener: TcpListener, edge: Arc<Edge>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let edge = edge.clone();
        connections.spawn(async move {
            let _place = place;
            let answer = service_fn(move |request| {
                let answer = answer(&edge, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), answer);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an admin connection broke");
            }
        });
    }
}

fn answer(edge: &Edge, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let plain = |status, text: &'static str| respond(status, "text/plain", text.into());
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        let allow = http::HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(ALLOW, allow);
        return refused;
    }
    match request.uri().path() {
        "/live" => plain(StatusCode::OK, "live\n"),
        "/ready" => ready(edge),
        "/metrics" => metrics(edge),
        _ => plain(StatusCode::NOT_FOUND, "/live, /ready, /metrics\n"),
    }
}

/// Order servers that are away do not make the edge unready: it serves pages and items without them.
fn ready(edge: &Edge) -> Response<Full<Bytes>> {
    let age_ms = edge.promos.heard().ms_ago();
    let draining = edge.in_flight.is_draining();
    let threads_lost = edge.metrics.threads_lost.get();
    let state = Ready {
        ready: age_ms.is_some() && !draining && threads_lost == 0,
        draining,
        threads_lost,
        pages: edge.pages.len(),
        promos: edge.promos.heard().promos.len(),
        engine_heard_ms_ago: age_ms,
        upstreams: edge
            .upstreams
            .all()
            .iter()
            .map(|upstream| UpstreamState {
                address: &upstream.name,
                healthy: upstream.is_healthy(),
                in_flight: upstream.in_flight(),
            })
            .collect(),
    };
    let status = if state.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = serde_json::to_vec(&state).unwrap_or_default(); // numbers and texts only
    respond(status, "application/json", body.into())
}

fn metrics(edge: &Edge) -> Response<Full<Bytes>> {
    let keys = i64::try_from(edge.limits.len()).unwrap_or(i64::MAX);
    edge.metrics.limit_keys.set(keys);
    let in_flight = i64::try_from(edge.in_flight.count()).unwrap_or(i64::MAX);
    edge.metrics.in_flight.set(in_flight);
    for upstream in edge.upstreams.all() {
        edge.metrics
            .upstream_state(&upstream.name, upstream.is_healthy(), upstream.in_flight());
    }
    edge.metrics
        .promos_age_ms
        .set(edge.promos.heard().ms_ago().unwrap_or(-1));
    let kind = "text/plain; version=0.0.4";
    respond(StatusCode::OK, kind, edge.metrics.text().into())
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
