//! A promo's past as the ledger has it: every movement and every order with its times, and when
//! operators steered it. What a crowd's history is held against.

use std::path::Path;

use lua_free_rules::units::{
    BuyerId, Generation, OrderId, PromoId, ReservationNumber, Sequence, Timestamp,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::{WAIT_MAX, orders::read_order_id};
use crate::error::Result;

/// A change of a promo's available stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// Which publishing of the promo.
    pub generation: Generation,
    /// The number of the change.
    pub sequence: Sequence,
    /// By how many units.
    pub delta: i64,
    /// Whether units were published or added.
    pub is_supply: bool,
    /// The order it was for.
    pub order: Option<OrderId>,
    /// Whose order; the ledger names him where units were reserved.
    pub buyer: Option<BuyerId>,
    /// When, by the engine's clock.
    pub at: Timestamp,
}

/// An order and the times of its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastOrder {
    /// Which.
    pub id: OrderId,
    /// Whose.
    pub buyer: BuyerId,
    /// How many units.
    pub amount: u32,
    /// The state it is in now.
    pub state: String,
    /// When it was accepted, by the engine's clock.
    pub created_at: Timestamp,
    /// When it was written.
    pub written_at: Timestamp,
    /// Until when it could be paid.
    pub pay_by: Timestamp,
    /// When it was paid.
    pub paid_at: Option<Timestamp>,
    /// When it ended unpaid.
    pub ended_at: Option<Timestamp>,
}

/// What an operator did to a promo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// Paused it.
    Pause,
    /// Resumed it.
    Resume,
    /// Closed it.
    Close,
}

/// Everything that is known of a promo's past.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Past {
    /// Changes of available stock, by generation and number.
    pub movements: Vec<Movement>,
    /// Orders, the oldest first.
    pub orders: Vec<PastOrder>,
    /// What operators did, the oldest first; the time is that of the call's beginning.
    pub steering: Vec<(Timestamp, Steering)>,
}

impl Past {
    /// Reads it from the file, beside a process that writes there or without one. Nothing is changed.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn read(ledger: &Path, promo: PromoId) -> Result<Self> {
        let mut connection = SqliteConnectOptions::new()
            .filename(ledger)
            .read_only(true)
            .busy_timeout(WAIT_MAX)
            .connect()
            .await?;
        // One state of the database for all three.
        let mut tx = connection.begin().await?;
        let past = Self {
            movements: movements(&mut tx, promo).await?,
            orders: orders(&mut tx, promo).await?,
            steering: steering(&mut tx, promo).await?,
        };
        tx.rollback().await?;
        connection.close().await?;
        Ok(past)
    }
}

async fn movements(db: &mut SqliteConnection, promo: PromoId) -> Result<Vec<Movement>> {
    sqlx::query(
        "SELECT generation, sequence, delta, kind IN ('published', 'added') AS is_supply, order_id, \
         buyer, at FROM stock_movements WHERE promo = ? ORDER BY generation, sequence",
    )
    .bind(promo.0)
    .fetch_all(db)
    .await?
    .iter()
    .map(|row| {
        let order: Option<String> = row.try_get("order_id")?;
        Ok(Movement {
            generation: Generation(row.try_get("generation")?),
            sequence: Sequence(row.try_get("sequence")?),
            delta: row.try_get("delta")?,
            is_supply: row.try_get("is_supply")?,
            order: order.as_deref().map(read_order_id).transpose()?,
            buyer: row.try_get::<Option<i64>, _>("buyer")?.map(BuyerId),
            at: Timestamp(row.try_get("at")?),
        })
    })
    .collect()
}

async fn orders(db: &mut SqliteConnection, promo: PromoId) -> Result<Vec<PastOrder>> {
    let rows = sqlx::query(
        "SELECT generation, number, buyer, amount, state, created_at, written_at, pay_by, paid_at, \
         ended_at FROM orders WHERE promo = ? ORDER BY created_at, generation, number",
    )
    .bind(promo.0)
    .fetch_all(db)
    .await?;
    let read = rows.iter().map(|row| {
        let amount: i64 = row.try_get("amount")?;
        Ok(PastOrder {
            id: OrderId {
                promo,
                generation: Generation(row.try_get("generation")?),
                number: ReservationNumber(row.try_get("number")?),
            },
            buyer: BuyerId(row.try_get("buyer")?),
            // What does not fit was asked for by nobody, and is found to be so.
            amount: u32::try_from(amount).unwrap_or(u32::MAX),
            state: row.try_get("state")?,
            created_at: Timestamp(row.try_get("created_at")?),
            written_at: Timestamp(row.try_get("written_at")?),
            pay_by: Timestamp(row.try_get("pay_by")?),
            paid_at: row.try_get::<Option<i64>, _>("paid_at")?.map(Timestamp),
            ended_at: row.try_get::<Option<i64>, _>("ended_at")?.map(Timestamp),
        })
    });
    read.collect()
}

async fn steering(db: &mut SqliteConnection, promo: PromoId) -> Result<Vec<(Timestamp, Steering)>> {
    let rows = sqlx::query(
        "SELECT at, what FROM operator_log WHERE what LIKE 'admin/promo/%' \
         AND outcome IN ('begun', 'ok') ORDER BY at, id",
    )
    .fetch_all(db)
    .await?;
    let mut steered = Vec::new();
    for row in rows {
        let what: String = row.try_get("what")?;
        let done = [
            ("pause", Steering::Pause),
            ("resume", Steering::Resume),
            ("close", Steering::Close),
        ]
        .into_iter()
        .find(|(name, _)| what == format!("admin/promo/{name} {promo}"));
        if let Some((_, done)) = done {
            steered.push((Timestamp(row.try_get("at")?), done));
        }
    }
    Ok(steered)
}
