//! The house under simulation: engine and ledger in memory under one virtual clock, and the process that
//! works with them, which can be killed and started again at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::clock::ManualClock;
use engine::embedded::{Embedded, Options};
use engine::{Clock, SharedEngine};
use lua_free_rules::config::CatalogItem;
use lua_free_rules::keys::{Key, KeyRing};
use lua_free_rules::units::{ItemId, Millis, Money, Timestamp};
use rusqlite::Connection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::line::{AtLedger, Line};
use crate::bounded::Bounded;
use crate::ledger::{Ledger, is_usable};
use crate::metrics::Metrics;
use crate::payment::{Demo, Payments};
use crate::reserve::Reservations;
use crate::settings::Secret;
use crate::sweeper::Sweeper;
use crate::writer::OrderWriter;

/// When every sale begins to be simulated.
pub const START: Timestamp = Timestamp(1_800_000_000_000);
/// What is sold.
pub const ITEM: ItemId = ItemId(3);
/// Units in the shop before anything was sold.
pub const SHOP_STOCK: i64 = 1_000;
/// Entries in the stream from which on no new order is taken.
const STREAM_MAX: u64 = 5;

/// The house.
pub struct House {
    /// The time.
    pub clock: Arc<ManualClock>,
    /// The engine of the process that runs now.
    pub engine: SharedEngine,
    /// The ledger, as that process opened it.
    pub ledger: Ledger,
    /// The engine's tables, for who looks on.
    pub engine_rows: Connection,
    /// The ledger's tables, for who looks on.
    pub ledger_rows: Connection,
    /// Who asks the ledger.
    pub at_ledger: AtLedger,
    /// The keys that sign.
    pub keys: KeyRing,
    metrics: Metrics,
    name: String,
    pool: SqlitePool,
}

impl House {
    /// A house nobody bought in yet.
    pub async fn build() -> Self {
        static BUILT: AtomicU64 = AtomicU64::new(0);
        let name = format!("house-{}", BUILT.fetch_add(1, Ordering::Relaxed));
        let engine_rows = Embedded::connect_in_memory(&engine_name(&name)).unwrap();
        let ledger_rows = Embedded::connect_in_memory(&ledger_name(&name)).unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let at_ledger = AtLedger::default();
        let pool = open_pool(&name, &at_ledger).await;
        let ledger = Ledger::on(pool.clone()).await.unwrap();
        let item = CatalogItem {
            id: ITEM,
            title: "Sneakers".to_owned(),
            price: Money::from_minor(19_900).unwrap(),
            stock: 1_000,
            description: String::new(),
            img_url: "/sneakers.svg".to_owned(),
        };
        ledger.seed(&[item]).await.unwrap();
        Self {
            engine: open_engine(&name, &clock),
            clock,
            ledger,
            engine_rows,
            ledger_rows,
            at_ledger,
            keys: KeyRing::new(vec![Key::new("k", &[7; 32]).unwrap()], "k").unwrap(),
            metrics: Metrics::new().unwrap(),
            name,
            pool,
        }
    }

    /// Kills the process and starts it again. Whoever worked in it must be gone already.
    pub async fn restart(&mut self) {
        self.at_ledger.set(None);
        self.pool.close().await;
        self.pool = open_pool(&self.name, &self.at_ledger).await;
        self.ledger = Ledger::on(self.pool.clone()).await.unwrap();
        self.engine = open_engine(&self.name, &self.clock);
    }

    /// The order server's way to a reservation.
    pub fn reservations(&self, line: &Arc<Line>) -> Reservations {
        Reservations {
            engine: line.clone(),
            keys: self.keys.clone(),
            resubmit_for: Millis::seconds(600),
            clock: self.clock.clone(),
            bound: Bounded::new(8, 8),
        }
    }

    /// The order writer.
    pub fn writer(&self, line: &Arc<Line>, batch_max: usize) -> OrderWriter {
        OrderWriter::new(
            line.clone(),
            self.ledger.clone(),
            self.metrics.clone(),
            batch_max,
        )
        .under(self.clock())
    }

    /// The expiry sweeper.
    pub fn sweeper(&self, line: &Arc<Line>) -> Sweeper {
        let every = std::time::Duration::from_secs(1);
        Sweeper::new(
            line.clone(),
            self.ledger.clone(),
            self.metrics.clone(),
            every,
        )
        .under(self.clock())
    }

    /// The payments with the demo's button.
    pub fn payments(&self, line: &Arc<Line>) -> Payments {
        let demo = Arc::new(Demo::new(Secret::new("webhook")));
        Payments::new(
            vec![demo],
            line.clone(),
            self.ledger.clone(),
            self.metrics.clone(),
        )
        .under(self.clock())
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }
}

fn engine_name(house: &str) -> String {
    format!("{house}-engine")
}

fn ledger_name(house: &str) -> String {
    format!("{house}-ledger")
}

fn open_engine(house: &str, clock: &Arc<ManualClock>) -> SharedEngine {
    let options = Options {
        stream_max: STREAM_MAX,
        ..Options::default()
    };
    Arc::new(Embedded::in_memory(&engine_name(house), clock.clone(), &options).unwrap())
}

/// One connection, so that its work comes in one order.
async fn open_pool(house: &str, at_ledger: &AtLedger) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(format!("/{}", ledger_name(house)))
        .vfs("memdb")
        .create_if_missing(true)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Memory)
        .synchronous(SqliteSynchronous::Off);
    let at_ledger = at_ledger.clone();
    SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .before_acquire(move |connection, _| {
            let (line, at_ledger) = (at_ledger.line(), at_ledger.clone());
            let is_usable = is_usable(connection);
            Box::pin(async move {
                if let Some(line) = line
                    && line.before_ledger().await
                {
                    let mut handle = connection.lock_handle().await?;
                    // The connection keeps the hook, and may serve others next.
                    handle.set_commit_hook(move || {
                        let asks = at_ledger.line();
                        asks.is_none_or(|asks| !Arc::ptr_eq(&asks, &line)) || line.may_commit()
                    });
                }
                Ok(is_usable)
            })
        })
        .connect_with(options)
        .await
        .unwrap()
}
