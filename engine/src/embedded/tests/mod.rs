//! The embedded home against the suite, and what the suite cannot see: the file, its lock and its
//! rights, long times, transactions that fail, and a process that is killed.

mod faults;
mod files;
mod killed;
mod simulation;
mod times;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use lua_free_rules::units::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::conformance::Home;
use crate::{OrderStream, Promos, SharedEngine, Stock};

/// In the middle of a second, so that what must be whole seconds is seen to be.
const START: Timestamp = Timestamp(1_790_000_000_250);

struct EmbeddedHome {
    // The engine ends before its directory.
    embedded: Arc<Embedded>,
    directory: TempDir,
    clock: Arc<ManualClock>,
    options: Options,
}

fn file(directory: &Path) -> PathBuf {
    directory.join("engine.db")
}

impl EmbeddedHome {
    fn open(directory: TempDir, clock: Arc<ManualClock>, options: Options) -> Self {
        let path = file(directory.path());
        Self {
            embedded: Arc::new(Embedded::open(&path, clock.clone(), options.clone()).unwrap()),
            directory,
            clock,
            options,
        }
    }
}

#[async_trait]
impl Home for EmbeddedHome {
    async fn start(stream_max: u64) -> Self {
        let options = Options {
            stream_max,
            ..Options::default()
        };
        let clock = Arc::new(ManualClock::new(START));
        Self::open(TempDir::new().unwrap(), clock, options)
    }

    fn engine(&self) -> SharedEngine {
        self.embedded.clone()
    }

    async fn advance_ms(&self, ms: u64) {
        self.clock.advance_ms(ms.try_into().unwrap());
    }

    async fn crash(self) -> Self {
        // What a killed process leaves behind: the files as they are while it still runs.
        let left = TempDir::new().unwrap();
        for name in ["engine.db", "engine.db-wal"] {
            std::fs::copy(self.directory.path().join(name), left.path().join(name)).unwrap();
        }
        Self::open(left, self.clock.clone(), self.options.clone())
    }
}

mod conformance {
    use super::EmbeddedHome;

    crate::conformance_suite!(EmbeddedHome);
}
