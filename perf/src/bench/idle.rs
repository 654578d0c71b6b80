//! What an idle connection costs: each has been answered once and is kept alive.

use std::time::Duration;

use floodgate_servers::Peer;
use serde::Serialize;

use super::exchange::Exchange;
use super::held::Held;
use super::{Failure, load};
use crate::machine;

/// Files that a process here needs beside its connections.
const OTHER_FILES: usize = 500;
/// How long servers get to put away what a request needed.
const SETTLED: Duration = Duration::from_secs(2);

/// Memory for each idle connection.
#[derive(Debug, Serialize)]
pub struct Idle {
    /// Of which server.
    pub peer: &'static str,
    /// How many there were.
    pub connections: usize,
    /// KiB for each, in the server's own memory; buffers of the kernel are not in it.
    pub kib: f64,
}

/// Opens so many to each of these servers and asks once on each; then looks how much more memory they have.
///
/// # Errors
/// If one is answered wrongly.
pub fn measure(
    servers: &[(&'static str, &Peer)],
    connections: usize,
    exchange: &Exchange,
) -> Result<Vec<Idle>, Failure> {
    let mut all = Vec::new();
    for (peer, server) in servers {
        let before = load::memory_kib(&server.processes());
        let held = Held::open(server.port(), connections, exchange);
        all.push((before, held.map_err(|error| format!("{peer}: {error}"))?));
    }
    std::thread::sleep(SETTLED);
    let all = servers.iter().zip(&all);
    let idle = all.map(|((peer, server), (before, _))| Idle {
        peer,
        connections,
        kib: kib_each(load::memory_kib(&server.processes()), *before, connections),
    });
    Ok(idle.collect())
}

/// The same for one server, whose connections are kept; KiB for each.
pub fn hold(
    server: &Peer,
    connections: usize,
    exchange: &Exchange,
) -> Result<(Held, f64), Failure> {
    let before = load::memory_kib(&server.processes());
    let held = Held::open(server.port(), connections, exchange)?;
    std::thread::sleep(SETTLED);
    let after = load::memory_kib(&server.processes());
    Ok((held, kib_each(after, before, connections)))
}

/// Lets so many connections be open, to servers that are started from then on too.
///
/// # Errors
/// If the system does not.
pub fn allow(connections: usize) -> Result<(), Failure> {
    let needed = connections + OTHER_FILES;
    let allowed = machine::open_files_for(needed);
    if allowed < needed {
        return Err(format!(
            "{connections} connections need {needed} open files, and {allowed} are allowed: raise the hard limit \
             (ulimit -Hn), or ask for fewer with --idle and --held"
        )
        .into());
    }
    Ok(())
}

fn kib_each(after: u64, before: u64, connections: usize) -> f64 {
    after.saturating_sub(before) as f64 / connections.max(1) as f64
}
