//! The ledger: the SQL database in which the shop keeps its books. SQL lives in this folder and
//! nowhere else; callers pass `now` in.
//!
//! | file | tables |
//! |---|---|
//! | `users` | users, otps |
//! | `items` | items |
//! | `orders` | orders and releases: the steps that one row decides |
//! | `payments` | payments |
//! | `stock` | stock_movements, and what a batch of them does to the rest |
//! | `books` | what the audit counts |
//! | `fences` | fences: who was replaced writes no more |
//! | `past` | a promo's past, for holding a crowd's history against it |
//! | `operators` | operator_log |

use std::fs::Permissions;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Sqlite, SqliteConnection, Transaction};

use crate::error::Result;

mod books;
mod fences;
mod items;
mod operators;
mod orders;
mod past;
mod payments;
mod stock;
#[cfg(test)]
pub(crate) mod tests;
mod users;

pub use books::{Books, Fault, Reached};
pub use fences::SWEEPER;
pub use items::NewItem;
pub use operators::OperatorCall;
pub use orders::Order;
pub use past::{Movement, Past, PastOrder, Steering};
pub use payments::{LatePayment, Payment, PaymentState};
pub use stock::Written;
pub use users::{NewUser, Otp, User};

/// How long a caller waits for a connection, or for another process that writes, before he is told
/// that the database is away.
const WAIT_MAX: Duration = Duration::from_secs(4);
const READERS_MAX: u32 = 4;

/// The ledger's database. SQLite takes one writer at a time, so there is one connection that writes
/// and several that read.
#[derive(Debug, Clone)]
pub struct Ledger {
    writer: SqlitePool,
    readers: SqlitePool,
}

/// Makes the file if there is none; only its owner may read it.
fn private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

impl Ledger {
    /// Opens the file, creates it if it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// If the file cannot be opened or its schema is not ours.
    pub async fn open(path: &Path) -> Result<Self> {
        // SQLite gives its other files the rights of the database.
        private(path).map_err(sqlx::Error::Io)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What was committed outlives a power cut: the writer acknowledges on the strength of it.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(WAIT_MAX);
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(WAIT_MAX)
                .before_acquire(|connection, _| {
                    let is_usable = is_usable(connection);
                    Box::pin(async move { Ok(is_usable) })
                })
        };
        let writer = pool(1).connect_with(options.clone()).await?;
        sqlx::migrate!("src/ledger/migrations").run(&writer).await?;
        let readers = pool(READERS_MAX)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self { writer, readers })
    }

    /// The ledger in a database that the caller opened: simulations keep it in memory.
    #[cfg(test)]
    pub(crate) async fn on(pool: SqlitePool) -> Result<Self> {
        sqlx::migrate!("src/ledger/migrations").run(&pool).await?;
        Ok(Self {
            writer: pool.clone(),
            readers: pool,
        })
    }

    /// Closes every connection; what is under way is finished first.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ready(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    /// A transaction that writes. It takes the write lock at once, so that what it reads cannot
    /// change before it writes.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// Whether a connection that comes back to its pool can be used again. When the disk is full or fails,
/// SQLite rolls the transaction back by itself, and the driver counts it as open from then on: every later
/// one would be refused. Such a connection is closed, and another one is opened.
pub(crate) fn is_usable(connection: &SqliteConnection) -> bool {
    !connection.is_in_transaction()
}
