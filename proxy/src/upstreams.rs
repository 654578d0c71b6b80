//! The order servers: which are alive, which has the fewest requests in flight, and how many each may
//! have. A place in flight is a lease that gives itself back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use crate::metrics::Metrics;

const CHECK_EVERY: Duration = Duration::from_secs(1);
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// One order server.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub address: SocketAddr,
    /// The label in metrics.
    pub name: String,
    /// Optimistic at the start; a failed connection or check says otherwise, a check says it is back.
    healthy: AtomicBool,
    in_flight: AtomicU32,
}

impl Upstream {
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Takes it out of rotation until a check finds it alive.
    pub fn failed(&self) {
        self.set_healthy(false);
    }

    fn set_healthy(&self, healthy: bool) {
        if self.healthy.swap(healthy, Ordering::Relaxed) != healthy {
            tracing::warn!(upstream = %self.name, healthy, "order server changed");
        }
    }

    fn take_place(&self, in_flight_max: u32) -> bool {
        self.in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < in_flight_max).then_some(count + 1)
            })
            .is_ok()
    }
}

/// A place among the requests in flight to one order server.
#[derive(Debug)]
pub(crate) struct Lease(Arc<Upstream>);

impl Lease {
    pub fn upstream(&self) -> &Upstream {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All order servers.
pub(crate) struct Upstreams {
    all: Vec<Arc<Upstream>>,
    in_flight_max: u32,
    next: AtomicUsize,
}

impl Upstreams {
    pub fn new(addresses: &[SocketAddr], in_flight_max: u32) -> Self {
        let upstream = |address: &SocketAddr| {
            Arc::new(Upstream {
                address: *address,
                name: address.to_string(),
                healthy: AtomicBool::new(true),
                in_flight: AtomicU32::new(0),
            })
        };
        Self {
            all: addresses.iter().map(upstream).collect(),
            in_flight_max,
            next: AtomicUsize::new(0),
        }
    }

    pub fn all(&self) -> &[Arc<Upstream>] {
        &self.all
    }

    /// A place at the healthy order server with the fewest requests in flight, those in `tried`
    /// left out; `None` if none is healthy or all are full. Equals take turns.
    pub fn lease(&self, tried: &[SocketAddr]) -> Option<Lease> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let mut candidates: Vec<(u32, &Arc<Upstream>)> = (0..self.all.len())
            .map(|step| &self.all[turn.wrapping_add(step) % self.all.len()])
            .filter(|upstream| upstream.is_healthy() && !tried.contains(&upstream.address))
            .map(|upstream| (upstream.in_flight(), upstream))
            .collect();
        candidates.sort_by_key(|(in_flight, _)| *in_flight);
        candidates
            .into_iter()
            .find(|(_, upstream)| upstream.take_place(self.in_flight_max))
            .map(|(_, upstream)| Lease(upstream.clone()))
    }

    /// Asks every order server for `GET /live` each second until the task is dropped.
    pub async fn check(self: Arc<Self>, client: reqwest::Client, metrics: Arc<Metrics>) {
        let mut ticks = tokio::time::interval(CHECK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut checks = tokio::task::JoinSet::new();
            for upstream in &self.all {
                let (client, upstream) = (client.clone(), upstream.clone());
                checks.spawn(async move {
                    let healthy = is_alive(&client, upstream.address).await;
                    upstream.set_healthy(healthy);
                });
            }
            while checks.join_next().await.is_some() {}
            for upstream in &self.all {
                metrics.upstream_state(&upstream.name, upstream.is_healthy(), upstream.in_flight());
            }
        }
    }
}

/// Any answer that is not a server error counts: the process is there and takes requests.
async fn is_alive(client: &reqwest::Client, address: SocketAddr) -> bool {
    let request = client
        .get(format!("http://{address}/live"))
        .timeout(CHECK_TIMEOUT);
    matches!(request.send().await, Ok(answer) if !answer.status().is_server_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> [SocketAddr; 2] {
        ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap())
    }

    #[test]
    fn the_least_busy_serves_and_the_cap_holds() {
        let upstreams = Upstreams::new(&addresses(), 2);
        let leases: Vec<Lease> = std::iter::from_fn(|| upstreams.lease(&[])).collect();
        assert_eq!(leases.len(), 4);
        assert!(
            upstreams
                .all()
                .iter()
                .all(|upstream| upstream.in_flight() == 2)
        );
        drop(leases);
        assert!(
            upstreams
                .all()
                .iter()
                .all(|upstream| upstream.in_flight() == 0)
        );
    }

    #[test]
    fn neither_the_sick_nor_the_tried_are_chosen() {
        let upstreams = Upstreams::new(&addresses(), 2);
        let [first, second] = addresses();
        let lease = upstreams.lease(&[first]).unwrap();
        assert_eq!(lease.upstream().address, second);
        assert!(upstreams.lease(&[first, second]).is_none());
        lease.upstream().failed();
        assert_eq!(upstreams.lease(&[]).unwrap().upstream().address, first);
        assert!(Upstreams::new(&[], 2).lease(&[]).is_none());
    }
}
