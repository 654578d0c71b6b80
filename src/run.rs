//! `floodgate run`: the edge, the order servers and the order writer in one process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::{Clock as _, SystemClock};
use lua_free_rules::config::EngineKind;
use lua_free_rules::promo::{Phase, Snapshot};

use crate::engine::Home;
use crate::load::{Loaded, load};
use crate::process::{self, Grace, Stop};
use crate::running::Running;
use crate::{Outcome, settings};

/// What its name ends with where its host makes it.
const WHAT: &str = "run";

pub fn run(folder: &Path) -> Outcome {
    let loaded = load(folder, None)?;
    process::log_to_stderr(None);
    loaded.make_data_dir()?;
    process::runtime()?.block_on(serve(&loaded))
}

async fn serve(loaded: &Loaded) -> Outcome {
    let mut stop = Stop::watch()?;
    let name = loaded.node_name(WHAT);
    let order_servers = settings::order_servers(loaded, &name)?;
    let home = Home::open(loaded, &name).await?;
    let engine = home.shared();
    let started = if loaded.is_exclusive() {
        Some(backend::start(order_servers, engine.clone()).await?)
    } else {
        let start = || backend::start(order_servers.clone(), engine.clone());
        stop.or_start(start).await?
    };
    let Some(orders) = started else {
        process::close(&home).await;
        return Ok(());
    };
    let edge = proxy::start(settings::edge(loaded, &orders.listen)?, engine.clone()).await?;

    let running = Running {
        pid: std::process::id(),
        edge: edge.listen,
        edge_admin: edge.admin,
        orders: orders.listen.clone(),
        orders_admin: orders.admin,
    };
    running.write(&loaded.data_dir())?;
    // An engine that is away just now has no less to sell.
    let promos = engine
        .promos()
        .await
        .map_or_else(|_| Vec::new(), |(_, promos)| promos);
    announce(loaded, &running, &promos);

    stop.asked().await;
    let grace = Grace::begin(loaded);
    edge.stop(grace.left()).await;
    orders.stop(grace.left()).await;
    Running::remove(&loaded.data_dir());
    process::close(&home).await;
    Ok(())
}

fn announce(loaded: &Loaded, running: &Running, promos: &[Snapshot]) {
    let scheme = if loaded.config.node.edge.tls.is_some() {
        "https"
    } else {
        "http"
    };
    println!("floodgate {} is open", env!("CARGO_PKG_VERSION"));
    println!("  shop      {scheme}://{}", running.edge);
    println!("  orders    {}", process::listed(&running.orders));
    println!("  metrics   http://{}/metrics (edge)", running.edge_admin);
    println!(
        "            http://{}/metrics (orders)",
        running.orders_admin
    );
    println!("  data      {}", shown(&loaded.data_dir()).display());
    if let EngineKind::Redis(address) = &loaded.config.node.engine.kind {
        println!("  engine    {address}");
    }
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
