//! The engine in memory and without threads: what seeded simulations run, thousands of sales in a row.
//! Its steps, its reads and its traits are those of the engine in a file.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OpenFlags};

use super::commit::{Committed, Store, Work};
use super::queue::Queue;
use super::{Embedded, OpenError, Options, Read, schema};
use crate::clock::Clock;

impl Embedded {
    /// Opens the engine called `name` in this process' memory. It is there until the last connection to
    /// it is dropped, be it an engine or one of [`Embedded::connect_in_memory`]; so an engine that is
    /// dropped and opened again is a process that was killed and started again. Each request is done
    /// on the caller's thread, in a transaction of its own.
    ///
    /// # Errors
    /// If SQLite refuses.
    pub fn in_memory(
        name: &str,
        clock: Arc<dyn Clock>,
        options: &Options,
    ) -> Result<Self, OpenError> {
        let mut writer = Self::connect_in_memory(name)?;
        schema::prepare(&mut writer)?;
        // Memory has no disk to wait for.
        writer.pragma_update(None, "journal_mode", "MEMORY")?;
        writer.pragma_update(None, "synchronous", "OFF")?;
        let reader = Self::connect_in_memory(name)?;
        let committed = Arc::new(Committed::default());
        let mut store = Store::new(
            writer,
            Arc::clone(&clock),
            options.stream_max,
            Arc::clone(&committed),
        )?;
        Ok(Self {
            reads: Queue::in_place(move |read: Read| {
                // As on the reading thread, a panic costs its caller alone.
                let read = AssertUnwindSafe(|| read(&reader));
                if std::panic::catch_unwind(read).is_err() {
                    tracing::error!("a read panicked");
                }
            }),
            writes: Queue::in_place(move |work: Box<dyn Work>| store.commit(vec![work])),
            clock,
            committed,
            cursor: Mutex::default(),
            leases: tokio::sync::Mutex::default(),
            copies: Mutex::default(),
        })
    }

    /// A connection to the tables of the engine called `name`: for who looks on, or breaks something.
    ///
    /// # Errors
    /// If SQLite refuses.
    pub fn connect_in_memory(name: &str) -> Result<Connection, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let uri = format!("file:/{name}?vfs=memdb");
        let db = Connection::open_with_flags(uri, flags)?;
        db.set_prepared_statement_cache_capacity(64);
        Ok(db)
    }
}
