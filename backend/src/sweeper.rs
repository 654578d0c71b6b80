//! The expiry sweeper: ends orders that were not paid in time, brings releases to the engine until
//! it confirms them, settles late payments that a crash interrupted, and does the engine's upkeep.

use std::time::Duration;

use engine::{Clock as _, EngineError, Release, SharedEngine, SystemClock};
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
    every: Duration,
}

impl Sweeper {
    /// A sweeper that looks every `every`.
    pub fn new(engine: SharedEngine, ledger: Ledger, metrics: Metrics, every: Duration) -> Self {
        Self {
            engine,
            ledger,
            metrics,
            every: every.max(SWEEP_EVERY_MIN),
        }
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
            let expired = self.ledger.expire(SystemClock.now(), SWEEP_MAX).await?;
            self.metrics.swept("expired", expired);
            if expired < SWEEP_MAX as usize {
                break;
            }
        }
        apply_releases(&self.engine, &self.ledger, &self.metrics).await?;
        for late in self.ledger.late_payments(LATE_MAX).await? {
            if let Err(error) = settle_late(&self.engine, &self.ledger, &self.metrics, &late).await
            {
                tracing::warn!(order = %late.order, %error, "a late payment is not settled yet");
                self.ledger
                    .note_late_try(&late.reference, SystemClock.now())
                    .await?;
            }
        }
        self.ledger.purge_otps(SystemClock.now()).await?;
        Ok(())
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Brings releases that were not confirmed to the engine, all at once: it groups their commits.
async fn apply_releases(engine: &SharedEngine, ledger: &Ledger, metrics: &Metrics) -> Result<()> {
    let pending = ledger.pending_releases(SWEEP_MAX).await?;
    if pending.is_empty() {
        return Ok(());
    }
    let mut calls = JoinSet::new();
    for release in pending {
        let engine = engine.clone();
        calls.spawn(async move { (release, engine.release(release).await) });
    }
    let (mut tried, mut away): (Vec<(Release, bool)>, Option<BackendError>) = (Vec::new(), None);
    while let Some(done) = calls.join_next().await {
        let (release, result) = done.map_err(|e| BackendError::Unexpected(e.to_string()))?;
        match result {
            Ok(applied_now) => {
                tried.push((release, !applied_now));
                metrics.swept("released", usize::from(applied_now));
            }
            Err(EngineError::Refused(refusal)) => {
                let (order, number) = (release.order, release.number.0);
                tracing::error!(%order, number, %refusal, "the engine refuses a release");
                tried.push((release, false));
            }
            Err(error) => away = Some(error.into()),
        }
    }
    ledger.note_releases(&tried, SystemClock.now()).await?;
    away.map_or(Ok(()), Err)
}
