//! What a run leaves behind: report, chart, history.

use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::chart;
use super::clock::Clock;
use super::desk::Promo;
use super::error::CrowdError;
use super::history::{self, HistoryFile, Opening};
use super::report::Report;
use super::stage::Scene;
use super::tally::Tally;
use crate::cli;

/// Creates the history with its first line.
///
/// # Errors
/// If it cannot be written.
pub fn open_history(
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
///
/// # Errors
/// If a file cannot be written.
pub fn leave(asked: &cli::Crowd, report: &Report, tally: &Tally) -> Result<(), CrowdError> {
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

/// A file in the folder of the run, if there is one.
pub fn in_folder(asked: &cli::Crowd, name: &str) -> Option<PathBuf> {
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
