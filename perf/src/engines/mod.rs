//! `perf engines`: what the embedded engine and the order writer do by grouping, side by side with the
//! same work one transaction each. Every commit is on the disk before it counts (synchronous=FULL).
//!
//! | module | what is measured |
//! |---|---|
//! | `reservations` | reservations of many callers at once: one group commit, or one transaction each |
//! | `writing` | order events into the ledger: in batches, or one transaction each |
//! | `chart` | the picture of both |

mod chart;
mod reservations;
mod writing;

use std::path::PathBuf;

use serde::Serialize;

use crate::cli;
use crate::machine::Machine;

/// What stops a measurement.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The same work in two ways, round by round; operations a second.
#[derive(Debug, Clone, Serialize)]
struct Comparison {
    what: String,
    grouped: Vec<f64>,
    single: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    command: String,
    machine: Machine,
    orders: usize,
    callers: usize,
    comparisons: Vec<Comparison>,
}

impl Comparison {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            grouped: Vec::new(),
            single: Vec::new(),
        }
    }

    /// How many times as much grouping does, each round on its own: lowest, median, highest.
    fn ratios(&self) -> (f64, f64, f64) {
        let mut ratios: Vec<f64> = self
            .grouped
            .iter()
            .zip(&self.single)
            .map(|(grouped, single)| grouped / single)
            .collect();
        ratios.sort_by(f64::total_cmp);
        let at = |index: usize| ratios.get(index).copied().unwrap_or(f64::NAN);
        (
            at(0),
            at(ratios.len() / 2),
            at(ratios.len().saturating_sub(1)),
        )
    }
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures, prints, and keeps what was asked for.
///
/// # Errors
/// If the engine, the ledger or a file fails.
pub fn run(asked: &cli::Engines) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let comparisons = runtime.block_on(measure(asked))?;
    let report = Report {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        machine: Machine::this(),
        orders: asked.orders,
        callers: asked.callers,
        comparisons,
    };
    let text = told(&report);
    print!("{text}");
    if let Some(folder) = &asked.out {
        std::fs::create_dir_all(folder)?;
        let keep = |name: &str, content: &[u8]| std::fs::write(folder.join(name), content);
        keep("engines.txt", text.as_bytes())?;
        keep("engines.json", &serde_json::to_vec_pretty(&report)?)?;
        keep("engines.svg", chart::draw(&report.comparisons).as_bytes())?;
    }
    Ok(())
}

async fn measure(asked: &cli::Engines) -> Result<Vec<Comparison>, Failure> {
    let folder = asked.folder.clone().unwrap_or_else(|| PathBuf::from("."));
    let mut reserving = Comparison::new(format!("reservations, {} callers", asked.callers));
    let mut writing = Comparison::new(format!("order writer, batches of {}", asked.batch));
    // One transaction each is slow: fewer of them say as much in the same time.
    let few = (asked.orders / 20).max(1);
    // Interleaved, so that what else the machine does falls on both alike.
    for round in 1..=asked.rounds {
        eprintln!("round {round} of {}", asked.rounds);
        let engine =
            |orders, batch_max| reservations::rate(&folder, orders, asked.callers, batch_max);
        reserving
            .grouped
            .push(engine(asked.orders, reservations::GROUPED).await?);
        reserving.single.push(engine(few, 1).await?);
        writing
            .grouped
            .push(writing::rate(&folder, asked.orders, asked.batch).await?);
        writing.single.push(writing::rate(&folder, few, 1).await?);
    }
    Ok(vec![reserving, writing])
}

fn told(report: &Report) -> String {
    let (machine, mut text) = (&report.machine, String::new());
    text.push_str(&format!(
        "{}\n{}, {} cores, Linux {}\n\n",
        report.command, machine.cpu, machine.cores, machine.kernel
    ));
    for each in &report.comparisons {
        let (low, middle, high) = each.ratios();
        text.push_str(&format!(
            "{}\n  grouped              {:>9.0}/s   (rounds: {})\n  one transaction each {:>9.0}/s   (rounds: {})\n  ratio                {middle:>9.1} x   ({low:.1} to {high:.1})\n\n",
            each.what,
            median(&each.grouped),
            listed(&each.grouped),
            median(&each.single),
            listed(&each.single),
        ));
    }
    text
}

fn listed(rates: &[f64]) -> String {
    rates
        .iter()
        .map(|rate| format!("{rate:.0}"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let each = Comparison {
            what: String::new(),
            grouped: vec![100.0, 300.0, 200.0],
            single: vec![10.0, 10.0, 40.0],
        };
        assert_eq!(each.ratios(), (5.0, 10.0, 30.0));
        assert_eq!(median(&each.grouped), 200.0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn both_ways_do_the_whole_work() {
        let folder = tempfile::tempdir().unwrap();
        for grouped in [1, 100] {
            assert!(
                reservations::rate(folder.path(), 50, 10, grouped)
                    .await
                    .unwrap()
                    > 0.0
            );
            assert!(writing::rate(folder.path(), 50, grouped).await.unwrap() > 0.0);
        }
    }
}
