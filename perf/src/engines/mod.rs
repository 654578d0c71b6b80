//! `perf engines`: what Floodgate does by grouping, side by side with the same work done as it usually
//! is. In each round every way is measured once, so that what else the machine does falls on all alike.
//!
//! | module | what is measured |
//! |---|---|
//! | `redis` | reservations on Redis: in batches, one call each over multiplexed connections or a pool |
//! | `embedded` | reservations through the embedded engine: one group commit, or one transaction each |
//! | `sql` | orders into MariaDB, PostgreSQL and SQLite by the order writer, and otherwise |
//! | `naive` | the naive SQL design |
//! | `writing` | the order writer's work |
//! | `buyers` | who reserves, and whether everyone got his unit |
//! | `disk` | how long a small durable write takes |
//! | `report`, `chart` | what was measured, in words and as a picture |
//!
//! A measurement whose orders were not all made is a failure, not a figure.

pub(crate) mod buyers;
mod chart;
mod disk;
mod embedded;
mod naive;
mod redis;
mod report;
mod sql;
mod writing;

use std::path::PathBuf;

use crate::cli::{self, Part};
use crate::machine::Machine;
use report::{Comparison, Report};

/// What stops a measurement.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How everything is measured.
#[derive(Debug, Clone)]
struct Measuring {
    folder: PathBuf,
    orders: usize,
    callers: usize,
    batch: usize,
}

impl Measuring {
    /// Orders where each is waited for: fewer say as much in the same time.
    fn few(&self) -> usize {
        (self.orders / 20).max(1)
    }

    #[cfg(test)]
    fn small(folder: &std::path::Path) -> Self {
        Self {
            folder: folder.to_owned(),
            orders: 200,
            callers: 20,
            batch: 50,
        }
    }
}

/// Measures, prints, and keeps what was asked for.
///
/// # Errors
/// If an engine, a ledger or a file fails, or a way did not do its whole work.
///
/// # Panics
/// If a server that is to be measured is missing on this machine.
pub fn run(asked: &cli::Engines) -> Result<(), Failure> {
    let folder = asked.folder.clone().unwrap_or_else(|| PathBuf::from("."));
    let measuring = Measuring {
        folder: folder.canonicalize()?,
        orders: asked.orders,
        callers: asked.callers,
        batch: asked.batch,
    };
    // The servers keep their files in the same folder.
    tempfile::env::override_temp_dir(&measuring.folder)
        .map_err(|other| format!("temporary files are in {} already", other.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut fsync_ms = Vec::new();
    let mut comparisons = runtime.block_on(measure(asked, &measuring, &mut fsync_ms))?;
    comparisons.iter_mut().for_each(Comparison::finish);
    let report = Report {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        machine: Machine::this(),
        fsync_ms,
        is_release: !cfg!(debug_assertions),
        comparisons,
    };
    let text = report.told();
    print!("{text}");
    if let Some(folder) = &asked.out {
        std::fs::create_dir_all(folder)?;
        let keep = |name: &str, content: &[u8]| std::fs::write(folder.join(name), content);
        keep("engines.txt", text.as_bytes())?;
        keep("engines.json", &serde_json::to_vec_pretty(&report)?)?;
        keep("engines.svg", chart::draw(&report).as_bytes())?;
    }
    Ok(())
}

async fn measure(
    asked: &cli::Engines,
    measuring: &Measuring,
    fsync_ms: &mut Vec<f64>,
) -> Result<Vec<Comparison>, Failure> {
    let is_asked = |part| asked.only.is_empty() || asked.only.contains(&part);
    let mut on_redis = is_asked(Part::Redis).then(|| redis::Rounds::new(measuring));
    let mut embedded = is_asked(Part::Embedded).then(|| embedded::Rounds::new(measuring));
    let mut on_sql = is_asked(Part::Sql).then(|| sql::Rounds::start(measuring));
    for round in 1..=asked.rounds {
        eprintln!("round {round} of {}", asked.rounds);
        fsync_ms.push(disk::sync_ms(&measuring.folder)?);
        if let Some(part) = &mut on_redis {
            part.round(measuring).await?;
        }
        if let Some(part) = &mut embedded {
            part.round(measuring).await?;
        }
        if let Some(part) = &mut on_sql {
            part.round(measuring).await?;
        }
    }
    let mut comparisons = on_redis.map_or_else(Vec::new, redis::Rounds::end);
    comparisons.extend(embedded.map_or_else(Vec::new, embedded::Rounds::end));
    comparisons.extend(on_sql.map_or_else(Vec::new, sql::Rounds::end));
    Ok(comparisons)
}
