//! The order servers: which are alive, which has the fewest requests in flight, and how many each may
//! have. A place in flight is a lease that gives itself back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::metrics::Metrics;

const CHECK_EVERY: Duration = Duration::from_secs(1);
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Checks in a row that an order server may fail before others are preferred: one late answer under
/// load is no sign of death.
const CHECKS_FAILED_MAX: u32 = 3;

/// How long an order server is taken for one that answers oddly: it may be started anew as another one.
const ODD_FOR: Duration = Duration::from_secs(60);

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Alive,
    /// Late, or with an answer that is none.
    Failed,
    /// Nobody listens.
    Unreachable,
}

/// One order server.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub address: SocketAddr,
    /// The label in metrics.
    pub name: String,
    /// Whether nobody listens there. Optimistic at the start; a check says that it is back.
    unreachable: AtomicBool,
    /// Checks failed in a row.
    checks_failed: AtomicU32,
    in_flight: AtomicU32,
    /// Milliseconds after `born` until which its answers are taken for odd.
    odd_until_ms: AtomicU64,
    born: Instant,
}

impl Upstream {
    pub fn is_healthy(&self) -> bool {
        !self.is_unreachable() && self.checks_failed.load(Ordering::Relaxed) < CHECKS_FAILED_MAX
    }

    fn is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it was lately seen to answer an order in a way that the fast path does not take.
    pub fn answers_oddly(&self) -> bool {
        self.born.elapsed() < Duration::from_millis(self.odd_until_ms.load(Ordering::Relaxed))
    }

    /// For a while its orders go Pingora's way at once.
    pub fn note_odd_answer(&self) {
        let until = self.born.elapsed().saturating_add(ODD_FOR).as_millis();
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        if !self.answers_oddly() {
            tracing::warn!(upstream = %self.name, "answers of this order server take the longer way");
        }
        self.odd_until_ms.store(until, Ordering::Relaxed);
    }

    /// Takes it out of rotation until a check finds it alive.
    pub fn refused(&self) {
        self.note(Check::Unreachable);
    }

    fn note(&self, check: Check) {
        let was_healthy = self.is_healthy();
        match check {
            Check::Alive => {
                self.unreachable.store(false, Ordering::Relaxed);
                self.checks_failed.store(0, Ordering::Relaxed);
            }
            // At worst two that fail at once count as one.
            Check::Failed => {
                let failed = self.checks_failed.load(Ordering::Relaxed);
                self.checks_failed
                    .store(failed.saturating_add(1), Ordering::Relaxed);
            }
            Check::Unreachable => self.unreachable.store(true, Ordering::Relaxed),
        }
        let healthy = self.is_healthy();
        if healthy != was_healthy {
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

    /// Gives the place back; tells where it was.
    pub fn end(self) -> Arc<Upstream> {
        self.0.clone()
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
                unreachable: AtomicBool::new(false),
                checks_failed: AtomicU32::new(0),
                in_flight: AtomicU32::new(0),
                odd_until_ms: AtomicU64::new(0),
                born: Instant::now(),
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
    /// left out; `None` if all are full. Equals take turns. Where no healthy one is left, those that
    /// only failed checks are tried: slow is better than closed.
    pub fn lease(&self, tried: &[SocketAddr]) -> Option<Lease> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let mut candidates: Vec<(u32, &Arc<Upstream>)> = (0..self.all.len())
            .map(|step| &self.all[turn.wrapping_add(step) % self.all.len()])
            .filter(|upstream| !upstream.is_unreachable() && !tried.contains(&upstream.address))
            .map(|upstream| (upstream.in_flight(), upstream))
            .collect();
        if candidates.iter().any(|(_, upstream)| upstream.is_healthy()) {
            candidates.retain(|(_, upstream)| upstream.is_healthy());
        }
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
                    upstream.note(check(&client, upstream.address).await);
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
async fn check(client: &reqwest::Client, address: SocketAddr) -> Check {
    let request = client
        .get(format!("http://{address}/live"))
        .timeout(CHECK_TIMEOUT);
    match request.send().await {
        Ok(answer) if !answer.status().is_server_error() => Check::Alive,
        Err(error) if error.is_connect() && !error.is_timeout() => Check::Unreachable,
        Ok(_) | Err(_) => Check::Failed,
    }
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
    fn late_checks_do_not_close_the_shop() {
        let upstreams = Upstreams::new(&addresses(), 2);
        let [slow, other] = upstreams.all() else {
            panic!("two");
        };
        for _ in 1..CHECKS_FAILED_MAX {
            slow.note(Check::Failed);
        }
        assert!(slow.is_healthy(), "a late check or two change nothing");
        slow.note(Check::Failed);
        assert!(!slow.is_healthy());
        assert_eq!(
            upstreams.lease(&[]).unwrap().upstream().address,
            other.address
        );
        let retry = upstreams.lease(&[other.address]).unwrap();
        assert_eq!(retry.upstream().address, slow.address, "better than nobody");
        for _ in 0..CHECKS_FAILED_MAX {
            other.note(Check::Failed);
        }
        assert!(upstreams.lease(&[]).is_some(), "all slow still serves");
        slow.note(Check::Alive);
        assert!(slow.is_healthy(), "one good check is enough");
        other.refused();
        slow.refused();
        assert!(upstreams.lease(&[]).is_none(), "nobody listens");
    }

    #[test]
    fn neither_the_sick_nor_the_tried_are_chosen() {
        let upstreams = Upstreams::new(&addresses(), 2);
        let [first, second] = addresses();
        let lease = upstreams.lease(&[first]).unwrap();
        assert_eq!(lease.upstream().address, second);
        assert!(upstreams.lease(&[first, second]).is_none());
        lease.upstream().refused();
        assert_eq!(upstreams.lease(&[]).unwrap().upstream().address, first);
        assert!(Upstreams::new(&[], 2).lease(&[]).is_none());
    }
}
