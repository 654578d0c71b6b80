//! What was measured, told: for each work and number of connections, what each server used for a request.

use std::fmt::Write as _;

use serde::Serialize;

use super::checks::Checks;
use super::crowded::{self, Crowded};
use super::idle::Idle;
use super::latency::Steady;
use super::load::Told;
use super::refusals::Beside;
use super::sale::Sale;
use crate::machine::Machine;
use crate::spread::{Spread, median};

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The command that made it.
    pub command: String,
    /// The machine it was made on.
    pub machine: Machine,
    /// Whether the tool was built with optimisation.
    pub is_release: bool,
    /// How often each server was measured.
    pub rounds: usize,
    /// For how long each time.
    pub seconds: u64,
    /// What was measured.
    #[serde(flatten)]
    pub measured: Measured,
    /// Parts that were not measured to their end, and why.
    pub failures: Vec<String>,
}

/// The figures.
#[derive(Debug, Default, Serialize)]
pub struct Measured {
    /// What was compared.
    pub tables: Vec<Table>,
    /// Refusals beside the cached item.
    pub beside: Vec<Beside>,
    /// What signatures take to be checked.
    pub checks: Option<Checks>,
    /// Orders that were accepted.
    pub sale: Option<Sale>,
    /// Latency at a steady rate, by one worker.
    pub steady: Option<Steady>,
    /// Busy connections beside idle ones.
    pub crowded: Vec<Crowded>,
    /// What idle connections cost.
    pub idle: Vec<Idle>,
}

/// The same work, by each server that can do it; Floodgate first.
#[derive(Debug, Serialize)]
pub struct Table {
    /// Which.
    pub work: &'static str,
    /// Over so many connections.
    pub connections: usize,
    /// By so many threads or processes.
    pub workers: usize,
    /// Each server.
    pub rows: Vec<Row>,
}

/// One server, round by round.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Which.
    pub peer: &'static str,
    /// Processor time of the server for each request, in microseconds.
    pub cpu_us: Vec<f64>,
    /// Requests a second.
    pub rates: Vec<f64>,
    /// Latencies under full load, in milliseconds.
    pub p50_ms: Vec<f64>,
    /// 99 of 100.
    pub p99_ms: Vec<f64>,
    /// 999 of 1,000.
    pub p999_ms: Vec<f64>,
    /// How many times as much processor time as Floodgate it used; absent for Floodgate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Spread>,
    /// How many times as much it is to use at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
}

impl Row {
    /// Nothing yet.
    pub const fn new(peer: &'static str) -> Self {
        Self {
            peer,
            cpu_us: Vec::new(),
            rates: Vec::new(),
            p50_ms: Vec::new(),
            p99_ms: Vec::new(),
            p999_ms: Vec::new(),
            ratio: None,
            goal: None,
        }
    }

    /// Adds a round in which the server used so much processor time.
    pub fn add(&mut self, told: Told, cpu_ns: u64) {
        self.cpu_us.push(cpu_ns as f64 / 1e3 / told.requests as f64);
        self.rates
            .push(told.requests as f64 / (told.duration_us as f64 / 1e6));
        self.p50_ms.push(told.p50_us / 1e3);
        self.p99_ms.push(told.p99_us / 1e3);
        self.p999_ms.push(told.p999_us / 1e3);
    }
}

impl Table {
    /// Compares the first row with the others, round by round.
    pub fn new(work: &'static str, connections: usize, workers: usize, mut rows: Vec<Row>) -> Self {
        if let Some((ours, others)) = rows.split_first_mut() {
            for row in others {
                let ratios = row.cpu_us.iter().zip(&ours.cpu_us);
                row.ratio = Spread::of(ratios.map(|(other, own)| other / own).collect());
            }
        }
        Self {
            work,
            connections,
            workers,
            rows,
        }
    }

    /// With goals for what these servers use.
    #[must_use]
    pub fn at_least(mut self, goals: &[(&str, f64)]) -> Self {
        for row in &mut self.rows {
            let goal = goals.iter().find(|(peer, _)| *peer == row.peer);
            row.goal = goal.map(|(_, goal)| *goal);
        }
        self
    }
}

impl Table {
    fn tell(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\n{}, {} connections, workers: {}",
            self.work, self.connections, self.workers
        );
        for row in &self.rows {
            let _ = write!(
                text,
                "  {:32} {:6.2} us a request {:9.0}/s   p50 {:6.2} ms  p99 {:6.2} ms  p99.9 {:6.2} ms",
                row.peer,
                median(&row.cpu_us),
                median(&row.rates),
                median(&row.p50_ms),
                median(&row.p99_ms),
                median(&row.p999_ms),
            );
            if let Some(ratio) = row.ratio {
                let Spread { low, median, high } = ratio;
                let _ = write!(text, "   {median:.2} x ({low:.2} to {high:.2})");
            }
            if let Some((goal, ratio)) = row.goal.zip(row.ratio) {
                let words = if ratio.median >= goal {
                    "reached"
                } else {
                    "missed"
                };
                let _ = write!(text, "  goal {goal:.2} x: {words}");
            }
            let _ = writeln!(text);
        }
    }
}

impl Sale {
    fn tell(&self, text: &mut String) {
        let _ = writeln!(text, "\nprocessor time for an accepted order, each process");
        for process in &self.processes {
            let _ = writeln!(
                text,
                "  {:32} {:14} {:6.2} us",
                process.peer,
                process.name,
                median(&process.cpu_us)
            );
        }
        if let Some(rates) = self.rates {
            let _ = writeln!(
                text,
                "  Floodgate accepts {:.2} x as many a second ({:.2} to {:.2})",
                rates.median, rates.low, rates.high
            );
        }
    }
}

impl Report {
    /// The report in words.
    pub fn told(&self) -> String {
        let mut text = String::new();
        let build = if self.is_release { "release" } else { "debug" };
        let machine = &self.machine;
        // Writing to a string does not fail, here and below.
        let _ = writeln!(
            text,
            "{}\n{}, {} cores, Linux {}, {build} build; medians of {} rounds of {} s",
            self.command, machine.cpu, machine.cores, machine.kernel, self.rounds, self.seconds
        );
        for table in self.measured.all() {
            table.tell(&mut text);
        }
        self.measured.tell_checks(&mut text);
        if let Some(sale) = &self.measured.sale {
            sale.tell(&mut text);
        }
        if let Some(steady) = &self.measured.steady {
            steady.tell(&mut text);
        }
        crowded::tell(&mut text, &self.measured.crowded);
        if !self.measured.idle.is_empty() {
            let _ = writeln!(text, "\nmemory for an idle connection");
        }
        for idle in &self.measured.idle {
            let _ = writeln!(
                text,
                "  {:32} {:6.1} KiB ({} connections)",
                idle.peer, idle.kib, idle.connections
            );
        }
        for failure in &self.failures {
            let _ = writeln!(text, "\nFAILED: {failure}");
        }
        text
    }
}

impl Measured {
    /// A rate that every server can keep: half of what the slowest one did at this work by one worker, over as
    /// many connections, or over the fewest that were measured.
    pub fn rate_for_all(&self, work: &str, connections: usize) -> Option<f64> {
        let tables = self.tables.iter();
        let table = tables
            .filter(|table| table.work == work && table.workers == 1)
            .min_by_key(|table| (table.connections != connections, table.connections))?;
        let rates = table.rows.iter().map(|row| median(&row.rates));
        rates.min_by(f64::total_cmp).map(|slowest| slowest / 2.0)
    }

    /// All tables, that of the sale last.
    pub fn all(&self) -> impl Iterator<Item = &Table> {
        let sale = self.sale.iter().map(|sale| &sale.table);
        self.tables.iter().chain(sale)
    }

    fn tell_checks(&self, text: &mut String) {
        let Some(checks) = &self.checks else {
            return;
        };
        let _ = writeln!(
            text,
            "\nchecking a signature: session {:.2} us, access token {:.2} us, forged one {:.2} us",
            median(&checks.session_us),
            median(&checks.token_us),
            median(&checks.forged_us)
        );
        let _ = writeln!(
            text,
            "\nrefusals without those checks, beside the cached item"
        );
        for beside in &self.beside {
            let times = beside.items.map_or_else(String::new, |times| {
                format!(
                    "{:.2} x ({:.2} to {:.2})",
                    times.median, times.low, times.high
                )
            });
            let _ = writeln!(
                text,
                "  {:56} {:5} connections, workers: {}  checks {:5.2} us, the rest {times}",
                beside.work, beside.connections, beside.workers, beside.checks_us
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let row = |peer, cpu_us: &[f64]| Row {
            cpu_us: cpu_us.to_vec(),
            ..Row::new(peer)
        };
        let rows = vec![
            row("ours", &[2.0, 4.0, 5.0]),
            row("other", &[4.0, 6.0, 20.0]),
        ];
        let table = Table::new("work", 64, 1, rows).at_least(&[("other", 2.1)]);
        assert_eq!(table.rows[0].ratio, None);
        let mut text = String::new();
        table.tell(&mut text);
        assert!(text.ends_with("goal 2.10 x: missed\n"), "{text}");
        let ratio = table.rows[1].ratio.unwrap();
        assert_eq!((ratio.low, ratio.median, ratio.high), (1.5, 2.0, 4.0));
    }
}
