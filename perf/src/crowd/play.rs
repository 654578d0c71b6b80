//! All threads of a run: started together, watched, stopped at the limit or when somebody wants them
//! to, and added up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::address::Target;
use super::clock::Clock;
use super::error::CrowdError;
use super::history::{History, HistoryFile};
use super::plan::Arrivals;
use super::pool::Tcp;
use super::progress::{self, Progress};
use super::report::{CutOff, Settings};
use super::shard::{Cast, Part, Played};
use super::stage::{Person, Pulse, Scene};
use super::tally::Tally;
use crate::machine::Effort;

/// Longest that the last look may take after the play.
const LAST_LOOK: Duration = Duration::from_secs(60);

/// A thread of the crowd.
type Thread = JoinHandle<Result<Played, CrowdError>>;

/// Everything that the threads share.
pub struct Play {
    /// What was asked for.
    pub settings: Settings,
    /// Where it goes.
    pub target: Target,
    /// What is played.
    pub scene: Arc<Scene>,
    /// Everyone.
    pub people: Arc<[Person]>,
    /// Steady and wall-clock time.
    pub clock: Clock,
    /// The moment that arrivals are counted from.
    pub start: Instant,
    /// The history, if one is kept.
    pub history: Option<HistoryFile>,
}

/// What all threads brought back together.
pub struct Outcome {
    /// What they counted.
    pub tally: Tally,
    /// Orders not seen paid, by state.
    pub standing: BTreeMap<String, u64>,
    /// When the last buyer was done.
    pub ended: Instant,
    /// How busy they were.
    pub effort: Option<Effort>,
    /// Why the play ended early.
    pub cut_off: Option<CutOff>,
}

impl Play {
    /// Plays it to the end.
    ///
    /// # Errors
    /// If a thread cannot be started, or one fails.
    pub async fn play(self, time_limit: Duration, bar: &Progress) -> Result<Outcome, CrowdError> {
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let mut interrupts = signal(SignalKind::interrupt())?;
        let pulse = Arc::new(Pulse::default());
        let parts = self.start_threads(&pulse, &stop, &abort)?;
        let limit = self.start + time_limit;
        let mut cut_off = None;
        while !parts.iter().all(JoinHandle::is_finished) {
            bar.show(&pulse);
            tokio::select! {
                () = tokio::time::sleep(progress::EVERY) => {}
                _ = interrupts.recv() => {
                    // The second time, not even the last look is wanted.
                    if stop.is_cancelled() {
                        abort.cancel();
                    }
                    cut_off = Some(CutOff::Interrupted);
                    stop.cancel();
                }
            }
            if Instant::now() > limit && !stop.is_cancelled() {
                cut_off = Some(CutOff::TimeLimit);
                stop.cancel();
            }
            if Instant::now() > limit + LAST_LOOK {
                abort.cancel();
            }
        }
        let mut outcome = Outcome {
            tally: Tally::new(self.start),
            standing: BTreeMap::new(),
            ended: self.start,
            effort: None,
            cut_off,
        };
        for part in parts {
            // All have ended, so this does not block.
            outcome.add(part.join().map_err(|_| CrowdError::Thread)??);
        }
        Ok(outcome)
    }

    fn start_threads(
        &self,
        pulse: &Arc<Pulse>,
        stop: &CancellationToken,
        abort: &CancellationToken,
    ) -> Result<Vec<Thread>, CrowdError> {
        let (set, buyers) = (&self.settings, self.people.len());
        let offsets = set.arrivals.offsets(set.seed, buyers);
        let mut threads = Vec::new();
        for number in 0..set.threads {
            let history = self.history.as_ref();
            let part = Part {
                scene: self.scene.clone(),
                people: self.people.clone(),
                cast: cast(set.arrivals, &offsets, buyers, number, set.threads),
                dialer: Tcp(self.target.address),
                host: self.target.host.clone(),
                connections: (set.connections / set.threads).max(1),
                clock: self.clock,
                start: self.start,
                history: history.map_or_else(History::default, HistoryFile::writer),
                pulse: pulse.clone(),
                stop: stop.clone(),
                abort: abort.clone(),
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let thread = std::thread::Builder::new().name(format!("crowd-{number}"));
            threads.push(thread.spawn(move || runtime.block_on(part.play()))?);
        }
        Ok(threads)
    }
}

impl Outcome {
    fn add(&mut self, played: Played) {
        self.tally.add(played.tally);
        self.ended = self.ended.max(played.ended);
        for (state, count) in played.standing {
            *self.standing.entry(state).or_default() += count;
        }
        match (&mut self.effort, played.effort) {
            (Some(all), Some(more)) => all.add(&more),
            (all, more) => *all = all.take().or(more),
        }
    }
}

/// Every `threads`-th buyer, from the `thread`-th.
pub fn cast(
    arrivals: Arrivals,
    offsets: &[Duration],
    buyers: usize,
    thread: usize,
    threads: usize,
) -> Cast {
    let mine = (thread..buyers).step_by(threads);
    match arrivals {
        Arrivals::Closed(at_a_time) => {
            let share = at_a_time / threads + usize::from(thread < at_a_time % threads);
            Cast::Closed(mine.collect(), share)
        }
        _ => Cast::Open(
            mine.zip(offsets.iter().copied().skip(thread).step_by(threads))
                .collect(),
        ),
    }
}
