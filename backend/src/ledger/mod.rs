//! The ledger: the SQL database in which the shop keeps its books, be it SQLite, MariaDB, MySQL or
//! PostgreSQL. SQL lives in this folder and nowhere else; callers pass `now` in.
//!
//! | file | tables |
//! |---|---|
//! | `users` | users, otps |
//! | `items` | items |
//! | `orders` | orders and releases: the steps that one row decides |
//! | `payments` | payments |
//! | `reconciliation` | payments held against orders, and refunds |
//! | `stock` | what a batch of events does to every table, in one transaction |
//! | `movements` | stock_movements: once each |
//! | `publishings` | publishings |
//! | `books` | what the audit counts |
//! | `fences` | fences: who was replaced writes no more |
//! | `endings` | endings, counted_events: what the engine lost and was rebuilt without is written no more |
//! | `past` | a promo's past, for holding a crowd's history against it |
//! | `replay` | all events, for rebuilding an engine that lost its memory |
//! | `operators` | operator_log |
//!
//! | file | what it knows of databases |
//! |---|---|
//! | `database` | pools, connections, how transactions begin |
//! | `connection` | queries and transactions of any of them |
//! | `values` | parameters and rows |
//! | `dialect` | where their SQL differs |
//! | `codes` | what their errors mean |
//! | `retry` | transactions that others were in the way of |
//!
//! Several processes may write at once. Rows are locked in one order: the fence, orders, then what belongs to them
//! (releases, payments), movements, items last. What an order does next, its locked row decides.

use std::path::PathBuf;

use lua_free_rules::config;

use self::connection::{Query, Tx};
use self::database::Database;
use crate::error::{BackendError, Result};
use crate::settings::Secret;

mod books;
pub(crate) mod codes;
mod connection;
mod database;
mod dialect;
mod endings;
mod fences;
mod items;
mod movements;
mod operators;
mod orders;
mod past;
mod payments;
mod publishings;
mod reconciliation;
mod replay;
mod retry;
mod stock;
#[cfg(test)]
pub(crate) mod tests;
mod users;
mod values;

pub use books::{Books, Fault, Reached};
#[cfg(test)]
pub(crate) use database::is_usable;
pub use endings::Ending;
pub use fences::SWEEPER;
pub use items::NewItem;
pub use operators::OperatorCall;
pub use orders::Order;
pub use past::{Movement, Past, PastOrder, Steering};
pub use payments::{LatePayment, Payment, PaymentState};
pub use publishings::Publishing;
pub use reconciliation::{PaymentCounts, Refund};
pub use stock::Written;
pub use users::{NewUser, Otp, User};

/// Which database, and what it takes to open it.
#[derive(Debug, Clone)]
pub struct LedgerSettings {
    /// The database, as configured.
    pub database: config::Database,
    /// The password of the user of a database server.
    pub password: Option<Secret>,
    /// The folder that the path of SQLite's file is relative to.
    pub data_dir: PathBuf,
}

impl LedgerSettings {
    /// SQLite's file of that name in a folder.
    pub fn sqlite(data_dir: impl Into<PathBuf>, file: &str) -> Self {
        Self {
            database: config::Database::Sqlite(file.to_owned()),
            password: None,
            data_dir: data_dir.into(),
        }
    }

    fn password(&self) -> Result<Option<&str>> {
        let words = || BackendError::Settings("the database's password is not UTF-8".to_owned());
        let password = self.password.as_ref();
        password
            .map(|secret| secret.text().ok_or_else(words))
            .transpose()
    }
}

/// The ledger's database.
#[derive(Debug, Clone)]
pub struct Ledger {
    database: Database,
}

impl Ledger {
    /// Opens the database and brings its schema up to date. SQLite's file is created if it is missing.
    ///
    /// # Errors
    /// If the database cannot be reached or opened, or its schema is not ours.
    pub async fn open(settings: &LedgerSettings) -> Result<Self> {
        let database = Database::open(settings).await?;
        Ok(Self { database })
    }

    /// The ledger in a database that the caller opened: simulations keep it in memory.
    #[cfg(test)]
    pub(crate) async fn on(pool: sqlx::SqlitePool) -> Result<Self> {
        let database = Database::on(pool).await?;
        Ok(Self { database })
    }

    /// Closes every connection; what is under way is finished first.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ready(&self) -> Result<()> {
        self.read("SELECT 1").await?.execute().await?;
        Ok(())
    }

    async fn read(&self, query: &'static str) -> Result<Query<'static>> {
        self.database.read(query).await
    }

    async fn write(&self, query: &'static str) -> Result<Query<'static>> {
        self.database.write(query).await
    }

    async fn begin(&self) -> Result<Tx> {
        self.database.begin().await
    }
}
