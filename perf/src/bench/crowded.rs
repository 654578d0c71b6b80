//! Busy connections beside a crowd of idle ones: what those cost the busy ones, and in memory; afterwards every
//! idle one must still be there, and answer.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::latency::{Latencies, tell_marks};
use super::open_loop;
use super::peers::{Kind, Setting};
use super::{Failure, Servers, idle};
use crate::cli;
use crate::spread::Spread;

/// How long a server gets to close what is no longer held.
const CLOSED: Duration = Duration::from_millis(500);

/// One server.
#[derive(Debug, Serialize)]
pub struct Crowded {
    /// Which.
    pub peer: &'static str,
    /// How many were idle.
    pub idle: usize,
    /// KiB for each of them, in the server's own memory.
    pub kib: f64,
    /// How many were busy.
    pub busy: usize,
    /// Requests of the busy ones a second, all together.
    pub rate: f64,
    /// The busy ones without idle ones.
    pub alone: Latencies,
    /// The busy ones beside them.
    pub beside: Latencies,
}

/// Measures it for Floodgate, and for nginx with its cache, each just started.
///
/// # Errors
/// If so many files cannot be open, a connection is closed, or an answer is wrong.
pub fn measure(asked: &cli::Bench, setting: &Setting, rate: f64) -> Result<Vec<Crowded>, Failure> {
    let (idle, busy) = (asked.held, asked.busy);
    idle::allow(idle + busy)?;
    let servers = Servers::start(setting, &[Kind::Floodgate, Kind::NginxCache])?;
    let exchange = &servers.item;
    let mut all = Vec::new();
    for (kind, _) in &servers.all {
        all.push(Crowded {
            peer: kind.name(),
            idle,
            kib: 0.0,
            busy,
            rate,
            alone: Latencies::default(),
            beside: Latencies::default(),
        });
    }
    for round in 1..=asked.rounds {
        eprintln!(
            "beside {idle} idle connections: round {round} of {}",
            asked.rounds
        );
        for (crowded, (_, peer)) in all.iter_mut().zip(&servers.all) {
            let plan = asked.steady(setting, peer, exchange, rate);
            let play =
                || open_loop::play(&plan).map_err(|error| format!("{}: {error}", crowded.peer));
            crowded.alone.add(&play()?);
            let (mut held, kib) = idle::hold(peer, idle, exchange)?;
            // Later ones take what the first ones left.
            if round == 1 {
                crowded.kib = kib;
            }
            crowded.beside.add(&play()?);
            held.ask(exchange)
                .map_err(|error| format!("{}: {error}", crowded.peer))?;
            drop(held);
            std::thread::sleep(CLOSED);
        }
    }
    Ok(all)
}

/// Adds what was seen to a report.
pub fn tell(text: &mut String, all: &[Crowded]) {
    let Some(first) = all.first() else { return };
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "\n{} busy connections at a steady {:.0}/s, alone and beside {} idle ones; all of those answered at the end",
        first.busy, first.rate, first.idle
    );
    for crowded in all {
        let peer = crowded.peer;
        crowded.alone.tell(text, &format!("{peer}, alone"));
        crowded.beside.tell(text, &format!("{peer}, beside them"));
        let (alone, beside) = (&crowded.alone.p99_ms, &crowded.beside.p99_ms);
        let ratios = beside
            .iter()
            .zip(alone)
            .map(|(beside, alone)| beside / alone);
        if let Some(Spread { low, median, high }) = Spread::of(ratios.collect()) {
            let _ = writeln!(
                text,
                "  {peer}: p99 {median:.2} x as long beside them ({low:.2} to {high:.2}); {:.1} KiB for each",
                crowded.kib
            );
        }
    }
    let seen = all
        .iter()
        .flat_map(|crowded| [&crowded.alone, &crowded.beside]);
    tell_marks(text, seen);
}
