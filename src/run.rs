//! `floodgate run`: the edge, the order servers and the order writer in one process.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::embedded::{Embedded, OpenError};
use engine::{Clock as _, Promos as _, SharedEngine, SystemClock};
use lua_free_rules::config::Address;
use lua_free_rules::promo::{Phase, Snapshot};
use tokio::signal::unix::{SignalKind, signal};

use crate::load::{Loaded, load};
use crate::running::Running;
use crate::{Failure, Outcome, secrets};

/// How long closing the engine may take beyond the grace limit.
const CLOSE_MAX: Duration = Duration::from_secs(2);

pub fn run(folder: &Path) -> Outcome {
    let loaded = load(folder)?;
    log_to_stderr();
    loaded.make_data_dir()?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if loaded.config.node.edge.threads > 0 {
        builder.worker_threads(loaded.config.node.edge.threads);
    }
    builder.enable_all().build()?.block_on(serve(&loaded))
}

async fn serve(loaded: &Loaded) -> Outcome {
    // Signals are watched before anything is announced, so that none is missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let engine = Arc::new(open_engine(loaded)?);
    let shared: SharedEngine = engine.clone();
    let orders = backend::start(order_settings(loaded)?, shared.clone()).await?;
    let edge = proxy::start(edge_settings(loaded, &orders.listen)?, shared).await?;

    let running = Running {
        pid: std::process::id(),
        edge: edge.listen,
        edge_admin: edge.admin,
        orders: orders.listen.clone(),
        orders_admin: orders.admin,
    };
    running.write(&loaded.data_dir())?;
    announce(loaded, &running, &engine.promos().await?.1);

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    println!("stopping: work in flight is finished first");
    let deadline = Instant::now() + loaded.config.node.grace.duration();
    edge.stop(deadline.saturating_duration_since(Instant::now()))
        .await;
    orders
        .stop(deadline.saturating_duration_since(Instant::now()))
        .await;
    // What was asked of the engine is durable once it is answered; closing only tidies up.
    if tokio::time::timeout(CLOSE_MAX, engine.close())
        .await
        .is_err()
    {
        tracing::warn!("the engine was left open");
    }
    Running::remove(&loaded.data_dir());
    println!("stopped");
    Ok(())
}

fn open_engine(loaded: &Loaded) -> Outcome<Embedded> {
    match Embedded::open(
        &loaded.engine(),
        Arc::new(SystemClock),
        loaded.engine_options(),
    ) {
        Ok(engine) => Ok(engine),
        Err(error @ OpenError::Locked { .. }) => Err(Failure::Config(vec![error.to_string()])),
        Err(error) => Err(error.into()),
    }
}

fn order_settings(loaded: &Loaded) -> Outcome<backend::Settings> {
    let node = &loaded.config.node;
    Ok(backend::Settings {
        listen: node.orders.listen.iter().map(|address| address.0).collect(),
        admin: node.orders.admin.0,
        node: node.clone(),
        ledger: secrets::ledger(loaded)?,
        keys: secrets::key_ring(loaded)?,
        operator_token: backend::Secret::new(secrets::operator_token(loaded)?),
        webhook_secret: backend::Secret::new(secrets::webhook_secret(loaded)?),
        secure_cookies: node.edge.tls.is_some() || node.edge.behind_tls,
        catalog: loaded.config.catalog.clone(),
        promos: loaded.config.promos.clone(),
        publish_first: true,
    })
}

fn edge_settings(loaded: &Loaded, orders: &[SocketAddr]) -> Outcome<proxy::Settings> {
    let node = &loaded.config.node;
    let mut edge = node.edge.clone();
    if let Some(tls) = &mut edge.tls {
        tls.certificate = loaded.path(&tls.certificate).display().to_string();
        tls.key = loaded.path(&tls.key).display().to_string();
    }
    let upstreams = match edge.upstreams.as_slice() {
        [] => orders.to_vec(),
        named => named.iter().map(|Address(address)| *address).collect(),
    };
    Ok(proxy::Settings {
        listen: edge.listen.0,
        admin: edge.admin.0,
        upstreams,
        pages: loaded.path(&edge.pages),
        keys: secrets::key_ring(loaded)?,
        operator_token: secrets::operator_token(loaded)?,
        resubmit_for: node.orders.resubmit_for,
        edge,
    })
}

fn announce(loaded: &Loaded, running: &Running, promos: &[Snapshot]) {
    let scheme = if loaded.config.node.edge.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let list = |all: &[SocketAddr]| {
        all.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    println!("floodgate {} is open", env!("CARGO_PKG_VERSION"));
    println!("  shop      {scheme}://{}", running.edge);
    println!("  orders    {}", list(&running.orders));
    println!("  metrics   http://{}/metrics (edge)", running.edge_admin);
    println!(
        "            http://{}/metrics (orders)",
        running.orders_admin
    );
    println!("  data      {}", shown(&loaded.data_dir()).display());
    for promo in promos {
        println!("  promo {}   {}", promo.promo, describe(promo));
    }
    println!("Ctrl-C stops it when work in flight is done.");
}

/// A path as one would write it from here.
fn shown(path: &Path) -> PathBuf {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let here = std::env::current_dir().ok();
    let inside = here.and_then(|here| Some(whole.strip_prefix(here).ok()?.to_owned()));
    inside.unwrap_or(whole)
}

fn describe(promo: &Snapshot) -> String {
    let now = SystemClock.now();
    let stock = format!("{} of {} left", promo.available, promo.terms.stock);
    match promo.phase(now) {
        Phase::Upcoming => {
            let wait = Duration::from_millis(promo.terms.starts_at.ms_since(now).unsigned_abs());
            format!("opens in {} s, {stock}", wait.as_secs_f64().ceil())
        }
        Phase::Live => format!("live, {stock}"),
        Phase::Paused => format!("paused, {stock}"),
        Phase::Ended | Phase::Closed => format!("over, {stock}"),
    }
}

fn log_to_stderr() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,floodgate=info,floodgate_backend=info"));
    // Only a second call in one process could fail.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
