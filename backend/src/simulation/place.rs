//! Where a simulated house keeps engine and ledger: in memory for thousands of sales, on the disk for some,
//! where a kill leaves behind what the files hold at that moment.

use std::path::PathBuf;
use std::sync::Arc;

use engine::SharedEngine;
use engine::clock::ManualClock;
use engine::embedded::{Embedded, Options};
use rusqlite::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use tempfile::TempDir;

/// Entries in the stream from which on no new order is taken.
const STREAM_MAX: u64 = 5;
const ENGINE: &str = "engine.db";
const LEDGER: &str = "ledger.db";

/// The place.
#[derive(Debug)]
pub enum Place {
    /// In memory, under this name.
    Memory(String),
    /// In files, with the threads of the real engine.
    Disk(TempDir),
}

impl Place {
    /// An empty folder.
    pub fn on_disk() -> Self {
        Self::Disk(tempfile::tempdir().unwrap())
    }

    /// Opens the engine.
    pub fn open_engine(&self, clock: &Arc<ManualClock>) -> SharedEngine {
        let options = Options {
            stream_max: STREAM_MAX,
            ..Options::default()
        };
        let engine = match self {
            Self::Memory(_) => Embedded::in_memory(&self.name(ENGINE), clock.clone(), &options),
            Self::Disk(_) => Embedded::open(&self.path(ENGINE), clock.clone(), options),
        };
        Arc::new(engine.unwrap())
    }

    /// How the ledger's database is opened.
    pub fn ledger_options(&self) -> SqliteConnectOptions {
        let options = SqliteConnectOptions::new()
            .create_if_missing(true)
            .foreign_keys(true);
        match self {
            Self::Memory(_) => options
                .filename(format!("/{}", self.name(LEDGER)))
                .vfs("memdb")
                .journal_mode(SqliteJournalMode::Memory)
                .synchronous(SqliteSynchronous::Off),
            Self::Disk(_) => options
                .filename(self.path(LEDGER))
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full),
        }
    }

    /// Connections to the tables of engine and ledger, for who looks on. They keep memory alive.
    pub fn look(&self) -> (Connection, Connection) {
        let look = |file| match self {
            Self::Memory(_) => Embedded::connect_in_memory(&self.name(file)).unwrap(),
            Self::Disk(_) => Connection::open(self.path(file)).unwrap(),
        };
        (look(ENGINE), look(LEDGER))
    }

    /// What a kill at this moment leaves behind. Memory stays as it is: there it is only the process
    /// that goes.
    pub fn as_killed(&self) -> Option<Self> {
        let Self::Disk(folder) = self else {
            return None;
        };
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let name = entry.unwrap().file_name();
            // Locks and shared memory go with the process.
            let name = name.to_str().unwrap();
            if name.ends_with(".db") || name.ends_with("-wal") {
                std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
            }
        }
        Some(Self::Disk(copy))
    }

    fn name(&self, file: &str) -> String {
        match self {
            Self::Memory(name) => format!("{name}-{file}"),
            Self::Disk(_) => file.to_owned(),
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        match self {
            Self::Memory(_) => PathBuf::from(file),
            Self::Disk(folder) => folder.path().join(file),
        }
    }
}
