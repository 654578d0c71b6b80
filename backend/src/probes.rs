//! The admin listener of a process: `GET /live` (the process runs), `GET /ready` (ledger and engine
//! answer, in JSON), `GET /metrics`.

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use engine::{Clock as _, SharedEngine, SystemClock};
use http::StatusCode;
use lua_free_rules::refusal::Refusal;
use serde_json::json;

use crate::answer::{json as json_response, refuse, text};
use crate::error::Result;
use crate::ledger::Ledger;
use crate::metrics::Metrics;

/// The admin listener's routes.
pub(crate) fn router(engine: SharedEngine, ledger: Ledger, metrics: Metrics) -> Router {
    let asked = engine.clone();
    let ready = move || ready(asked.clone(), ledger.clone());
    let scrape = move || scrape(engine.clone(), metrics.clone());
    Router::new()
        .route(
            "/live",
            get(|| async { text(StatusCode::OK, b"live\n".to_vec()) }),
        )
        .route("/ready", get(ready))
        .route("/metrics", get(scrape))
        .fallback(|| async { refuse(&Refusal::NotFound) })
        .method_not_allowed_fallback(|| async { refuse(&Refusal::Method) })
}

async fn ready(engine: SharedEngine, ledger: Ledger) -> Response {
    let told = |result: Result<()>| match result {
        Ok(()) => (true, "ok".to_owned()),
        Err(error) => (false, error.to_string()),
    };
    let (ledger_ok, ledger) = told(ledger.ready().await);
    let (engine_ok, engine) = told(engine.backlog().await.map(drop).map_err(Into::into));
    let ready = ledger_ok && engine_ok;
    let body = json!({ "ready": ready, "ledger": ledger, "engine": engine }).to_string();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json_response(status, body.into_bytes())
}

async fn scrape(engine: SharedEngine, metrics: Metrics) -> Response {
    if let Ok(backlog) = engine.backlog().await {
        metrics.backlog(&backlog, SystemClock.now());
    }
    match metrics.text() {
        Ok(body) => text(StatusCode::OK, body),
        Err(error) => {
            tracing::error!(%error, "metrics");
            refuse(&Refusal::Unexpected)
        }
    }
}
