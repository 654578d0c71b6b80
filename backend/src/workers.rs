//! The workers of a process: the order writer, the sweeper, the recovery, started again when they fail, and stopped
//! in that order in which nothing is left behind.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::recovery::Recovery;
use crate::sweeper::Sweeper;
use crate::writer::OrderWriter;

/// Pause before a worker that failed is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Order writer, sweeper and recovery at work.
pub(crate) struct Workers {
    stop_sweeping: watch::Sender<bool>,
    stop_writing: watch::Sender<bool>,
    sweeping: JoinHandle<()>,
    writing: JoinHandle<()>,
    recovering: JoinHandle<()>,
}

impl Workers {
    /// Starts all of them on the node of that name.
    pub(crate) fn start(
        node: &str,
        writer: OrderWriter,
        sweeper: Sweeper,
        recovery: Recovery,
    ) -> Self {
        tracing::info!(node, "this process writes orders and ends what is not paid");
        let (stop_sweeping, stop_writing) = (watch::channel(false).0, watch::channel(false).0);
        let (sweeper_stops, writer_stops) = (stop_sweeping.subscribe(), stop_writing.subscribe());
        let recovery_stops = stop_sweeping.subscribe();
        Self {
            stop_sweeping,
            stop_writing,
            sweeping: tokio::spawn(supervise("sweeper", RESTART_PAUSE, move || {
                let (sweeper, stop) = (sweeper.clone(), sweeper_stops.clone());
                async move { sweeper.run(stop).await }
            })),
            writing: tokio::spawn(supervise("order writer", RESTART_PAUSE, move || {
                let (writer, stop) = (writer.clone(), writer_stops.clone());
                async move { writer.run(stop).await }
            })),
            recovering: tokio::spawn(supervise("recovery", RESTART_PAUSE, move || {
                let (recovery, stop) = (recovery.clone(), recovery_stops.clone());
                async move { recovery.run(stop).await }
            })),
        }
    }

    /// Tells sweeper and recovery to stop.
    pub(crate) fn stop_sweeping(&self) {
        self.stop_sweeping.send_replace(true);
    }

    /// Stops the sweeper, then the writer, which first writes what is in the stream.
    pub(crate) async fn stop(self, until: Instant) {
        self.stop_sweeping();
        finish(self.sweeping, until).await;
        finish(self.recovering, until).await;
        self.stop_writing.send_replace(true);
        finish(self.writing, until).await;
    }
}

/// Runs a worker until it ends by itself; one that panics is started again. What it does can be
/// repeated, so it may be cut off anywhere.
async fn supervise<F>(name: &str, pause: Duration, start: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    // Dropped together with this future, and the worker with it.
    let mut worker = JoinSet::new();
    loop {
        worker.spawn(start());
        match worker.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!(name, %error, "a worker failed and is started again");
                tokio::time::sleep(pause).await;
            }
            _ => return,
        }
    }
}

/// Waits for a task until a moment, then ends it.
pub(crate) async fn finish(mut task: JoinHandle<()>, until: Instant) {
    if tokio::time::timeout_at(until, &mut task).await.is_err() {
        task.abort();
        // Its connections and transactions are closed once it is gone.
        let _ended = task.await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_worker_that_panics_is_started_again() {
        let starts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&starts);
        supervise("test", Duration::ZERO, move || {
            let start = counted.fetch_add(1, Ordering::SeqCst);
            async move { assert!(start > 1, "this panic is part of the test") }
        })
        .await;
        assert_eq!(starts.load(Ordering::SeqCst), 3);
    }
}
