//! The same work by several servers, in turn, round by round.

use std::time::Duration;

use floodgate_servers::Peer;

use super::load::Used;
use super::peers::Setting;
use super::report::{Row, Table};
use super::work::Work;
use super::{Failure, load};
use crate::cli;

/// Asks all of them for a work; the first is compared with the others.
///
/// # Errors
/// If one answers otherwise than it should.
pub fn compare(
    asked: &cli::Bench,
    setting: &Setting,
    work: &Work,
    connections: usize,
    servers: &[(&'static str, &Peer)],
) -> Result<Table, Failure> {
    let rows: Vec<_> = servers
        .iter()
        .map(|(name, peer)| (*name, work, *peer))
        .collect();
    compare_works(asked, setting, work.name, connections, &rows)
}

/// The same, where not all of them do the same work: what they do is in the rows' names.
///
/// # Errors
/// If one answers otherwise than it should.
pub fn compare_works(
    asked: &cli::Bench,
    setting: &Setting,
    name: &'static str,
    connections: usize,
    rows: &[(&'static str, &Work, &Peer)],
) -> Result<Table, Failure> {
    let mut rows: Vec<_> = rows
        .iter()
        .map(|(name, work, peer)| (Row::new(name), *work, *peer))
        .collect();
    let load_core = setting.core.map(|core| core + 1);
    for round in 1..=asked.rounds {
        eprintln!(
            "{name}, {connections} connections, workers {}: round {round} of {}",
            setting.workers, asked.rounds
        );
        for (row, work, peer) in &mut rows {
            let port = peer.port();
            // Connections are made, and what is lazy is done, before it counts.
            let second = Duration::from_secs(1);
            load::load(port, work, connections, second, load_core)?;
            let processes = peer.processes();
            let before = Used::by(&processes);
            let duration = Duration::from_secs(asked.seconds);
            let told = load::load(port, work, connections, duration, load_core)?;
            row.add(told, Used::by(&processes).ns_since(&before));
        }
    }
    let rows = rows.into_iter().map(|(row, ..)| row).collect();
    Ok(Table::new(name, connections, setting.workers, rows))
}
