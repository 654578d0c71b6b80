//! A thread with a bounded queue in front: how requests reach a connection without blocking the
//! async thread they come from.

use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Missed {
    /// Nothing was asked.
    #[error("too many requests wait already")]
    Full,
    /// It was asked, and may still be done.
    #[error("no answer in time")]
    Late,
    /// The thread has ended, or gave up on the request.
    #[error("closed, or it failed on the way")]
    Closed,
}

enum Message<J> {
    Job(J),
    Close,
}

/// What is done in place of a thread, on the caller's own.
#[cfg(any(test, feature = "simulation"))]
type InPlace<J> = Mutex<Box<dyn FnMut(J) + Send>>;

/// The callers' end.
pub(super) struct Queue<J> {
    #[cfg(any(test, feature = "simulation"))]
    in_place: Option<InPlace<J>>,
    jobs: mpsc::Sender<Message<J>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    patience: Duration,
}

/// The thread's end.
pub(super) struct Waiting<J>(mpsc::Receiver<Message<J>>);

impl<J: Send + 'static> Queue<J> {
    /// Starts `work` on a thread of its own.
    pub(super) fn start(
        name: &str,
        waiting_max: usize,
        patience: Duration,
        work: impl FnOnce(Waiting<J>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(waiting_max.max(1));
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(Waiting(waiting)))?;
        Ok(Self {
            #[cfg(any(test, feature = "simulation"))]
            in_place: None,
            jobs,
            thread: Mutex::new(Some(thread)),
            patience,
        })
    }

    /// No thread: each job is done where it is asked for, before the asking goes on. So one thread
    /// can play a whole sale, and every playing of it is the same.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn in_place(work: impl FnMut(J) + Send + 'static) -> Self {
        Self {
            in_place: Some(Mutex::new(Box::new(work))),
            jobs: mpsc::channel(1).0,
            thread: Mutex::new(None),
            patience: Duration::ZERO,
        }
    }

    /// Asks, and waits for the answer. A caller that goes away before it comes harms nothing: what
    /// was asked is done all the same.
    pub(super) async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<T>) -> J,
    ) -> Result<T, Missed> {
        #[cfg(any(test, feature = "simulation"))]
        if let Some(work) = &self.in_place {
            let (reply, mut answer) = oneshot::channel();
            (work
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner))(job(reply));
            return answer.try_recv().map_err(|_| Missed::Closed);
        }
        let slot = match timeout(self.patience, self.jobs.reserve()).await {
            Ok(Ok(slot)) => slot,
            Ok(Err(_)) => return Err(Missed::Closed),
            Err(_) => return Err(Missed::Full),
        };
        let (reply, answer) = oneshot::channel();
        slot.send(Message::Job(job(reply)));
        match timeout(self.patience, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Missed::Closed),
            Err(_) => Err(Missed::Late),
        }
    }

    /// Takes no more, does what waits, and ends the thread.
    pub(super) async fn close(&self) {
        // An error means that the thread has ended already.
        let _ = self.jobs.send(Message::Close).await;
        if let Some(thread) = self.take_thread() {
            let joined = tokio::task::spawn_blocking(move || join(thread)).await;
            if let Err(error) = joined {
                tracing::error!(%error, "could not wait for an engine thread");
            }
        }
    }

    fn take_thread(&self) -> Option<JoinHandle<()>> {
        self.thread
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
    }
}

impl<J> Drop for Queue<J> {
    fn drop(&mut self) {
        // The thread ends when the last sender is gone and what waits is done.
        self.jobs = mpsc::channel(1).0;
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            join(thread);
        }
    }
}

impl<J> Waiting<J> {
    /// Waits for a job, then adds those that wait with it to `batch`, up to `max`. False when the
    /// queue was closed and is empty.
    pub(super) fn next(&mut self, max: usize, batch: &mut Vec<J>) -> bool {
        while batch.is_empty() {
            let Some(message) = self.0.blocking_recv() else {
                return false;
            };
            self.put(message, batch);
        }
        while batch.len() < max {
            let Ok(message) = self.0.try_recv() else {
                break;
            };
            self.put(message, batch);
        }
        true
    }

    fn put(&mut self, message: Message<J>, batch: &mut Vec<J>) {
        match message {
            Message::Job(job) => batch.push(job),
            Message::Close => self.0.close(),
        }
    }
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().map(str::to_owned);
    if thread.join().is_err() {
        tracing::error!(thread = name, "an engine thread panicked");
    }
}
