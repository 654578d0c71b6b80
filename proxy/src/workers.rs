//! The threads that serve. Each has a listening socket, a runtime and connections to order servers of its own: a
//! connection stays on the thread that took it, and none waits in a queue that another thread empties.

use std::convert::Infallible;
use std::io;
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use pingora::server::ShutdownWatch;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Puzzles that are out of stock are made beside the thread, one at a time for each.
const BLOCKING_THREADS_MAX: usize = 1;
/// Dropping what is left on a thread takes no longer than this, or is not waited for.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Threads that have been started. When this is dropped they end, and drop what they were doing.
#[derive(Debug)]
pub(crate) struct Workers {
    shutdown: watch::Sender<bool>,
    end: watch::Sender<bool>,
    /// Closed when none accepts any more.
    accepting: mpsc::Receiver<Infallible>,
    /// Closed when none is left.
    living: mpsc::Receiver<Infallible>,
}

impl Workers {
    /// Starts one for each of the `posts`. It runs what `serve` makes of its post, which ends when the watch
    /// beside it says so; what that has spawned goes on until [`Workers::end`]. With `pin`, each is bound to
    /// one of the processors that the process may use. `before_sleep` is called on a thread that has nothing
    /// to do.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start<P, S, F>(
        posts: Vec<P>,
        pin: bool,
        before_sleep: fn(),
        serve: S,
    ) -> io::Result<Self>
    where
        P: Send + 'static,
        S: Fn(P, ShutdownWatch) -> F + Clone + Send + 'static,
        F: Future<Output = ()>,
    {
        let (shutdown, watch) = watch::channel(false);
        let (end, end_watch) = watch::channel(false);
        let (accepts, accepting) = mpsc::channel(1);
        let (lives, living) = mpsc::channel(1);
        let workers = Self {
            shutdown,
            end,
            accepting,
            living,
        };
        let allowed = sched_getaffinity(None)?;
        let processors = if pin { list(&allowed) } else { Vec::new() };
        for (number, post) in posts.into_iter().enumerate() {
            let (serve, shutdown, end) = (serve.clone(), watch.clone(), end_watch.clone());
            let (accepts, lives) = (accepts.clone(), lives.clone());
            let processor = processors.get(number % processors.len().max(1)).copied();
            let runtime = runtime(before_sleep, allowed)?;
            let thread = thread::Builder::new().name(format!("edge-{number}"));
            thread.spawn(move || {
                let _lives = lives;
                bind(processor);
                runtime.block_on(async move {
                    serve(post, shutdown).await;
                    drop(accepts);
                    until_told(end).await;
                });
                runtime.shutdown_background();
            })?;
        }
        Ok(workers)
    }

    /// Tells all to accept no more; returns when none does.
    pub async fn stop_accepting(&mut self) {
        self.shutdown.send_replace(true);
        self.accepting.recv().await;
    }

    /// Ends them, and drops what they were doing.
    pub async fn end(mut self) {
        self.end.send_replace(true);
        if timeout(END_WITHIN, self.living.recv()).await.is_err() {
            tracing::warn!("a thread of the edge does not end");
        }
    }
}

/// Returns when the watch says so, or nobody is left to say so.
pub(crate) async fn until_told(mut watch: watch::Receiver<bool>) {
    let _ = watch.wait_for(|is_told| *is_told).await;
}

/// How many threads `threads` asks for: 0 stands for as many as the process may use processors at once, by
/// its affinity and by the quota of its control group.
pub(crate) fn count(threads: usize) -> usize {
    match threads {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        threads => threads,
    }
}

/// The processors in a set.
fn list(set: &CpuSet) -> Vec<usize> {
    let all = 0..CpuSet::MAX_CPU;
    all.filter(|processor| set.is_set(*processor)).collect()
}

/// Binds this thread. Where the system does not let it, it serves unbound.
fn bind(processor: Option<usize>) {
    let Some(processor) = processor else { return };
    let mut only = CpuSet::new();
    only.set(processor);
    if let Err(error) = sched_setaffinity(None, &only) {
        tracing::warn!(%error, processor, "a thread of the edge cannot be bound to a processor");
    }
}

fn runtime(before_sleep: fn(), allowed: CpuSet) -> io::Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    // Those beside it would be bound to its processor too.
    builder.on_thread_start(move || {
        if let Err(error) = sched_setaffinity(None, &allowed) {
            tracing::debug!(%error, "a thread beside one of the edge stays bound");
        }
    });
    builder.on_thread_park(before_sleep);
    builder.max_blocking_threads(BLOCKING_THREADS_MAX);
    builder.enable_all().build()
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn what_was_spawned_goes_on_until_the_end() {
        let (names, mut named) = mpsc::unbounded_channel();
        let posts = vec![names; 3];
        let serve = |names: mpsc::UnboundedSender<_>, shutdown| async {
            let name = thread::current().name().map(str::to_owned);
            tokio::spawn(async move {
                names.send(name).unwrap();
                pending::<()>().await;
            });
            until_told(shutdown).await;
        };
        let mut workers = Workers::start(posts, false, || (), serve).unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.extend(named.recv().await.flatten());
        }
        seen.sort();
        assert_eq!(seen, ["edge-0", "edge-1", "edge-2"]);
        workers.stop_accepting().await;
        assert!(named.try_recv().is_err() && !named.is_closed());
        workers.end().await;
        assert_eq!(named.recv().await, None, "nothing is left of them");
    }

    #[tokio::test]
    async fn dropped_they_end() {
        let (lives, mut living) = mpsc::channel::<Infallible>(1);
        let posts = vec![lives; 2];
        let workers = Workers::start(
            posts,
            false,
            || (),
            |lives, shutdown| async {
                until_told(shutdown).await;
                drop(lives);
            },
        );
        drop(workers.unwrap());
        assert!(living.recv().await.is_none());
    }

    #[tokio::test]
    async fn bound_ones_share_what_the_process_may_use() {
        let processors = || list(&sched_getaffinity(None).unwrap());
        let allowed = processors();
        assert!((1..=allowed.len()).contains(&count(0)));
        let (sender, mut bound) = mpsc::unbounded_channel();
        let posts = vec![sender; allowed.len()];
        let serve = move |sender: mpsc::UnboundedSender<_>, shutdown| async move {
            let beside = tokio::task::spawn_blocking(processors).await;
            sender.send((processors(), beside.unwrap())).unwrap();
            until_told(shutdown).await;
        };
        let workers = Workers::start(posts, true, || (), serve).unwrap();
        let mut seen = Vec::new();
        for _ in 0..allowed.len() {
            let (mine, beside) = bound.recv().await.unwrap();
            assert_eq!((mine.len(), &beside), (1, &allowed));
            seen.extend(mine);
        }
        seen.sort_unstable();
        assert_eq!(seen, allowed);
        workers.end().await;
    }
}
