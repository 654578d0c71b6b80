//! The embedded home: SQLite with group commit, for one process on one machine.
//!
//! | file | holds |
//! |---|---|
//! | `home` | the traits, each method a step or a read |
//! | `step` | what a step works with and returns |
//! | `commit` | the writer: waiting requests become one transaction |
//! | `queue` | the bounded queue in front of a thread |
//! | `simulated` | tests only: the engine in memory, without threads |
//! | `schema` | the file, its lock, its tables |
//! | `promos`, `holdings`, `reservations` | the rows |
//! | `door`, `stock`, `stream`, `sessions`, `tend`, `leases` | the steps: plain functions of a transaction and `now` |
//! | `copies` | the cache, in memory |

mod commit;
mod copies;
mod door;
mod holdings;
mod home;
mod leases;
mod promos;
mod queue;
mod reservations;
mod schema;
mod sessions;
#[cfg(any(test, feature = "simulation"))]
mod simulated;
mod step;
mod stock;
mod stream;
mod tend;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;

use crate::clock::Clock;
use commit::{Committed, Store, Work};
use copies::Copies;
use leases::Lease;
use queue::{Queue, Waiting};

/// How an embedded engine bounds its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Entries in the stream from which on no new order is taken.
    pub stream_max: u64,
    /// Requests that may wait for the writer, and as many for the reader.
    pub waiting_max: usize,
    /// Most requests in one transaction.
    pub batch_max: usize,
    /// How long a request waits for its turn, and once more for its answer.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            stream_max: 200_000,
            waiting_max: 8_192,
            batch_max: 1_024,
            patience: Duration::from_secs(5),
        }
    }
}

/// Why an embedded engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds it.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// A file could not be opened.
    #[error("{path}: {source}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite could not open it.
    #[error("the engine's file cannot be used: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// It is a database, but not an engine's.
    #[error("{0} is not an engine's file")]
    Foreign(PathBuf),
    /// A later version wrote it.
    #[error("{0} was written by a later version")]
    Newer(PathBuf),
    /// Its file system cannot keep a write-ahead log.
    #[error("{0} lies on a file system that cannot keep a write-ahead log")]
    NoWal(PathBuf),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(std::io::Error),
}

/// What the reading thread does: a closure that sends its own answer.
type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The engine in one file. Dropping it waits until what was asked is done, as [`Embedded::close`]
/// does without blocking.
pub struct Embedded {
    // The reader ends before the writer, which holds the lock.
    reads: Queue<Read>,
    writes: Queue<Box<dyn Work>>,
    clock: Arc<dyn Clock>,
    committed: Arc<Committed>,
    cursor: Mutex<Cursor>,
    leases: tokio::sync::Mutex<HashMap<String, Lease>>,
    copies: Mutex<Copies>,
}

/// Where this process is in the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cursor {
    /// The last entry that was read.
    after: i64,
    /// How often it was set back: a read that began before does not move it.
    rewinds: u64,
}

impl Embedded {
    /// Opens the engine in the file at `path`, made if there is none, and holds it for this process
    /// alone: `run` for as long as it lives, `audit` and `publish` when none runs. Blocks while it
    /// opens the file.
    ///
    /// # Errors
    /// [`OpenError::Locked`] while another process, or another engine in this one, holds it; else
    /// what is wrong with the file.
    pub fn open(path: &Path, clock: Arc<dyn Clock>, options: Options) -> Result<Self, OpenError> {
        let lock = schema::lock(path)?;
        let writer = schema::open_writer(path)?;
        let reader = schema::open_reader(path)?;
        let committed = Arc::new(Committed::default());
        let mut store = Store::new(
            writer,
            Arc::clone(&clock),
            options.stream_max,
            Arc::clone(&committed),
        )?;
        let Options {
            waiting_max,
            batch_max,
            patience,
            ..
        } = options;
        let writes = Queue::start("engine-writer", waiting_max, patience, move |waiting| {
            store.serve(waiting, batch_max);
            drop(store);
            // Closing would do, but for a child process that was forked at this very moment.
            if let Err(error) = lock.unlock() {
                tracing::warn!(%error, "could not let go of the engine's lock");
            }
        })
        .map_err(OpenError::Thread)?;
        let reads = Queue::start("engine-reader", waiting_max, patience, move |waiting| {
            serve_reads(&reader, waiting);
        })
        .map_err(OpenError::Thread)?;
        Ok(Self {
            reads,
            writes,
            clock,
            committed,
            cursor: Mutex::default(),
            leases: tokio::sync::Mutex::default(),
            copies: Mutex::default(),
        })
    }

    /// Takes no more requests, does those that wait, and lets go of the file.
    pub async fn close(&self) {
        self.reads.close().await;
        self.writes.close().await;
    }
}

fn serve_reads(db: &Connection, mut waiting: Waiting<Read>) {
    let mut batch: Vec<Read> = Vec::new();
    while waiting.next(1, &mut batch) {
        let read = AssertUnwindSafe(|| batch.drain(..).for_each(|read| read(db)));
        if std::panic::catch_unwind(read).is_err() {
            tracing::error!("a read panicked");
        }
    }
}
