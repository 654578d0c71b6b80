//! Bounded work: so much at once, so much waiting for its turn, the rest is shed at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lua_free_rules::refusal::Refusal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bound on one kind of work.
#[derive(Debug, Clone)]
pub struct Bounded {
    running: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
}

impl Bounded {
    /// At most `running_max` at once (at least one), and `waiting_max` waiting.
    pub fn new(running_max: usize, waiting_max: usize) -> Self {
        let running_max = running_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            running: Arc::new(Semaphore::new(running_max)),
            waiting: Arc::new(AtomicUsize::new(0)),
            waiting_max,
        }
    }

    /// A turn; it ends when the permit is dropped. Turns are given in order of arrival.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] at once if too many are waiting.
    pub async fn turn(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(permit);
        }
        let _place = Place::take(&self.waiting, self.waiting_max)?;
        // The semaphore is never closed.
        Arc::clone(&self.running)
            .acquire_owned()
            .await
            .map_err(|_| Refusal::Overloaded)
    }
}

/// A place among those that wait, given back however the waiting ends.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, waiting_max: usize) -> Result<Self, Refusal> {
        let place = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) < waiting_max {
            Ok(place)
        } else {
            Err(Refusal::Overloaded)
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_exceeds_the_bound_is_shed_and_places_come_back() {
        let work = Bounded::new(1, 1);
        let first = work.turn().await.unwrap();
        let waiting = tokio::spawn({
            let work = work.clone();
            async move { work.turn().await.map(drop) }
        });
        while work.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(work.turn().await.map(drop), Err(Refusal::Overloaded));
        drop(first);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert!(work.turn().await.is_ok());
        assert_eq!(work.waiting.load(Ordering::Relaxed), 0);
    }
}
