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
//! | [`scene`], [`play`], [`shard`] | what is played; all threads; one thread's buyers |
//! | [`buyer`], [`manners`], [`patience`] | one buyer; how they order; how long they insist |
//! | [`forge`] | the tokens of those who cheat |
//! | [`clock`], [`steps`], [`latency`], [`timeline`], [`tally`], [`history`] | when, how long, how often, what |
//! | [`ceiling`] | what the generator can do at best |
//! | [`report`], [`words`], [`chart`], [`files`], [`progress`] | what people and programs get to read |
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
pub mod files;
pub mod forge;
pub mod history;
pub mod http;
pub mod latency;
pub mod manners;
pub mod patience;
pub mod plan;
pub mod play;
pub mod pool;
pub mod progress;
pub mod report;
pub mod scene;
pub mod shard;
pub mod stage;
pub mod steps;
pub mod tally;
pub mod timeline;
mod words;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lua_free_rules::units::Timestamp;
use tokio::time::Instant;

use crate::cli;
use crate::machine::open_files_max;
use address::Target;
use clock::Clock;
use desk::Desk;
use error::CrowdError;
use play::Play;
use progress::Progress;
use report::{Circumstances, Report};
use scene::{begin, scene, settings};
use tally::Tally;

/// Sockets and files besides the connections.
const OTHER_FILES: usize = 64;

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
    let report = runtime.block_on(play(asked))?;
    print!("{report}");
    if report.audit_failed.is_some() {
        return Err(CrowdError::Prepare(
            "the audit that was asked for is missing".to_owned(),
        ));
    }
    Ok(!report.is_broken())
}

/// Plays the crowd, and leaves the files that are asked for.
///
/// # Errors
/// If it cannot be played, or a file cannot be written.
pub async fn play(asked: &cli::Crowd) -> Result<Report, CrowdError> {
    let (report, tally) = perform(asked).await?;
    files::leave(asked, &report, &tally)?;
    Ok(report)
}

async fn perform(asked: &cli::Crowd) -> Result<(Report, Tally), CrowdError> {
    let target = Target::read(&asked.url, asked.i_own_this_server)?;
    enough_files(asked.connections())?;
    let clock = Clock::start();
    let second = clock.wall_ms_floor(Instant::now()).div_euclid(1_000);
    let date = Timestamp(second * 1_000).to_rfc3339();
    let seed = match asked.seed {
        Some(seed) => seed,
        // Short enough to be typed again, and to be exact in any reader of JSON.
        None => getrandom::u32()
            .map(u64::from)
            .map_err(|error| CrowdError::Settings(error.to_string()))?,
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
        .or_else(|| files::in_folder(asked, "history.jsonl"))
    {
        None => None,
        Some(path) => Some(files::open_history(&path, seed, &scene, &promo, clock)?),
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
    let played = play.play(asked.time_limit, &progress).await?;
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

#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;
