//! The expiry sweeper: ends orders that were not paid in time, brings releases to the engine until
//! it confirms them, settles late payments that a crash interrupted, and does the engine's upkeep. Of
//! all processes one does it, by lease. The ledger refuses a sweeper that was replaced while its process
//! stood still.

use std::sync::Arc;
use std::time::Duration;

use engine::{Clock, EngineError, Fence, Release, SharedEngine, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, sleep, timeout};

use crate::error::{BackendError, Result};
use crate::ledger::{Ledger, SWEEPER};
use crate::metrics::Metrics;
use crate::payment::settle_late;

/// Orders ended in one transaction, and releases brought to the engine in one go.
const SWEEP_MAX: u32 = 500;
/// Late payments settled in one go.
const LATE_MAX: u32 = 50;
/// Shortest pause between two sweeps.
const SWEEP_EVERY_MIN: Duration = Duration::from_millis(10);
const TEND_EVERY: Duration = Duration::from_secs(1);
/// How long the lease outlives its holder. More than what may pass until it is renewed, taking it or the
/// renewal before included: who holds it knows that he does.
const LEASE_TTL: Duration = Duration::from_secs(5);
const TAKE_MAX: Duration = Duration::from_secs(2);
const RENEW_EVERY: Duration = Duration::from_secs(1);
const RENEW_MAX: Duration = Duration::from_secs(1);

/// The sweeper of a process.
#[derive(Clone)]
pub struct Sweeper {
    engine: SharedEngine,
    ledger: Ledger,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    every: Duration,
    holder: Arc<str>,
}

impl Sweeper {
    /// A sweeper that looks every `every`.
    pub fn new(engine: SharedEngine, ledger: Ledger, metrics: Metrics, every: Duration) -> Self {
        let sweeper = Self {
            engine,
            ledger,
            metrics,
            clock: Arc::new(SystemClock),
            every: every.max(SWEEP_EVERY_MIN),
            holder: Arc::from(""),
        };
        sweeper.on("sweeper")
    }

    /// The same, on the node of that name. Each start of a process holds the lease under a name of
    /// its own: one that stands still is not renewed by the one that came after it.
    #[must_use]
    pub fn on(self, node: &str) -> Self {
        let (pid, started) = (std::process::id(), SystemClock.now());
        self.named(&format!("{node} {pid} {}", started.0))
    }

    /// The same, under that very name.
    #[must_use]
    pub(crate) fn named(self, holder: &str) -> Self {
        let holder = Arc::from(holder);
        Self { holder, ..self }
    }

    /// The same, under another clock.
    #[must_use]
    pub fn under(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Sweeps whenever the lease is this process', until `stop` says true; then gives it back.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.hold_on() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.metrics.sweeping(false);
        let given = timeout(RENEW_MAX, self.engine.give_back(SWEEPER, &self.holder));
        if !matches!(given.await, Ok(Ok(()))) {
            tracing::debug!("the sweeper's lease ends by itself");
        }
    }

    async fn hold_on(&self) {
        loop {
            match timeout(TAKE_MAX, self.take()).await {
                Ok(Ok(Some(fence))) => self.sweep_while_held(fence).await,
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "nobody is known to sweep; trying again"),
                Err(_) => tracing::warn!("nobody is known to sweep; trying again"),
            }
            sleep(RENEW_EVERY).await;
        }
    }

    /// Takes or renews the lease, and keeps those who had it before from the ledger. `None` while another
    /// process has it.
    ///
    /// # Errors
    /// If the engine or the database is away; then the lease is not kept.
    pub(crate) async fn take(&self) -> Result<Option<Fence>> {
        let lease = self.engine.lease(SWEEPER, &self.holder, LEASE_TTL);
        let Some(fence) = lease.await? else {
            return Ok(None);
        };
        if let Err(error) = self.ledger.raise_fence(SWEEPER, fence).await {
            // Another one may reach the database.
            self.engine.give_back(SWEEPER, &self.holder).await?;
            return Err(error);
        }
        Ok(Some(fence))
    }

    async fn sweep_while_held(&self, fence: Fence) {
        tracing::info!(holder = %self.holder, fence = fence.0, "this process sweeps");
        self.metrics.sweeping(true);
        // Whichever ends first ends the others, in the middle of whatever they do.
        tokio::select! {
            () = self.renew_on(fence) => {}
            () = self.sweep_on(fence) => {}
            () = self.tend_on() => {}
        }
        self.metrics.sweeping(false);
        tracing::info!(holder = %self.holder, "this process sweeps no more");
    }

    /// Renews the lease until that fails once.
    async fn renew_on(&self, fence: Fence) {
        loop {
            sleep(RENEW_EVERY).await;
            let renewed = self.engine.lease(SWEEPER, &self.holder, LEASE_TTL);
            match timeout(RENEW_MAX, renewed).await {
                Ok(Ok(Some(still))) if still == fence => {}
                Ok(Ok(_)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the sweeper's lease was not renewed");
                    return;
                }
                Err(_) => {
                    tracing::warn!("the sweeper's lease was not renewed in time");
                    return;
                }
            }
        }
    }

    async fn sweep_on(&self, fence: Fence) {
        let mut ticks = ticks(self.every);
        loop {
            ticks.tick().await;
            match self.sweep(fence).await {
                Ok(()) => {}
                Err(error @ BackendError::Replaced(_)) => {
                    tracing::warn!(%error, "the sweep was not finished");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the sweep was not finished; the next one goes on");
                }
            }
        }
    }

    async fn tend_on(&self) {
        let mut ticks = ticks(TEND_EVERY);
        loop {
            ticks.tick().await;
            if let Err(error) = self.engine.tend().await {
                tracing::warn!(%error, "the engine's upkeep was not done; it is tried again");
            }
        }
    }

    /// One sweep, under the number that came with the lease.
    ///
    /// # Errors
    /// If the lease has passed on, or the database or the engine is away; what was not done is done
    /// by the next sweep.
    pub async fn sweep(&self, fence: Fence) -> Result<()> {
        self.expire(fence).await?;
        self.settle().await
    }

    /// Ends what was not paid in time. Returns how many orders that were.
    pub(crate) async fn expire(&self, fence: Fence) -> Result<usize> {
        let mut all = 0;
        loop {
            let now = self.clock.now();
            let expired = self.ledger.expire(now, SWEEP_MAX, fence).await?;
            self.metrics.swept("expired", expired);
            all += expired;
            if expired < SWEEP_MAX as usize {
                return Ok(all);
            }
        }
    }

    /// Brings the engine what it has to know, and forgets old codes. Done by two at once it is done once.
    pub(crate) async fn settle(&self) -> Result<()> {
        self.apply_releases().await?;
        for late in self.ledger.late_payments(LATE_MAX).await? {
            let settled = settle_late(
                &self.engine,
                &self.ledger,
                &self.metrics,
                &late,
                self.clock.now(),
            );
            if let Err(error) = settled.await {
                tracing::warn!(order = %late.order, %error, "a late payment is not settled yet");
                self.ledger
                    .note_late_try(&late.reference, self.clock.now())
                    .await?;
            }
        }
        self.ledger.purge_otps(self.clock.now()).await?;
        Ok(())
    }

    /// Brings releases that were not confirmed to the engine, all at once: it groups their commits.
    async fn apply_releases(&self) -> Result<()> {
        let pending = self.ledger.pending_releases(SWEEP_MAX).await?;
        if pending.is_empty() {
            return Ok(());
        }
        let mut calls = JoinSet::new();
        for release in pending {
            let engine = self.engine.clone();
            calls.spawn(async move { (release, engine.release(release).await) });
        }
        let (mut tried, mut away): (Vec<(Release, bool)>, Option<BackendError>) =
            (Vec::new(), None);
        while let Some(done) = calls.join_next().await {
            let (release, result) = done.map_err(|e| BackendError::Unexpected(e.to_string()))?;
            match result {
                Ok(applied_now) => {
                    tried.push((release, !applied_now));
                    self.metrics.swept("released", usize::from(applied_now));
                }
                Err(EngineError::Refused(refusal)) => {
                    let (order, number) = (release.order, release.number.0);
                    tracing::error!(%order, number, %refusal, "the engine refuses a release");
                    tried.push((release, false));
                }
                Err(error) => away = Some(error.into()),
            }
        }
        self.ledger.note_releases(&tried, self.clock.now()).await?;
        away.map_or(Ok(()), Err)
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use engine::embedded::{Embedded, Options};
    use engine::{Event, Leases as _, clock::ManualClock};
    use lua_free_rules::order::State;
    use lua_free_rules::units::Timestamp;

    use super::*;
    use crate::ledger::tests::{open, published, reserved};

    /// Two processes, one engine, one ledger.
    struct Two {
        _files: (tempfile::TempDir, tempfile::TempDir),
        clock: Arc<ManualClock>,
        engine: Arc<Embedded>,
        ledger: Ledger,
        sweepers: [Sweeper; 2],
    }

    async fn two() -> Two {
        let (dir, ledger) = open().await;
        let engine_dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(1_800_000_000_000)));
        let file = engine_dir.path().join("engine.db");
        let engine = Embedded::open(&file, clock.clone(), Options::default()).unwrap();
        let engine = Arc::new(engine);
        let sweeper = |name| {
            let metrics = Metrics::new().unwrap();
            let every = Duration::from_millis(10);
            let sweeper = Sweeper::new(engine.clone(), ledger.clone(), metrics, every);
            sweeper.under(clock.clone()).named(name)
        };
        let sweepers = [sweeper("a"), sweeper("b")];
        Two {
            _files: (dir, engine_dir),
            clock,
            engine,
            ledger,
            sweepers,
        }
    }

    async fn until(what: impl Fn() -> bool) {
        let waited = timeout(Duration::from_secs(60), async {
            while !what() {
                sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap();
    }

    #[tokio::test]
    async fn one_sweeps_and_the_other_takes_over() {
        let two = two().await;
        let start = |sweeper: &Sweeper| {
            let (stop, stopped) = watch::channel(false);
            let sweeper = sweeper.clone();
            (
                stop,
                tokio::spawn(async move { sweeper.run(stopped).await }),
            )
        };
        let [a, b] = &two.sweepers;
        let (stop_a, run_a) = start(a);
        until(|| a.metrics.is_sweeping()).await;
        let (_stop_b, run_b) = start(b);
        // It asked, and was told that another one sweeps.
        sleep(RENEW_EVERY).await;
        assert!(a.metrics.is_sweeping() && !b.metrics.is_sweeping());
        // Stopped in order, it gives the lease back.
        stop_a.send_replace(true);
        run_a.await.unwrap();
        assert!(!a.metrics.is_sweeping());
        until(|| b.metrics.is_sweeping()).await;
        // Killed, it keeps the lease until that ends.
        run_b.abort();
        let _gone = run_b.await;
        let (_stop_a, run_a) = start(a);
        assert_eq!(a.take().await.unwrap(), None);
        two.clock.advance_ms(5_000);
        until(|| a.metrics.is_sweeping()).await;
        run_a.abort();
    }

    #[tokio::test]
    async fn whoever_cannot_renew_stops() {
        let two = two().await;
        let a = two.sweepers[0].clone();
        let (_stop, stopped) = watch::channel(false);
        let run = tokio::spawn({
            let a = a.clone();
            async move { a.run(stopped).await }
        });
        until(|| a.metrics.is_sweeping()).await;
        two.engine.give_back(SWEEPER, "a").await.unwrap();
        let other = two.engine.lease(SWEEPER, "other", Duration::MAX);
        assert!(other.await.unwrap().is_some());
        until(|| !a.metrics.is_sweeping()).await;
        run.abort();
    }

    #[tokio::test]
    async fn one_that_stood_still_ends_no_order() {
        let two = two().await;
        let events: [Event; 2] = [published(50), reserved(2, 5, 1)];
        let now = two.clock.now();
        two.ledger.write_events(&events, now).await.unwrap();
        let [a, b] = &two.sweepers;
        let old = a.take().await.unwrap().unwrap();
        // It stands still; its lease ends, the order's time to pay too, and another one takes over.
        two.clock.advance_ms(86_400_000);
        let new = b.take().await.unwrap().unwrap();
        assert!(new > old);
        assert!(matches!(
            a.expire(old).await,
            Err(BackendError::Replaced(SWEEPER))
        ));
        let id = "7-1-2".parse().unwrap();
        let state = async || two.ledger.order(id).await.unwrap().unwrap().state;
        assert_eq!(state().await, State::Written);
        assert_eq!(b.expire(new).await.unwrap(), 1);
        assert_eq!(state().await, State::Expired);
        assert!(a.take().await.unwrap().is_none());
    }
}
