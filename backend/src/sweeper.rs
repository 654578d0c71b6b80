//! The expiry sweeper: ends orders that were not paid in time, brings releases to the engine until
//! it confirms them, settles late payments that a crash interrupted, and does the engine's upkeep.

use std::sync::Arc;
use std::time::Duration;

use engine::{Clock, EngineError, Release, SharedEngine, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::error::{BackendError, Result};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::payment::settle_late;

/// Orders ended in one transaction, and releases brought to the engine in one go.
const SWEEP_MAX: u32 = 500;
/// Late payments settled in one go.
const LATE_MAX: u32 = 50;
/// Shortest pause between two sweeps.
const SWEEP_EVERY_MIN: Duration = Duration::from_millis(10);
const TEND_EVERY: Duration = Duration::from_secs(1);

/// The sweeper of a process.
#[derive(Clone)]
pub struct Sweeper {
    engine: SharedEngine,
    ledger: Ledger,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    every: Duration,
}

impl Sweeper {
    /// A sweeper that looks every `every`.
    pub fn new(engine: SharedEngine, ledger: Ledger, metrics: Metrics, every: Duration) -> Self {
        Self {
            engine,
            ledger,
            metrics,
            clock: Arc::new(SystemClock),
            every: every.max(SWEEP_EVERY_MIN),
        }
    }

    /// The same, under another clock.
    #[must_use]
    pub fn under(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Sweeps until `stop` says true.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.sweep_on() => {}
            () = self.tend_on() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn sweep_on(&self) {
        let mut ticks = ticks(self.every);
        loop {
            ticks.tick().await;
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "the sweep was not finished; the next one goes on");
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

    /// One sweep.
    ///
    /// # Errors
    /// If the database or the engine is away; what was not done is done by the next sweep.
    pub async fn sweep(&self) -> Result<()> {
        loop {
            let expired = self.ledger.expire(self.clock.now(), SWEEP_MAX).await?;
            self.metrics.swept("expired", expired);
            if expired < SWEEP_MAX as usize {
                break;
            }
        }
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
