//! Counts requests in flight, so that stopping ends as soon as none is left.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Threads count in so many places: few share one.
const PLACES: usize = 64;

/// The requests in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    places: Vec<Arc<Place>>,
    draining: Arc<Draining>,
}

/// What some threads count, in memory that no other thread writes.
#[derive(Debug)]
#[repr(align(128))]
struct Place {
    count: AtomicUsize,
    draining: Arc<Draining>,
}

#[derive(Debug, Default)]
struct Draining {
    begun: AtomicBool,
    fewer: Notify,
}

/// One of them; counted until it is dropped, however it ends.
#[derive(Debug)]
pub(crate) struct Entered(Arc<Place>);

impl Default for InFlight {
    fn default() -> Self {
        let draining = Arc::<Draining>::default();
        let place = |_| {
            let (count, draining) = (AtomicUsize::new(0), draining.clone());
            Arc::new(Place { count, draining })
        };
        Self {
            places: (0..PLACES).map(place).collect(),
            draining,
        }
    }
}

impl InFlight {
    /// Counts one more.
    pub fn enter(&self) -> Entered {
        let place = self.places[own_place()].clone();
        place.count.fetch_add(1, Ordering::AcqRel);
        Entered(place)
    }

    /// How many there are. While some come and others go, this is about right.
    pub fn count(&self) -> usize {
        let counts = self.places.iter();
        counts.map(|place| place.count.load(Ordering::SeqCst)).sum()
    }

    /// Stopping has begun: no more are wanted.
    pub fn begin_drain(&self) {
        self.draining.begun.store(true, Ordering::SeqCst);
    }

    /// Whether stopping has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.begun.load(Ordering::Acquire)
    }

    /// Returns once none is left, after [`InFlight::begin_drain`].
    pub async fn drained(&self) {
        loop {
            let mut fewer = std::pin::pin!(self.draining.fewer.notified());
            fewer.as_mut().enable();
            // One thread's is counted after the other's: only twice none is none.
            if self.count() == 0 && self.count() == 0 {
                return;
            }
            fewer.await;
        }
    }
}

/// Where this thread counts.
fn own_place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % PLACES);
    }
    OWN.get()
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Self(place) = self;
        // Sequentially consistent, as is the other side: either this sees that draining has begun, or the
        // one who drains sees this one gone.
        place.count.fetch_sub(1, Ordering::SeqCst);
        if place.draining.begun.load(Ordering::SeqCst) {
            place.draining.fewer.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn draining_ends_with_the_last_request() {
        let in_flight = Arc::new(InFlight::default());
        in_flight.begin_drain();
        in_flight.drained().await;
        let first = in_flight.enter();
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| in_flight.enter()).join());
        let second = elsewhere.unwrap();
        assert_eq!(in_flight.count(), 2);
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
