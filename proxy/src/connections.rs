//! How many connections the public listener holds: in all, and of one network, so that neither a crowd
//! nor one neighbour of it can use up the machine.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ipnet::IpNet;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use prometheus::{IntCounter, IntGauge};

use crate::client;
use crate::limits::Network;

/// The connections that are open.
#[derive(Debug)]
pub(crate) struct Connections {
    max: usize,
    per_network_max: usize,
    /// Proxies speak for many: only the whole bounds them.
    trusted: Vec<IpNet>,
    open: Mutex<Open>,
    gauge: IntGauge,
    refused: IntCounter,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_network: HashMap<Network, usize>,
}

/// One of them; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    connections: Arc<Connections>,
    network: Option<Network>,
}

impl Connections {
    pub fn new(
        (max, per_network_max): (u32, u32),
        trusted: Vec<IpNet>,
        gauge: IntGauge,
        refused: IntCounter,
    ) -> Self {
        Self {
            max: usize::try_from(max).unwrap_or(usize::MAX),
            per_network_max: usize::try_from(per_network_max).unwrap_or(usize::MAX),
            trusted,
            open: Mutex::default(),
            gauge,
            refused,
        }
    }

    /// A place for a connection from `address`, if there is one left.
    pub fn hold(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Held> {
        let trusted =
            |address: &IpAddr| self.trusted.iter().any(|network| network.contains(address));
        let network = address
            .map(|address| address.to_canonical())
            .filter(|address| !trusted(address))
            .map(Network::from);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_network = network.and_then(|network| open.by_network.get(&network).copied());
        if open.all >= self.max || of_network.unwrap_or(0) >= self.per_network_max {
            self.refused.inc();
            return None;
        }
        open.all += 1;
        if let Some(network) = network {
            *open.by_network.entry(network).or_default() += 1;
        }
        self.gauge.inc();
        Some(Held {
            connections: self.clone(),
            network,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut open = self
            .connections
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        if let Some(network) = self.network
            && let Some(count) = open.by_network.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                open.by_network.remove(&network);
            }
        }
        self.connections.gauge.dec();
    }
}

/// An application behind a listener that takes only so many connections; the rest are closed at once.
pub(crate) struct Counted<A> {
    app: Arc<A>,
    connections: Arc<Connections>,
}

impl<A> Counted<A> {
    pub fn new(app: A, connections: Arc<Connections>) -> Self {
        Self {
            app: Arc::new(app),
            connections,
        }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Counted<A> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let peer = client::peer(stream.get_socket_digest().as_deref());
        let _held = self.connections.hold(peer.map(|peer| peer.ip()))?;
        // Its own requests follow each other here, so that the place is held all along.
        let mut next = self.app.process_new(stream, shutdown).await;
        while let Some(stream) = next {
            next = self.app.process_new(stream, shutdown).await;
        }
        None
    }

    async fn cleanup(&self) {
        self.app.cleanup().await;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Room for so many, of any network.
    pub(crate) fn connections(max: usize) -> Connections {
        let max = u32::try_from(max).unwrap();
        room((max, max))
    }

    fn room(max: (u32, u32)) -> Connections {
        let gauge = IntGauge::new("open", "open").unwrap();
        let refused = IntCounter::new("refused", "refused").unwrap();
        Connections::new(max, vec!["10.0.0.0/8".parse().unwrap()], gauge, refused)
    }

    #[test]
    fn neither_a_crowd_nor_a_neighbour_takes_more_than_its_share() {
        let connections = Arc::new(room((5, 2)));
        let hold = |address: &str| connections.hold(Some(address.parse().unwrap()));
        let first = hold("192.0.2.1").unwrap();
        let _second = hold("192.0.2.1").unwrap();
        assert!(hold("192.0.2.1").is_none());
        drop(first);
        let _again = hold("192.0.2.1").unwrap();
        // One /64 is one neighbour; a trusted proxy speaks for many.
        let _six = hold("2001:db8::1").unwrap();
        let proxied = ["10.1.1.1", "::ffff:10.1.1.1"];
        let _proxied = proxied.map(|address| hold(address).unwrap());
        assert!(hold("198.51.100.1").is_none());
        let (open, refused) = (connections.gauge.get(), connections.refused.get());
        assert_eq!((open, refused), (5, 2));
    }
}
