//! `perf crowd`: plays a crowd against a Floodgate, measures what it is told, and tries to catch it
//! breaking a promise.
//!
//! | module | what it does |
//! |---|---|
//! | [`address`] | where to go; the guard against other people's servers |
//! | [`desk`] | the promo, test accounts, the audit |
//! | [`dice`], [`plan`] | what each buyer is going to do; follows from the seed |
//! | [`http`], [`pool`] | one connection; the bounded set of them |
//! | [`stage`] | every request: bounded, measured, counted, written down |
//! | [`buyer`], [`forge`] | one buyer; the tokens of those who cheat |
//! | [`shard`] | one thread's buyers, from the first to the last look |
//! | [`clock`], [`latency`], [`timeline`], [`tally`], [`history`] | when, how long, how often, what |
//! | [`ceiling`] | what the generator can do at best |
//! | [`report`], [`words`], [`chart`], [`progress`] | what people and programs get to read |
//!
//! Invariants: latency is counted from the moment a request was meant to go out, never from when the
//! generator got round to it; nothing waits without a bound; every request ends in the tally and, if
//! one is kept, in the history, those without an answer included; nothing is sent to an address that
//! is not loopback unless its owner says so.

pub mod address;
pub mod buyer;
pub mod ceiling;
pub mod chart;
pub mod clock;
pub mod desk;
pub mod dice;
pub mod error;
pub mod forge;
pub mod history;
pub mod http;
pub mod latency;
pub mod plan;
pub mod pool;
pub mod progress;
pub mod report;
pub mod shard;
pub mod stage;
pub mod tally;
pub mod timeline;
mod words;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use lua_free_rules::units::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli;
use crate::machine::{Effort, open_files_max};
use address::Target;
use clock::Clock;
use desk::{Desk, Promo};
use error::CrowdError;
use history::{History, HistoryFile, Opening};
use plan::{Arrivals, Crowd, Shares};
use pool::Tcp;
use progress::Progress;
use report::{Circumstances, CutOff, Report, Settings};
use shard::{Cast, Part, Played};
use stage::{Person, Pulse, Scene};
use tally::Tally;

/// A moment between making ready and the first arrival, so that every thread is there.
const LEAD: Duration = Duration::from_millis(200);
/// Sockets and files besides the connections.
const OTHER_FILES: usize = 64;
/// Longest that the last look may take after the play.
const LAST_LOOK: Duration = Duration::from_secs(60);

/// Plays the crowd and prints what happened; true if no promise was broken.
///
/// # Errors
/// If it cannot be played.
pub fn run(asked: &cli::Crowd) -> Result<bool, CrowdError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if asked.ceiling {
        let length = asked.ceiling_for.max(Duration::from_secs(3));
        let ceiling = ceiling::measure(Arc::new(scene(asked, 0, None)?), length)?;
        println!(
            "{:.0} exchanges/s a thread against a bare responder, {:.1} us of processor time each",
            ceiling.per_second, ceiling.cpu_us_per_exchange
        );
        return Ok(true);
    }
    let (report, tally) = runtime.block_on(perform(asked))?;
    print!("{report}");
    leave(asked, &report, &tally)?;
    if report.audit_failed.is_some() {
        return Err(CrowdError::Prepare(
            "the audit that was asked for is missing".to_owned(),
        ));
    }
    Ok(!report.is_broken())
}

async fn perform(asked: &cli::Crowd) -> Result<(Report, Tally), CrowdError> {
    let target = Target::read(&asked.url, asked.i_own_this_server)?;
    enough_files(asked.connections as usize)?;
    let clock = Clock::start();
    let date = Timestamp(clock.wall_ms_floor(Instant::now())).to_rfc3339();
    let seed = match asked.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|error| CrowdError::Settings(error.to_string()))?,
    };
    let progress = Progress::new(asked.buyers as usize);
    let desk = Desk::new(&target, Some(operator_token(&asked.operator_token_file)?));
    let promo = desk.promo(asked.promo, clock).await?;
    let scene = Arc::new(scene(asked, seed, Some(&promo))?);
    progress.say("making accounts");
    let people = desk
        .people(asked.first_account, asked.buyers as usize)
        .await?;
    let ceiling = match asked.ceiling_for {
        Duration::ZERO => None,
        length => {
            progress.say("measuring the generator itself");
            let scene = scene.clone();
            let measured = tokio::task::spawn_blocking(move || ceiling::measure(scene, length));
            Some(measured.await.map_err(|_| CrowdError::Thread)??)
        }
    };
    let start = begin(&promo, clock, asked.time_limit)?;
    let settings = settings(asked, seed, &scene);
    let history = match asked
        .history
        .clone()
        .or_else(|| in_folder(asked, "history.jsonl"))
    {
        None => None,
        Some(path) => Some(open_history(&path, seed, &scene, &promo, clock)?),
    };
    let play = Play {
        settings: settings.clone(),
        target,
        scene,
        people,
        clock,
        start,
        history,
    };
    let played = play.play(asked, &progress).await?;
    let audit = if asked.audit {
        progress.say("waiting for the audit");
        Some(
            desk.audit(asked.promo)
                .await
                .map_err(|error| error.to_string()),
        )
    } else {
        None
    };
    progress.end();
    let circumstances = Circumstances {
        date,
        command: std::env::args()
            .skip(1)
            .fold("perf".to_owned(), |all, word| all + " " + &word),
        settings,
        took: played.ended.saturating_duration_since(start),
        cut_off: played.cut_off,
        effort: played.effort,
        ceiling,
        standing: played.standing,
        audit,
    };
    Ok((Report::new(&played.tally, circumstances), played.tally))
}

/// Everything that the threads share.
struct Play {
    settings: Settings,
    target: Target,
    scene: Arc<Scene>,
    people: Arc<[Person]>,
    clock: Clock,
    start: Instant,
    history: Option<HistoryFile>,
}

/// What all threads brought back together.
struct Outcome {
    tally: Tally,
    standing: BTreeMap<String, u64>,
    ended: Instant,
    effort: Option<Effort>,
    cut_off: Option<CutOff>,
}

impl Play {
    async fn play(self, asked: &cli::Crowd, progress: &Progress) -> Result<Outcome, CrowdError> {
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let pulse = Arc::new(Pulse::default());
        let offsets = self
            .settings
            .arrivals
            .offsets(self.settings.seed, self.people.len());
        let threads = self.settings.threads;
        let mut parts: Vec<_> = Vec::new();
        for thread in 0..threads {
            let connections = (self.settings.connections / threads).max(1);
            let part = Part {
                scene: self.scene.clone(),
                people: self.people.clone(),
                cast: cast(
                    self.settings.arrivals,
                    &offsets,
                    self.people.len(),
                    thread,
                    threads,
                ),
                dialer: Tcp(self.target.address),
                host: self.target.host.clone(),
                connections,
                clock: self.clock,
                start: self.start,
                history: self
                    .history
                    .as_ref()
                    .map_or_else(History::default, HistoryFile::writer),
                pulse: pulse.clone(),
                stop: stop.clone(),
                abort: abort.clone(),
            };
            parts.push(start_thread(part, thread)?);
        }
        let cut_off = self
            .mind(asked, progress, &pulse, &parts, (&stop, &abort))
            .await;
        let mut outcome = Outcome {
            tally: Tally::new(self.start),
            standing: BTreeMap::new(),
            ended: self.start,
            effort: None,
            cut_off,
        };
        for part in parts {
            // All have ended, so this does not block.
            let played = part.join().map_err(|_| CrowdError::Thread)??;
            outcome.add(played);
        }
        Ok(outcome)
    }

    /// Draws the progress until every thread has ended; stops them at the time limit, or when
    /// somebody wants them to.
    async fn mind(
        &self,
        asked: &cli::Crowd,
        progress: &Progress,
        pulse: &Pulse,
        parts: &[JoinHandle<Result<Played, CrowdError>>],
        (stop, abort): (&CancellationToken, &CancellationToken),
    ) -> Option<CutOff> {
        let limit = self.start + asked.time_limit;
        let mut cut_off = None;
        while !parts.iter().all(JoinHandle::is_finished) {
            progress.show(pulse);
            tokio::select! {
                () = tokio::time::sleep(progress::EVERY) => {}
                _ = tokio::signal::ctrl_c() => {
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
        cut_off
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

fn start_thread(
    part: Part<Tcp>,
    number: usize,
) -> Result<JoinHandle<Result<Played, CrowdError>>, CrowdError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = std::thread::Builder::new().name(format!("crowd-{number}"));
    Ok(thread.spawn(move || runtime.block_on(part.play()))?)
}

/// Every `threads`-th buyer, from the `thread`-th.
fn cast(
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

fn scene(asked: &cli::Crowd, seed: u64, promo: Option<&Promo>) -> Result<Scene, CrowdError> {
    let shares = shares(asked);
    if shares.sum() > 1.0 {
        let words = format!(
            "the shares add up to {:.2}: at most 1 is there",
            shares.sum()
        );
        return Err(CrowdError::Settings(words));
    }
    let offered = promo.map_or(&[][..], |promo| &promo.challenge);
    let offers = |kind: &str| offered.iter().any(|offered| offered == kind);
    if !offered.is_empty() && !offers("none") && !offers("altcha") {
        let words = format!("the promo asks for {offered:?}, which a crowd cannot answer");
        return Err(CrowdError::Settings(words));
    }
    let think = asked.think().map_err(CrowdError::Settings)?;
    Ok(Scene {
        promo: asked.promo,
        item: asked.item.or(promo.map(|promo| promo.item_id)).unwrap_or(1),
        per_buyer_limit: promo.map_or(1, |promo| promo.per_buyer_limit),
        proof_of_work: offers("altcha") && !offers("none"),
        crowd: Crowd {
            seed,
            shares,
            think,
            amount_max: asked.amount,
        },
        timeout: asked.timeout,
        patience: asked.patience,
        tries: asked.tries,
        door_tries: asked.door_tries,
        poll: asked.poll,
    })
}

const fn shares(asked: &cli::Crowd) -> Shares {
    Shares {
        give_up: asked.give_up,
        resend: asked.resend,
        double_click: asked.double_click,
        hang_up: asked.hang_up,
        attack: asked.attack,
    }
}

fn settings(asked: &cli::Crowd, seed: u64, scene: &Scene) -> Settings {
    let arrivals = match (asked.rate, asked.concurrency) {
        (Some(rate), _) if asked.even => Arrivals::Even(rate),
        (Some(rate), _) => Arrivals::Poisson(rate),
        (None, Some(at_a_time)) => Arrivals::Closed(at_a_time as usize),
        (None, None) => Arrivals::Within(asked.within.unwrap_or(Duration::from_secs(5))),
    };
    Settings {
        url: asked.url.clone(),
        promo: scene.promo,
        item: scene.item,
        seed,
        buyers: asked.buyers as usize,
        arrivals,
        think: asked.think.clone(),
        shares: shares(asked),
        connections: asked.connections as usize,
        threads: asked.threads as usize,
    }
}

/// The moment of the first arrival: now, or the promo's start if that lies ahead.
fn begin(promo: &Promo, clock: Clock, time_limit: Duration) -> Result<Instant, CrowdError> {
    let soon = Instant::now() + LEAD;
    match promo.phase.as_str() {
        "live" => Ok(soon),
        "upcoming" => {
            let opens = clock
                .at_wall_ms(promo.starts_at - promo.server_ahead_ms)
                .max(soon);
            if opens > soon + time_limit {
                let words = "the sale opens later than --time-limit from now".to_owned();
                return Err(CrowdError::Settings(words));
            }
            Ok(opens)
        }
        phase => Err(CrowdError::Prepare(format!(
            "nothing is sold: the promo is {phase}"
        ))),
    }
}

fn enough_files(connections: usize) -> Result<(), CrowdError> {
    match open_files_max() {
        Some(most) if connections + OTHER_FILES > most => Err(CrowdError::Settings(format!(
            "{connections} connections need more open files than the {most} allowed: \
             raise it with `ulimit -n {}`, or use fewer --connections",
            connections + OTHER_FILES
        ))),
        _ => Ok(()),
    }
}

fn operator_token(path: &Path) -> Result<Arc<str>, CrowdError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| CrowdError::File(path.to_owned(), error))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let words = format!("{} does not hold an operator's token", path.display());
        return Err(CrowdError::Settings(words));
    }
    Ok(token.into())
}

fn open_history(
    path: &Path,
    seed: u64,
    scene: &Scene,
    promo: &Promo,
    clock: Clock,
) -> Result<HistoryFile, CrowdError> {
    let opening = Opening {
        history: history::VERSION,
        seed,
        promo: scene.promo,
        item: scene.item,
        started_at: clock.wall_ms_floor(Instant::now()),
        server_ahead_ms: promo.server_ahead_ms,
        server_ahead_error_ms: promo.server_ahead_error_ms,
    };
    create_folder(path)?;
    HistoryFile::create(path, &opening).map_err(|error| CrowdError::File(path.to_owned(), error))
}

/// Writes the report wherever it is wanted.
fn leave(asked: &cli::Crowd, report: &Report, tally: &Tally) -> Result<(), CrowdError> {
    let json =
        || serde_json::to_string_pretty(report).map_err(|error| CrowdError::System(error.into()));
    for path in [asked.json.clone(), in_folder(asked, "report.json")]
        .into_iter()
        .flatten()
    {
        write(&path, &(json()? + "\n"))?;
    }
    for path in [asked.chart.clone(), in_folder(asked, "chart.svg")]
        .into_iter()
        .flatten()
    {
        write(&path, &chart::draw(report, tally))?;
    }
    if let Some(path) = in_folder(asked, "report.txt") {
        write(&path, &format!("$ {}\n\n{report}", report.command))?;
    }
    Ok(())
}

fn in_folder(asked: &cli::Crowd, name: &str) -> Option<std::path::PathBuf> {
    asked.out.as_ref().map(|folder| folder.join(name))
}

fn write(path: &Path, text: &str) -> Result<(), CrowdError> {
    create_folder(path)?;
    std::fs::write(path, text).map_err(|error| CrowdError::File(path.to_owned(), error))
}

fn create_folder(path: &Path) -> Result<(), CrowdError> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    std::fs::create_dir_all(folder).map_err(|error| CrowdError::File(folder.to_owned(), error))
}

#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;
