//! What an idle connection costs: each has been answered once and is kept alive.

use std::time::Duration;

use serde::Serialize;

use super::Failure;
use super::exchange::Exchange;
use super::held::Held;

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

/// Opens so many, asks once on each, and looks how much more memory the server has.
pub fn measure(
    peer: &'static str,
    port: u16,
    connections: usize,
    exchange: &Exchange,
    memory_kib: impl Fn() -> u64,
) -> Result<Idle, Failure> {
    let (_, kib) = hold(port, connections, exchange, memory_kib)?;
    Ok(Idle {
        peer,
        connections,
        kib,
    })
}

/// The same, and keeps them; KiB for each.
pub fn hold(
    port: u16,
    connections: usize,
    exchange: &Exchange,
    memory_kib: impl Fn() -> u64,
) -> Result<(Held, f64), Failure> {
    let before = memory_kib();
    let held = Held::open(port, connections, exchange)?;
    std::thread::sleep(SETTLED);
    let more = memory_kib().saturating_sub(before);
    Ok((held, more as f64 / connections.max(1) as f64))
}
