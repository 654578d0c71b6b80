//! Latency at a steady rate that every server can do: half of what the slowest did under full load.

use std::fmt::Write as _;
use std::time::Duration;

use floodgate_servers::Peer;
use serde::Serialize;

use super::Failure;
use super::exchange::Exchange;
use super::open_loop::{self, LATE_MAX_MS, Plan, Seen};
use super::peers::Setting;
use super::work::Work;
use crate::cli;
use crate::spread::Spread;

/// One server at a steady rate, round by round.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Latencies {
    /// Half of the answers came within this, in milliseconds.
    pub p50_ms: Vec<f64>,
    /// 99 of 100.
    pub p99_ms: Vec<f64>,
    /// 999 of 1,000.
    pub p999_ms: Vec<f64>,
    /// All.
    pub max_ms: Vec<f64>,
    /// How late the generator itself sent 99 of 100.
    pub late_p99_ms: Vec<f64>,
    /// How late it sent the latest.
    pub late_max_ms: Vec<f64>,
    /// Rounds in which it could not keep its schedule.
    pub marked: usize,
}

/// All servers at the same rate.
#[derive(Debug, Serialize)]
pub struct Steady {
    /// What was asked for.
    pub work: &'static str,
    /// Over so many connections.
    pub connections: usize,
    /// So often a second.
    pub rate: f64,
    /// Each server, Floodgate first.
    pub rows: Vec<Row>,
}

/// One server.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Which.
    pub peer: &'static str,
    /// What was seen.
    #[serde(flatten)]
    pub latencies: Latencies,
}

/// Asks all of them for the item at the same rate, in turn, round by round.
///
/// # Errors
/// If an answer is wrong, or a server cannot keep the rate.
pub fn measure(
    asked: &cli::Bench,
    setting: &Setting,
    item: &Exchange,
    rate: f64,
    servers: &[(&'static str, &Peer)],
) -> Result<Steady, Failure> {
    let row = |(peer, _): &(&'static str, _)| Row {
        peer,
        latencies: Latencies::default(),
    };
    let mut rows: Vec<Row> = servers.iter().map(row).collect();
    for round in 1..=asked.rounds {
        eprintln!("steady {rate:.0}/s: round {round} of {}", asked.rounds);
        for (row, (_, peer)) in rows.iter_mut().zip(servers) {
            let plan = asked.steady(setting, peer, item, rate);
            let seen = open_loop::play(&plan).map_err(|error| format!("{}: {error}", row.peer))?;
            row.latencies.add(&seen);
        }
    }
    Ok(Steady {
        work: Work::item().name,
        connections: asked.busy,
        rate,
        rows,
    })
}

impl cli::Bench {
    /// A steady rate of requests by the busy connections.
    pub(super) fn steady<'a>(
        &self,
        setting: &Setting,
        peer: &Peer,
        exchange: &'a Exchange,
        rate: f64,
    ) -> Plan<'a> {
        Plan {
            port: peer.port(),
            exchange,
            connections: self.busy,
            rate,
            duration: Duration::from_secs(self.seconds),
            core: setting.load_core(),
        }
    }
}

impl Latencies {
    /// Adds a round.
    pub fn add(&mut self, seen: &Seen) {
        self.p50_ms.push(seen.p50_ms);
        self.p99_ms.push(seen.p99_ms);
        self.p999_ms.push(seen.p999_ms);
        self.max_ms.push(seen.max_ms);
        self.late_p99_ms.push(seen.late_p99_ms);
        self.late_max_ms.push(seen.late_max_ms);
        self.marked += usize::from(seen.is_marked());
    }

    /// Adds them to a report, as one line.
    pub fn tell(&self, text: &mut String, name: &str) {
        // Writing to a string does not fail.
        let _ = write!(text, "  {name:32}");
        for (what, figures) in [
            ("p50", &self.p50_ms),
            ("p99", &self.p99_ms),
            ("p99.9", &self.p999_ms),
            ("max", &self.max_ms),
        ] {
            if let Some(Spread { low, median, high }) = Spread::of(figures.clone()) {
                let _ = write!(text, "  {what} {median:.3} ms ({low:.3} to {high:.3})");
            }
        }
        let of = |figures: &[f64]| figures.iter().copied().fold(0.0, f64::max);
        let (late, latest) = (of(&self.late_p99_ms), of(&self.late_max_ms));
        let _ = write!(text, "  sent late: p99 {late:.3} ms, max {latest:.3} ms");
        let _ = match self.marked {
            0 => writeln!(text),
            marked => writeln!(text, "  MARKED {marked} of {}", self.p99_ms.len()),
        };
    }
}

impl Steady {
    /// Adds it to a report.
    pub fn tell(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\n{} at a steady {:.0}/s, {} connections, workers: 1; latency from when each request was due",
            self.work, self.rate, self.connections
        );
        for row in &self.rows {
            row.latencies.tell(text, row.peer);
        }
        tell_marks(text, self.rows.iter().map(|row| &row.latencies));
    }
}

/// Says what a mark means, if there is one.
pub fn tell_marks<'a>(text: &mut String, mut all: impl Iterator<Item = &'a Latencies>) {
    if all.any(|latencies| latencies.marked > 0) {
        let _ = writeln!(
            text,
            "  MARKED: rounds in which the generator sent 1 in 100 requests more than {LATE_MAX_MS} ms late: \
             their latencies are its own as well"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_whose_generator_was_late_is_marked() {
        let seen = |late_p99_ms| Seen {
            requests: 1_000,
            p50_ms: 0.1,
            p99_ms: 0.3,
            p999_ms: 0.5,
            max_ms: 1.0,
            late_p99_ms,
            late_max_ms: 2.0,
        };
        let mut latencies = Latencies::default();
        latencies.add(&seen(0.01));
        let told = |latencies: &Latencies| {
            let mut text = String::new();
            latencies.tell(&mut text, "nginx");
            tell_marks(&mut text, [latencies].into_iter());
            text
        };
        assert!(!told(&latencies).contains("MARKED"));
        latencies.add(&seen(0.2));
        let text = told(&latencies);
        assert!(
            text.contains("MARKED 1 of 2\n") && text.contains("MARKED: "),
            "{text}"
        );
        assert!(text.contains("p99 0.300 ms (0.300 to 0.300)"), "{text}");
        assert!(text.contains("sent late: p99 0.200 ms"), "{text}");
    }
}
