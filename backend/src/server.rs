//! Starts what a process is to do, order servers, order writer and sweeper, or a part of it, and stops
//! it gracefully.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use engine::{SharedEngine, SystemClock};
use lua_free_rules::config;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::accounts::Accounts;
use crate::api::{Shop, router};
use crate::bounded::Bounded;
use crate::catalogue::Catalogue;
use crate::error::{BackendError, Result};
use crate::ledger::Ledger;
use crate::listener::{bind, serve};
use crate::metrics::Metrics;
use crate::payment::{Button, Demo, Payments, Provider};
use crate::probes;
use crate::promos::Promos;
use crate::publishing;
use crate::recovery::Recovery;
use crate::reserve::Reservations;
use crate::settings::{Settings, WriterSettings};
use crate::sweeper::Sweeper;
use crate::workers::{Workers, finish};
use crate::writer::OrderWriter;

/// How long what an earlier process left in the stream is written before the shop opens; the order
/// writer goes on with the rest.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long closing the database may take.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// What a process has at work: order servers, or the order writer and the sweeper, or all of it.
pub struct Running {
    /// Where the order servers listen, in the order they were asked for.
    pub listen: Vec<SocketAddr>,
    /// Where the admin listener is.
    pub admin: SocketAddr,
    stop_servers: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
    serving_admin: JoinHandle<()>,
    workers: Option<Workers>,
    ledger: Ledger,
}

/// Opens the ledger, seeds it, and starts order servers, order writer and sweeper in this process.
///
/// # Errors
/// If the settings cannot work, the ledger cannot be opened, or an address cannot be listened at. Where
/// the error [is an outage](BackendError::is_outage), the same call may succeed later.
pub async fn start(settings: Settings, engine: SharedEngine) -> Result<Running> {
    let ports = Ports::bind(settings.admin, &settings.listen)?;
    let shop = Parts::open(settings, engine).await?;
    if shop.settings.publish_first {
        shop.publish_first().await?;
    }
    let mut running = serve_all(ports, &shop);
    let (writer, sweeper, recovery) = shop.workers()?;
    let node = &shop.settings.node_name;
    running.workers = Some(Workers::start(node, writer, sweeper, recovery));
    Ok(running)
}

/// Opens the ledger, seeds it, and starts the order servers alone: writers of their own do the rest.
///
/// # Errors
/// Those of [`start`].
pub async fn start_order_servers(settings: Settings, engine: SharedEngine) -> Result<Running> {
    let ports = Ports::bind(settings.admin, &settings.listen)?;
    let shop = Parts::open(settings, engine).await?;
    Ok(serve_all(ports, &shop))
}

/// Opens the ledger and starts the order writer and the sweeper alone.
///
/// # Errors
/// Those of [`start`].
pub async fn start_writer(settings: WriterSettings, engine: SharedEngine) -> Result<Running> {
    let ports = Ports::bind(settings.admin, &[])?;
    let ledger = Ledger::open(&settings.ledger).await?;
    let metrics = Metrics::new()?;
    let node = &settings.node_name;
    let (writer, sweeper, recovery) = workers(node, &settings.writer, &engine, &ledger, &metrics)?;
    let mut running = ports.serve(&engine, &ledger, &metrics, Router::new);
    running.workers = Some(Workers::start(node, writer, sweeper, recovery));
    Ok(running)
}

fn serve_all(ports: Ports, shop: &Parts) -> Running {
    ports.serve(&shop.engine, &shop.ledger, &shop.metrics, || {
        router(&Arc::new(shop.order_server()))
    })
}

fn workers(
    node: &str,
    settings: &config::Writer,
    engine: &SharedEngine,
    ledger: &Ledger,
    metrics: &Metrics,
) -> Result<(OrderWriter, Sweeper, Recovery)> {
    let (stream, batch_max) = (engine.clone(), settings.batch_max);
    let writer = OrderWriter::new(stream, ledger.clone(), metrics.clone(), batch_max);
    let every = settings.sweep_every.duration();
    let sweeper = Sweeper::new(engine.clone(), ledger.clone(), metrics.clone(), every).on(node);
    let (engine, ledger, metrics) = (engine.clone(), ledger.clone(), metrics.clone());
    let recovery = Recovery::new(engine, ledger, writer.clone(), metrics)?;
    Ok((writer, sweeper, recovery))
}

/// Addresses that are listened at, and not served yet: what cannot be had is known before anything else
/// is begun.
struct Ports {
    servers: Vec<(TcpListener, SocketAddr)>,
    admin: (TcpListener, SocketAddr),
}

impl Ports {
    fn bind(admin: SocketAddr, servers: &[SocketAddr]) -> Result<Self> {
        Ok(Self {
            admin: bind(admin)?,
            servers: servers.iter().copied().map(bind).collect::<Result<_>>()?,
        })
    }

    /// Serves an `order_server` at each address, and the probes at the admin listener.
    fn serve(
        self,
        engine: &SharedEngine,
        ledger: &Ledger,
        metrics: &Metrics,
        order_server: impl Fn() -> Router,
    ) -> Running {
        let (stop_servers, stop_admin) = (watch::channel(false).0, watch::channel(false).0);
        let (mut listen, mut serving) = (Vec::new(), Vec::new());
        for (listener, address) in self.servers {
            listen.push(address);
            let (metrics, stop) = (metrics.clone(), stop_servers.subscribe());
            serving.push(tokio::spawn(serve(listener, order_server(), metrics, stop)));
        }
        let (listener, admin) = self.admin;
        let probes = probes::router(engine.clone(), ledger.clone(), metrics.clone());
        let stop = stop_admin.subscribe();
        Running {
            listen,
            admin,
            stop_servers,
            stop_admin,
            serving,
            serving_admin: tokio::spawn(serve(listener, probes, metrics.clone(), stop)),
            workers: None,
            ledger: ledger.clone(),
        }
    }
}

impl Running {
    /// Stops accepting and sweeping, finishes the requests in flight, writes what is in the stream,
    /// and closes the database. What is not done within `grace` is dropped: accepted orders stay in
    /// the stream for the next start.
    pub async fn stop(self, grace: Duration) {
        let until = Instant::now() + grace;
        self.stop_servers.send_replace(true);
        if let Some(workers) = &self.workers {
            workers.stop_sweeping();
        }
        for task in self.serving {
            finish(task, until).await;
        }
        if let Some(workers) = self.workers {
            workers.stop(until).await;
        }
        self.stop_admin.send_replace(true);
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

/// The demo behind the button, if it is wanted, and the providers beside it.
fn payments(
    settings: &Settings,
    engine: &SharedEngine,
    ledger: &Ledger,
    metrics: &Metrics,
) -> Payments {
    let demo = || Arc::new(Demo::new(settings.webhook_secret.clone())) as Arc<dyn Button>;
    let button = settings.node.payment.demo.then(demo);
    let webhooks = settings.webhooks.iter().cloned();
    let others = webhooks.map(|each| Arc::new(each) as Arc<dyn Provider>);
    let (engine, ledger) = (engine.clone(), ledger.clone());
    Payments::new(button, others.collect(), engine, ledger, metrics.clone())
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
    /// Opens the ledger, and puts together what order servers share.
    async fn open(settings: Settings, engine: SharedEngine) -> Result<Self> {
        for (name, secret) in [
            ("operator's token", &settings.operator_token),
            ("webhook's secret", &settings.webhook_secret),
        ] {
            if secret.is_empty() {
                return Err(BackendError::Settings(format!("the {name} is empty")));
            }
        }
        if let Some(open) = settings.webhooks.iter().find(|each| each.is_open()) {
            let words = format!("the secret of payment provider `{}` is empty", open.name());
            return Err(BackendError::Settings(words));
        }
        let metrics = Metrics::new()?;
        let ledger = Ledger::open(&settings.ledger).await?;
        // Where others write to the ledger at the same time, the two are never at rest.
        if settings.exclusive {
            publishing::check_pair(engine.as_ref(), &ledger).await?;
        }
        ledger.seed(&settings.catalog).await?;
        Self::new(settings, engine, ledger, metrics)
    }

    fn new(
        mut settings: Settings,
        engine: SharedEngine,
        ledger: Ledger,
        metrics: Metrics,
    ) -> Result<Self> {
        let accounts = Accounts::new(&settings.node.accounts, &settings.webhook_secret)?;
        let payments = payments(&settings, &engine, &ledger, &metrics);
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
            catalogue: Catalogue::new(
                self.engine.clone(),
                self.ledger.clone(),
                self.metrics.clone(),
            ),
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
        let (writer, _, recovery) = self.workers()?;
        let ready = async {
            while self.engine.is_lost().await? {
                recovery.recover().await?;
            }
            writer.drain().await
        };
        if let Ok(ready) = tokio::time::timeout(DRAIN_MAX, ready).await {
            ready?;
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

    fn workers(&self) -> Result<(OrderWriter, Sweeper, Recovery)> {
        let (node, settings) = (&self.settings.node_name, &self.settings.node.writer);
        workers(node, settings, &self.engine, &self.ledger, &self.metrics)
    }
}
