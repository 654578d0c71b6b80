//! From the configuration to what each part is started with: paths resolved, secrets read.

use std::net::SocketAddr;

use backend::Secret;
use lua_free_rules::config::Address;

use crate::load::Loaded;
use crate::{Failure, Outcome, secrets};

/// What order servers are started with, in a process of that name.
///
/// # Errors
/// Every secret that cannot be used.
pub fn order_servers(loaded: &Loaded, name: &str) -> Outcome<backend::Settings> {
    let mut faults = Faults::default();
    let keys = faults.take(secrets::key_ring(loaded))?;
    let operator_token = faults.take(secrets::operator_token(loaded))?;
    let webhook_secret = faults.take(secrets::webhook_secret(loaded))?;
    let webhooks = faults.take(secrets::webhooks(loaded))?;
    let ledger = faults.take(secrets::ledger(loaded))?;
    let (Some(keys), Some(operator_token), Some(webhook_secret), Some(webhooks), Some(ledger)) =
        (keys, operator_token, webhook_secret, webhooks, ledger)
    else {
        return Err(faults.failure());
    };
    let node = &loaded.config.node;
    Ok(backend::Settings {
        node_name: name.to_owned(),
        listen: node.orders.listen.iter().map(|address| address.0).collect(),
        admin: node.orders.admin.0,
        node: node.clone(),
        ledger,
        keys,
        operator_token: Secret::new(operator_token),
        webhook_secret: Secret::new(webhook_secret),
        webhooks,
        secure_cookies: node.edge.tls.is_some() || node.edge.behind_tls,
        catalog: loaded.config.catalog.clone(),
        promos: loaded.config.promos.clone(),
        publish_first: loaded.role.is_none(),
        exclusive: loaded.is_exclusive(),
    })
}

/// What the order writer and the sweeper are started with, in a process of that name.
///
/// # Errors
/// A password that cannot be read.
pub fn writer(loaded: &Loaded, name: &str) -> Outcome<backend::WriterSettings> {
    let node = &loaded.config.node;
    Ok(backend::WriterSettings {
        node_name: name.to_owned(),
        admin: node.writer.admin.0,
        ledger: secrets::ledger(loaded)?,
        writer: node.writer.clone(),
    })
}

/// What the edge is started with; `orders` is where the order servers of this process listen, if it has
/// any.
///
/// # Errors
/// Every secret that cannot be used.
pub fn edge(loaded: &Loaded, orders: &[SocketAddr]) -> Outcome<proxy::Settings> {
    let mut faults = Faults::default();
    let keys = faults.take(secrets::key_ring(loaded))?;
    let operator_token = faults.take(secrets::operator_token(loaded))?;
    let (Some(keys), Some(operator_token)) = (keys, operator_token) else {
        return Err(faults.failure());
    };
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
        keys,
        operator_token,
        resubmit_for: node.orders.resubmit_for,
        edge,
    })
}

/// What is wrong with the configuration, all of it.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    /// What there is, if it is good; what is wrong with it is kept.
    ///
    /// # Errors
    /// What the configuration is not to blame for.
    fn take<T>(&mut self, outcome: Outcome<T>) -> Outcome<Option<T>> {
        match outcome {
            Ok(good) => Ok(Some(good)),
            Err(Failure::Config(lines)) => {
                self.0.extend(lines);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    fn failure(self) -> Failure {
        Failure::Config(self.0)
    }
}
