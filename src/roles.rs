//! `floodgate proxy`, `backend` and `writer`: the parts of `run` as processes of their own, on an engine
//! and a ledger that they share with others.

use std::path::Path;

use lua_free_rules::config::{EngineKind, Role};

use crate::engine::Home;
use crate::load::{Loaded, load};
use crate::process::{self, Grace, Stop};
use crate::{Outcome, settings};

/// Runs one role until it is told to stop.
pub fn start(folder: &Path, role: Role) -> Outcome {
    let loaded = load(folder, Some(role))?;
    let name = loaded.node_name(role.name());
    process::log_to_stderr(Some(name.clone()));
    process::runtime()?.block_on(async {
        match role {
            Role::Proxy => proxy(&loaded, &name).await,
            Role::Backend | Role::Writer => orders(&loaded, &name, role).await,
        }
    })
}

async fn proxy(loaded: &Loaded, name: &str) -> Outcome {
    let mut stop = Stop::watch()?;
    let settings = settings::edge(loaded, &[])?;
    let upstreams = process::listed(&settings.upstreams);
    let home = Home::open(loaded, name).await?;
    let edge = proxy::start(settings, home.shared()).await?;

    let tls = loaded.config.node.edge.tls.is_some();
    let shop = format!("{}://{}", if tls { "https" } else { "http" }, edge.listen);
    let lines = [
        ("shop", shop),
        ("orders", upstreams),
        ("metrics", format!("http://{}/metrics", edge.admin)),
    ];
    announce(loaded, name, &lines);

    stop.asked().await;
    let grace = Grace::begin(loaded);
    edge.stop(grace.left()).await;
    process::close(&home).await;
    Ok(())
}

async fn orders(loaded: &Loaded, name: &str, role: Role) -> Outcome {
    let mut stop = Stop::watch()?;
    // Secrets are asked for only where they are used, and before anything is opened.
    let order_servers = match role {
        Role::Backend => Some(settings::order_servers(loaded, name)?),
        Role::Proxy | Role::Writer => None,
    };
    let writer = settings::writer(loaded, name)?;
    let home = Home::open(loaded, name).await?;
    let engine = home.shared();
    let start = || async {
        match order_servers.clone() {
            Some(settings) => backend::start_order_servers(settings, engine.clone()).await,
            None => backend::start_writer(writer.clone(), engine.clone()).await,
        }
    };
    if let Some(running) = stop.or_start(start).await? {
        let mut lines = Vec::new();
        if !running.listen.is_empty() {
            lines.push(("orders", process::listed(&running.listen)));
        }
        lines.push(("metrics", format!("http://{}/metrics", running.admin)));
        announce(loaded, name, &lines);
        stop.asked().await;
        let grace = Grace::begin(loaded);
        running.stop(grace.left()).await;
    }
    process::close(&home).await;
    Ok(())
}

fn announce(loaded: &Loaded, name: &str, lines: &[(&str, String)]) {
    let role = loaded.role.map_or("", Role::name);
    println!(
        "floodgate {}: {role} {name} is open",
        env!("CARGO_PKG_VERSION")
    );
    for (what, where_it_is) in lines {
        println!("  {what:<9} {where_it_is}");
    }
    if let EngineKind::Redis(address) = &loaded.config.node.engine.kind {
        println!("  engine    {address}");
    }
    println!("Ctrl-C stops it when work in flight is done.");
}
