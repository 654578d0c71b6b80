//! Listeners, connection limits and the graceful stop; starts the order servers, the order writer
//! and the sweeper of a process.
//!
//! Admin listener: `GET /live` (the process runs), `GET /ready` (ledger and engine answer, in JSON),
//! `GET /metrics`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use engine::{Clock as _, SharedEngine, SystemClock};
use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use lua_free_rules::refusal::Refusal;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::accounts::Accounts;
use crate::answer::{json as json_response, refuse, text};
use crate::api::{Shop, router};
use crate::bounded::Bounded;
use crate::error::{BackendError, Result};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::payment::{Demo, Payments, Provider};
use crate::promos::Promos;
use crate::publishing;
use crate::reserve::Reservations;
use crate::settings::Settings;
use crate::sweeper::Sweeper;
use crate::writer::OrderWriter;

/// Open connections of one listener; further ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 4_096;
/// Connections that may wait to be accepted: an edge opens many at once when a sale does, and one that
/// does not fit waits a second for its next try. The system may allow fewer.
const BACKLOG: u32 = 4_096;
/// How long a request's header may take, and how long an idle connection is kept: longer than an
/// edge keeps it, so that the edge is the one who closes.
const HEADER_READ_MAX: Duration = Duration::from_secs(75);
const HEADERS_BYTES_MAX: usize = 32 << 10;
/// Pause after the system refused a connection, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Order servers, order writer and sweeper at work.
pub struct Running {
    /// Where the order servers listen, in the order they were asked for.
    pub listen: Vec<SocketAddr>,
    /// Where the admin listener is.
    pub admin: SocketAddr,
    servers: watch::Sender<bool>,
    workers: watch::Sender<bool>,
    admin_listener: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
    serving_admin: JoinHandle<()>,
    writing: JoinHandle<()>,
    sweeping: JoinHandle<()>,
    ledger: Ledger,
}

/// Opens the ledger, seeds it, and starts everything.
///
/// # Errors
/// If the settings cannot work, the ledger cannot be opened, or an address cannot be listened at.
pub async fn start(settings: Settings, engine: SharedEngine) -> Result<Running> {
    for (name, secret) in [
        ("operator's token", &settings.operator_token),
        ("webhook's secret", &settings.webhook_secret),
    ] {
        if secret.is_empty() {
            return Err(BackendError::Settings(format!("the {name} is empty")));
        }
    }
    let metrics = Metrics::new()?;
    let admin = bind(settings.admin)?;
    let mut listeners = Vec::new();
    for address in &settings.listen {
        listeners.push(bind(*address)?);
    }
    let ledger = Ledger::open(&settings.ledger).await?;
    publishing::check_pair(engine.as_ref(), &ledger).await?;
    ledger.seed(&settings.catalog).await?;
    let shop = Parts::new(settings, engine, ledger, metrics)?;
    if shop.settings.publish_first {
        shop.publish_first().await?;
    }

    let (servers, workers) = (watch::channel(false).0, watch::channel(false).0);
    let admin_listener = watch::channel(false).0;
    let (mut listen, mut serving) = (Vec::new(), Vec::new());
    for (listener, address) in listeners {
        listen.push(address);
        let (router, metrics) = (router(&Arc::new(shop.order_server())), shop.metrics.clone());
        serving.push(tokio::spawn(serve(
            listener,
            router,
            metrics,
            servers.subscribe(),
        )));
    }
    let (writer, sweeper) = (shop.writer(), shop.sweeper());
    let (stop_writer, stop_sweeper) = (workers.subscribe(), servers.subscribe());
    let (listener, admin) = admin;
    let router = admin_router(&shop);
    let stop_admin = admin_listener.subscribe();
    Ok(Running {
        listen,
        admin,
        servers,
        workers,
        admin_listener,
        serving,
        serving_admin: tokio::spawn(serve(listener, router, shop.metrics.clone(), stop_admin)),
        writing: tokio::spawn(supervise("order writer", RESTART_PAUSE, move || {
            let (writer, stop) = (writer.clone(), stop_writer.clone());
            async move { writer.run(stop).await }
        })),
        sweeping: tokio::spawn(supervise("sweeper", RESTART_PAUSE, move || {
            let (sweeper, stop) = (sweeper.clone(), stop_sweeper.clone());
            async move { sweeper.run(stop).await }
        })),
        ledger: shop.ledger,
    })
}

impl Running {
    /// Stops accepting and sweeping, finishes the requests in flight, writes what is in the stream,
    /// and closes the database. What is not done within `grace` is dropped: accepted orders stay in
    /// the stream for the next start.
    pub async fn stop(self, grace: Duration) {
        let until = Instant::now() + grace;
        self.servers.send_replace(true);
        for task in self.serving {
            finish(task, until).await;
        }
        finish(self.sweeping, until).await;
        self.workers.send_replace(true);
        finish(self.writing, until).await;
        self.admin_listener.send_replace(true);
        finish(self.serving_admin, until).await;
        // Nothing holds a connection any more, but for what was dropped in mid-statement.
        if tokio::time::timeout(CLOSE_MAX, self.ledger.close())
            .await
            .is_err()
        {
            tracing::warn!("the ledger was left open");
        }
    }
}

/// Runs a worker until it ends by itself; one that panics is started again. What it does can be
/// repeated, so it may be cut off anywhere.
async fn supervise<F>(name: &str, pause: Duration, start: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    // Dropped together with this future, and the worker with it.
    let mut worker = JoinSet::new();
    loop {
        worker.spawn(start());
        match worker.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!(name, %error, "a worker failed and is started again");
                tokio::time::sleep(pause).await;
            }
            _ => return,
        }
    }
}

/// How long what an earlier process left in the stream is written before the shop opens; the order
/// writer goes on with the rest.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Pause before a worker that failed is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// How long closing the database may take.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Waits for a task until a moment, then ends it.
async fn finish(mut task: JoinHandle<()>, until: Instant) {
    if tokio::time::timeout_at(until, &mut task).await.is_err() {
        task.abort();
        // Its connections and transactions are closed once it is gone.
        let _ended = task.await;
    }
}

/// What the servers and workers of a process are made of.
struct Parts {
    settings: Settings,
    engine: SharedEngine,
    ledger: Ledger,
    metrics: Metrics,
    accounts: Accounts,
    payments: Payments,
    promos: Promos,
    proposals: Arc<[lua_free_rules::config::Promo]>,
}

impl Parts {
    fn new(
        mut settings: Settings,
        engine: SharedEngine,
        ledger: Ledger,
        metrics: Metrics,
    ) -> Result<Self> {
        let accounts = Accounts::new(&settings.node.accounts, &settings.webhook_secret)?;
        let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
        if settings.node.payment.demo {
            providers.push(Arc::new(Demo::new(settings.webhook_secret.clone())));
        }
        let payments = Payments::new(providers, engine.clone(), ledger.clone(), metrics.clone());
        Ok(Self {
            promos: Promos::new(engine.clone()),
            proposals: std::mem::take(&mut settings.promos).into(),
            settings,
            engine,
            ledger,
            metrics,
            accounts,
            payments,
        })
    }

    /// One order server: what it shares with the others, and limits of its own.
    fn order_server(&self) -> Shop {
        let orders = &self.settings.node.orders;
        Shop {
            engine: self.engine.clone(),
            ledger: self.ledger.clone(),
            keys: self.settings.keys.clone(),
            accounts: self.accounts.clone(),
            payments: self.payments.clone(),
            promos: self.promos.clone(),
            reservations: Reservations {
                engine: self.engine.clone(),
                keys: self.settings.keys.clone(),
                resubmit_for: orders.resubmit_for,
                clock: Arc::new(SystemClock),
                bound: Bounded::new(orders.in_flight_max, orders.waiting_max),
            },
            metrics: self.metrics.clone(),
            operator_token: self.settings.operator_token.clone(),
            secure_cookies: self.settings.secure_cookies,
            proposals: Arc::clone(&self.proposals),
        }
    }

    /// Publishes every promo that never was. One that cannot be is told, and keeps none of the others.
    async fn publish_first(&self) -> Result<()> {
        // What an earlier process left in the stream counts as sold.
        // A ledger that is away must not keep the shop window dark: its promos are then told below.
        if let Ok(drained) = tokio::time::timeout(DRAIN_MAX, self.writer().drain()).await {
            drained?;
        }
        for proposal in self.proposals.iter() {
            let published =
                publishing::publish(self.engine.as_ref(), &self.ledger, proposal, true).await;
            match published {
                Ok(_) => {}
                Err(BackendError::Refused(refusal)) => {
                    tracing::warn!(promo = %proposal.id, %refusal, "a promo was not published");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn writer(&self) -> OrderWriter {
        let batch_max = self.settings.node.writer.batch_max;
        OrderWriter::new(
            self.engine.clone(),
            self.ledger.clone(),
            self.metrics.clone(),
            batch_max,
        )
    }

    fn sweeper(&self) -> Sweeper {
        let every = self.settings.node.writer.sweep_every.duration();
        Sweeper::new(
            self.engine.clone(),
            self.ledger.clone(),
            self.metrics.clone(),
            every,
        )
    }
}

fn admin_router(shop: &Parts) -> Router {
    let (engine, ledger) = (shop.engine.clone(), shop.ledger.clone());
    let ready = move || ready(engine.clone(), ledger.clone());
    let (engine, metrics) = (shop.engine.clone(), shop.metrics.clone());
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

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listen = |source| BackendError::Listen { address, source };
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let socket = socket.map_err(listen)?;
    socket.set_reuseaddr(true).map_err(listen)?;
    socket.bind(address).map_err(listen)?;
    let listener = socket.listen(BACKLOG).map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    Ok((listener, bound))
}

/// Serves until `stop` says true, then finishes what is in flight; idle connections are closed.
async fn serve(
    listener: TcpListener,
    router: Router,
    metrics: Metrics,
    mut stop: watch::Receiver<bool>,
) {
    let (places, graceful) = (
        Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        GracefulShutdown::new(),
    );
    let mut connections = JoinSet::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_MAX)
        .max_buf_size(HEADERS_BYTES_MAX);
    loop {
        let place = tokio::select! {
            // The semaphore is never closed.
            Ok(place) = Arc::clone(&places).acquire_owned() => place,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and written whole; without it the edge would wait for its own delay.
        let _without_delay = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        let open = Open::count(metrics.clone());
        connections.spawn(async move {
            let _held = (place, open);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// An open connection, counted.
struct Open(Metrics);

impl Open {
    fn count(metrics: Metrics) -> Self {
        metrics.connection_opened();
        Self(metrics)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connection_closed();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_worker_that_panics_is_started_again() {
        let starts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&starts);
        supervise("test", Duration::ZERO, move || {
            let start = counted.fetch_add(1, Ordering::SeqCst);
            async move { assert!(start > 1, "this panic is part of the test") }
        })
        .await;
        assert_eq!(starts.load(Ordering::SeqCst), 3);
    }
}
