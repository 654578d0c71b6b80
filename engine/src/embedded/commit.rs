//! Group commit: the requests that wait become one transaction, and each is answered after it is on
//! the disk. One request's fault never touches another's.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{Notify, broadcast, oneshot};

use super::queue::Waiting;
use super::step::{Level, Step, StepError, StepResult};
use crate::clock::Clock;
use crate::{EngineError, Result, Signal};

/// What the readers are told after each commit.
#[derive(Debug)]
pub(super) struct Committed {
    /// Entries in the stream.
    pub(super) entries: AtomicU64,
    /// Woken when entries were added.
    pub(super) added: Notify,
    /// What the nodes are told.
    pub(super) signals: broadcast::Sender<Signal>,
}

/// Signals that a slow listener may be behind.
const SIGNALS_MAX: usize = 256;

impl Default for Committed {
    fn default() -> Self {
        Self {
            entries: AtomicU64::new(0),
            added: Notify::new(),
            signals: broadcast::channel(SIGNALS_MAX).0,
        }
    }
}

impl Committed {
    /// Tells whoever listens.
    pub(super) fn tell(&self, signal: Signal) {
        // An error means that nobody does.
        let _ = self.signals.send(signal);
    }
}

/// A request that waits for the writer.
pub(super) trait Work: Send {
    /// Takes the step and keeps its outcome. May be called again after a roll-back.
    ///
    /// # Errors
    /// What broke. A refusal is an outcome.
    fn run(&mut self, step: &mut Step<'_>) -> std::result::Result<(), String>;

    /// Tells the outcome, or that the step was not taken.
    fn answer(self: Box<Self>, fault: Option<&str>);
}

/// A step with the caller who waits for it.
struct Job<F, T> {
    step: F,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

/// Makes a request of a step.
pub(super) fn work<F, T>(step: F, reply: oneshot::Sender<Result<T>>) -> Box<dyn Work>
where
    F: FnMut(&mut Step<'_>) -> StepResult<T> + Send + 'static,
    T: Send + 'static,
{
    Box::new(Job {
        step,
        outcome: None,
        reply,
    })
}

impl<F, T> Work for Job<F, T>
where
    F: FnMut(&mut Step<'_>) -> StepResult<T> + Send,
    T: Send,
{
    fn run(&mut self, step: &mut Step<'_>) -> std::result::Result<(), String> {
        let before = step.db.total_changes();
        match (self.step)(step) {
            Ok(done) => {
                self.outcome = Some(Ok(done));
                Ok(())
            }
            Err(StepError::Refused(refusal)) if step.db.total_changes() == before => {
                self.outcome = Some(Err(refusal.into()));
                Ok(())
            }
            Err(StepError::Refused(refusal)) => {
                Err(format!("a refused step had written: {}", refusal.name()))
            }
            Err(StepError::Broken(detail)) => Err(detail),
        }
    }

    fn answer(self: Box<Self>, fault: Option<&str>) {
        let answer = match (fault, self.outcome) {
            (None, Some(outcome)) => outcome,
            (fault, _) => Err(EngineError::Unavailable(
                fault.unwrap_or("the step was not taken").to_owned(),
            )),
        };
        // The caller may have gone away: the step stands all the same.
        let _ = self.reply.send(answer);
    }
}

/// Why a transaction was not committed.
enum Failure {
    /// A step broke; the others can go without it.
    Step(String),
    /// It could not be begun or committed.
    Commit(String),
}

/// The writing connection with what is kept in memory beside it.
pub(super) struct Store {
    db: Connection,
    clock: Arc<dyn Clock>,
    committed: Arc<Committed>,
    stream_max: u64,
    /// Unknown after a failed commit, until it has been counted again.
    entries: Option<u64>,
}

impl Store {
    /// Counts what is in the stream.
    pub(super) fn new(
        db: Connection,
        clock: Arc<dyn Clock>,
        stream_max: u64,
        committed: Arc<Committed>,
    ) -> std::result::Result<Self, rusqlite::Error> {
        let entries = super::stream::count(&db)?;
        committed.entries.store(entries, Ordering::Release);
        Ok(Self {
            db,
            clock,
            committed,
            stream_max,
            entries: Some(entries),
        })
    }

    /// Commits what waits, batch by batch, until the queue is closed and empty.
    pub(super) fn serve(&mut self, mut waiting: Waiting<Box<dyn Work>>, batch_max: usize) {
        let mut batch = Vec::new();
        while waiting.next(batch_max.max(1), &mut batch) {
            let batch = std::mem::take(&mut batch);
            // A panic is a fault of ours in one batch: it is rolled back, its callers are told that
            // no answer came, and the sale goes on.
            let commit = AssertUnwindSafe(|| self.commit(batch));
            if std::panic::catch_unwind(commit).is_err() {
                tracing::error!("a batch of requests panicked");
            }
        }
    }

    /// Takes all steps in one transaction, then answers. If one breaks, the transaction is rolled
    /// back and each goes alone: only the broken one fails.
    pub(super) fn commit(&mut self, mut batch: Vec<Box<dyn Work>>) {
        match self.transaction(&mut batch) {
            Ok(()) => batch.into_iter().for_each(|work| work.answer(None)),
            Err(Failure::Step(_)) if batch.len() > 1 => {
                for work in batch {
                    self.commit(vec![work]);
                }
            }
            Err(Failure::Step(detail) | Failure::Commit(detail)) => {
                tracing::error!(detail, requests = batch.len(), "nothing was committed");
                for work in batch {
                    work.answer(Some(&detail));
                }
            }
        }
    }

    fn transaction(&mut self, batch: &mut [Box<dyn Work>]) -> std::result::Result<(), Failure> {
        let begun = |error: rusqlite::Error| Failure::Commit(error.to_string());
        // Taken out: if anything fails below, the count is made anew next time.
        let entries = match self.entries.take() {
            Some(entries) => entries,
            None => super::stream::count(&self.db).map_err(begun)?,
        };
        let mut level = Level {
            entries,
            max: self.stream_max,
            is_added: false,
            signals: Vec::new(),
        };
        let tx = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(begun)?;
        for work in batch {
            let mut step = Step {
                db: &tx,
                now: self.clock.now(),
                level: &mut level,
            };
            work.run(&mut step).map_err(Failure::Step)?;
        }
        tx.commit().map_err(begun)?;
        self.entries = Some(level.entries);
        self.committed
            .entries
            .store(level.entries, Ordering::Release);
        if level.is_added {
            self.committed.added.notify_waiters();
        }
        for signal in level.signals {
            self.committed.tell(signal);
        }
        Ok(())
    }

    /// Takes one step in a transaction of its own: what simulations call.
    #[cfg(test)]
    pub(super) fn step<T: Send + 'static>(
        &mut self,
        step: impl FnMut(&mut Step<'_>) -> StepResult<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, mut answer) = oneshot::channel();
        self.commit(vec![work(step, reply)]);
        answer
            .try_recv()
            .map_err(|error| EngineError::Unavailable(error.to_string()))?
    }
}
