//! Requests that arrive together travel as one call: while calls are under way others gather, and the
//! busier it is the more go together.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

/// Most requests in one call: its words fit Lua's stack, and others do not wait long for it.
const TOGETHER_MAX: usize = 256;
/// Calls of one kind under way at once.
const UNDER_WAY_MAX: usize = 4;

/// A request with the caller who waits for its answer.
pub(super) type Asked<Q, A> = (Q, oneshot::Sender<A>);

/// A queue of requests of one kind.
pub(super) struct Batch<Q, A> {
    queue: mpsc::Sender<Asked<Q, A>>,
    patience: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missed {
    /// Too many wait.
    Full,
    /// It did not come in time.
    Late,
}

impl<Q: Send + 'static, A: Send + 'static> Batch<Q, A> {
    /// Starts a queue; `serve` answers each request of a batch. Ends when the queue is dropped and
    /// what waits is served.
    pub(super) fn start<F, S>(waiting_max: usize, patience: Duration, serve: S) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn(Vec<Asked<Q, A>>) -> F + Send + Sync + 'static,
    {
        let (queue, mut waiting) = mpsc::channel(waiting_max.max(1));
        tokio::spawn(async move {
            let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
            // The semaphore is never closed.
            while let Ok(place) = Arc::clone(&under_way).acquire_owned().await {
                let mut together = Vec::new();
                if waiting.recv_many(&mut together, TOGETHER_MAX).await == 0 {
                    return;
                }
                let served = serve(together);
                tokio::spawn(async move {
                    served.await;
                    drop(place);
                });
            }
        });
        Self { queue, patience }
    }

    /// Asks, and waits for the answer. A caller that goes away before it comes harms nothing: what was
    /// asked is done all the same.
    pub(super) async fn ask(&self, request: Q) -> Result<A, Missed> {
        let until = Instant::now() + self.patience;
        let Ok(Ok(slot)) = timeout(self.patience, self.queue.reserve()).await else {
            return Err(Missed::Full);
        };
        let (reply, answer) = oneshot::channel();
        slot.send((request, reply));
        // Its own retries end before this does.
        match timeout_at(until + self.patience, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(Missed::Late),
        }
    }
}

/// Splits a batch into one for each key, in the order of the keys; within each the order stays.
pub(super) fn split_by<Q, A, K: Ord>(
    mut batch: Vec<Asked<Q, A>>,
    key_of: impl Fn(&Q) -> K,
) -> Vec<(K, Vec<Asked<Q, A>>)> {
    batch.sort_by_key(|(request, _)| key_of(request));
    let mut parts = Vec::new();
    while let Some((last, _)) = batch.last() {
        let key = key_of(last);
        let from = batch.partition_point(|(request, _)| key_of(request) < key);
        parts.push((key, batch.split_off(from)));
    }
    parts.reverse();
    parts
}
