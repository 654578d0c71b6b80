//! The history: every request of the crowd and what became of it, one JSON object a line, written by
//! the client alone, so that the shop's own account can be held against it. `perf/README.md`
//! describes the format.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::plan::Attack;
use super::steps::{Lost, Step};

/// The version of the format, in the first line.
pub const VERSION: u32 = 1;
/// A thread's lines are written out when so many bytes have come together, or a second has passed.
const BUFFER_BYTES: usize = 64 * 1024;

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opening {
    /// The format's version.
    pub history: u32,
    /// The crowd's seed.
    pub seed: u64,
    /// The promo.
    pub promo: i64,
    /// The item.
    pub item: i64,
    /// When the crowd began, by the client's clock: milliseconds since the Unix epoch.
    pub started_at: i64,
    /// The server's clock less the client's, in milliseconds, and how wrong that may be.
    pub server_ahead_ms: i64,
    /// Half the round trip in which it was measured, rounded up.
    pub server_ahead_error_ms: i64,
}

/// Every other line: one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line<'a> {
    /// The buyer: the `sub` of their session.
    pub buyer: i64,
    /// The promo.
    pub promo: i64,
    /// What was asked.
    pub step: Step,
    /// The idempotency key, for an order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Cow<'a, str>>,
    /// The units asked for, for an order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<u32>,
    /// What is wrong with the token on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack: Option<Attack>,
    /// When the first byte was sent, rounded down; absent if nothing was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<i64>,
    /// When the answer was there, or was given up, rounded up.
    pub received_at: i64,
    /// The HTTP status; 0 without an answer.
    pub status: u16,
    /// The error code of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub err_code: Option<u32>,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// The order, in the answer to an order, or the one looked at or paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<Cow<'a, str>>,
    /// The order's state, where the answer names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Cow<'a, str>>,
}

/// The file that all threads write whole lines to.
#[derive(Debug, Clone)]
pub struct HistoryFile(Arc<Mutex<File>>);

impl HistoryFile {
    /// Creates it, or empties it, and writes the first line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(path: &Path, opening: &Opening) -> io::Result<Self> {
        let mut file = File::create(path)?;
        let mut line = serde_json::to_vec(opening)?;
        line.push(b'\n');
        file.write_all(&line)?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    /// One thread's end of it.
    pub fn writer(&self) -> History {
        History {
            file: Some(self.clone()),
            lines: Vec::new(),
            fault: None,
        }
    }
}

/// One thread's lines.
#[derive(Debug, Default)]
pub struct History {
    file: Option<HistoryFile>,
    lines: Vec<u8>,
    fault: Option<io::Error>,
}

impl History {
    /// Whether anybody wants it.
    pub const fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Takes a line in. A fault of the file is kept for [`History::close`].
    pub fn push(&mut self, line: &Line<'_>) {
        if self.file.is_none() {
            return;
        }
        match serde_json::to_writer(&mut self.lines, line) {
            Ok(()) => self.lines.push(b'\n'),
            Err(error) => self.fault = Some(error.into()),
        }
        if self.lines.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    /// Writes out what has come together. Call it every second.
    pub fn flush(&mut self) {
        let Some(file) = &self.file else { return };
        if !self.lines.is_empty() {
            // Another thread's panic leaves whole lines behind: each write is one call.
            let mut file = file.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = file.write_all(&self.lines) {
                self.fault = Some(error);
            }
            self.lines.clear();
        }
    }

    /// Writes out the rest.
    ///
    /// # Errors
    /// The last fault of the file: the history is then not complete.
    pub fn close(mut self) -> io::Result<()> {
        self.flush();
        self.fault.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(buyer: i64) -> Line<'static> {
        Line {
            buyer,
            promo: 1,
            step: Step::Order,
            key: Some("k\"1".into()),
            amount: Some(2),
            attack: None,
            sent_at: Some(1_000),
            received_at: 1_005,
            status: 202,
            err_code: None,
            lost: None,
            order_id: Some("1-1-7".into()),
            state: None,
        }
    }

    fn opening() -> Opening {
        Opening {
            history: VERSION,
            seed: u64::MAX,
            promo: 1,
            item: 1,
            started_at: 999,
            server_ahead_ms: -3,
            server_ahead_error_ms: 1,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.jsonl");
        let file = HistoryFile::create(&path, &opening()).unwrap();
        let lost = Line {
            status: 0,
            sent_at: None,
            lost: Some(Lost::Connect),
            attack: Some(Attack::Foreign),
            key: None,
            amount: None,
            order_id: None,
            ..line(9)
        };
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (mut history, lost) = (file.writer(), lost.clone());
                std::thread::spawn(move || {
                    for _ in 0..1_000 {
                        history.push(&line(5));
                        history.push(&lost);
                    }
                    history.close().unwrap();
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        let first: Opening = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert_eq!(first, opening());
        let read: Vec<Line<'_>> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(read.len(), 8_000, "no line is lost or torn");
        assert_eq!(read.iter().filter(|read| **read == line(5)).count(), 4_000);
        assert_eq!(read.iter().filter(|read| **read == lost).count(), 4_000);
    }

    #[test]
    fn a_flush_is_on_disk_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.jsonl");
        let mut history = HistoryFile::create(&path, &opening()).unwrap().writer();
        history.push(&line(1));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
        history.flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }
}
