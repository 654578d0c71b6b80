//! Counts requests in flight, so that stopping ends as soon as none is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use prometheus::IntGauge;
use tokio::sync::Notify;

/// The requests in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    count: AtomicUsize,
    draining: AtomicBool,
    none_left: Notify,
    gauge: IntGauge,
}

/// One of them; counted until it is dropped, however it ends.
#[derive(Debug)]
pub(crate) struct Entered(Arc<InFlight>);

impl InFlight {
    pub fn new(gauge: IntGauge) -> Self {
        Self {
            count: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            none_left: Notify::new(),
            gauge,
        }
    }

    /// Counts one more.
    pub fn enter(self: &Arc<Self>) -> Entered {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.gauge.inc();
        Entered(self.clone())
    }

    /// Stopping has begun: no more are wanted.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether stopping has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns once none is left.
    pub async fn drained(&self) {
        loop {
            let mut none_left = std::pin::pin!(self.none_left.notified());
            none_left.as_mut().enable();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            none_left.await;
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.gauge.dec();
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none_left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn draining_ends_with_the_last_request() {
        let in_flight = Arc::new(InFlight::new(IntGauge::new("n", "n").unwrap()));
        in_flight.drained().await;
        let (first, second) = (in_flight.enter(), in_flight.enter());
        let waiting = tokio::spawn({
            let in_flight = in_flight.clone();
            async move { in_flight.drained().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
    }
}
