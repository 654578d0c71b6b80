//! The house under simulation: engine and ledger under one virtual clock, and the process that
//! works with them, which can be killed and started again at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::clock::ManualClock;
use engine::{Clock, SharedEngine};
use lua_free_rules::config::CatalogItem;
use lua_free_rules::keys::{Key, KeyRing};
use lua_free_rules::units::{ItemId, Millis, Money, Timestamp};
use rusqlite::Connection;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};

use super::line::{AtLedger, Line};
use super::place::Place;
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
    place: Place,
    pool: SqlitePool,
}

impl House {
    /// A house nobody bought in yet.
    pub async fn build(is_on_disk: bool) -> Self {
        static BUILT: AtomicU64 = AtomicU64::new(0);
        let place = if is_on_disk {
            Place::on_disk()
        } else {
            let number = BUILT.fetch_add(1, Ordering::Relaxed);
            Place::Memory(format!("house-{number}"))
        };
        let clock = Arc::new(ManualClock::new(START));
        let engine = place.open_engine(&clock);
        let (engine_rows, ledger_rows) = place.look();
        let at_ledger = AtLedger::default();
        let pool = open_pool(&place, &at_ledger).await;
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
            clock,
            engine,
            ledger,
            engine_rows,
            ledger_rows,
            at_ledger,
            keys: KeyRing::new(vec![Key::new("k", &[7; 32]).unwrap()], "k").unwrap(),
            metrics: Metrics::new().unwrap(),
            place,
            pool,
        }
    }

    /// Kills the process and starts it again. Whoever worked in it must be gone already.
    pub async fn restart(&mut self) {
        self.at_ledger.set(None);
        if let Some(place) = self.place.as_killed() {
            (self.engine_rows, self.ledger_rows) = place.look();
            self.place = place;
        }
        self.pool.close().await;
        self.pool = open_pool(&self.place, &self.at_ledger).await;
        self.ledger = Ledger::on(self.pool.clone()).await.unwrap();
        self.engine = self.place.open_engine(&self.clock);
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
    pub fn sweeper(&self, line: &Arc<Line>, holder: &str) -> Sweeper {
        let every = std::time::Duration::from_secs(1);
        Sweeper::new(
            line.clone(),
            self.ledger.clone(),
            self.metrics.clone(),
            every,
        )
        .named(holder)
        .under(self.clock())
    }

    /// The payments with the demo's button.
    pub fn payments(&self, line: &Arc<Line>) -> Payments {
        let demo = Arc::new(Demo::new(Secret::new("webhook")));
        Payments::new(
            Some(demo),
            Vec::new(),
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

/// One connection, so that its work comes in one order.
async fn open_pool(place: &Place, at_ledger: &AtLedger) -> SqlitePool {
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
        .connect_with(place.ledger_options())
        .await
        .unwrap()
}
