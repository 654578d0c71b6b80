//! A promo's past as the ledger has it: every movement and every order with its times, and when
//! operators steered it. What a crowd's history is held against.

use engine::past::is_rebuilt;
use lua_free_rules::units::{
    BuyerId, Generation, OrderId, PromoId, ReservationNumber, Sequence, Timestamp,
};

use super::LedgerSettings;
use super::connection::Tx;
use super::database::Database;
use super::orders::read_order_id;
use super::publishings::publishings_in;
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
    /// Generations that go on with the one before, since the engine was rebuilt.
    pub rebuilt: Vec<Generation>,
    /// What operators did, the oldest first; the time is that of the call's beginning.
    pub steering: Vec<(Timestamp, Steering)>,
}

impl Past {
    /// Reads it from the database, beside processes that write there or without any. Nothing is changed.
    ///
    /// # Errors
    /// If the database cannot be reached or read.
    pub async fn read(ledger: &LedgerSettings, promo: PromoId) -> Result<Self> {
        let database = Database::look(ledger).await?;
        // One state of the database for all of it.
        let mut tx = database.snapshot().await?;
        let past = Self {
            movements: movements(&mut tx, promo).await?,
            orders: orders(&mut tx, promo).await?,
            rebuilt: rebuilt(&mut tx, promo).await?,
            steering: steering(&mut tx, promo).await?,
        };
        tx.commit().await?;
        database.close().await;
        Ok(past)
    }
}

async fn movements(tx: &mut Tx, promo: PromoId) -> Result<Vec<Movement>> {
    tx.query(
        "SELECT generation, sequence, delta, kind, order_id, buyer, at FROM stock_movements WHERE promo = ? ORDER BY generation, sequence",
    )
    .bind(promo.0)
    .fetch_all()
    .await?
    .iter()
    .map(|row| {
        let (order, kind): (Option<String>, String) = (row.get("order_id")?, row.get("kind")?);
        Ok(Movement {
            generation: Generation(row.get("generation")?),
            sequence: Sequence(row.get("sequence")?),
            delta: row.get("delta")?,
            is_supply: matches!(kind.as_str(), "published" | "added"),
            order: order.as_deref().map(read_order_id).transpose()?,
            buyer: row.get::<Option<i64>>("buyer")?.map(BuyerId),
            at: Timestamp(row.get("at")?),
        })
    })
    .collect()
}

async fn rebuilt(tx: &mut Tx, promo: PromoId) -> Result<Vec<Generation>> {
    let published = publishings_in(tx, promo).await?;
    let rebuilt = published.iter().filter(|each| is_rebuilt(&each.digest));
    Ok(rebuilt.map(|each| each.generation).collect())
}

async fn orders(tx: &mut Tx, promo: PromoId) -> Result<Vec<PastOrder>> {
    let rows = tx.query(
        "SELECT generation, number, buyer, amount, state, created_at, written_at, pay_by, paid_at, \
         ended_at FROM orders WHERE promo = ? ORDER BY created_at, generation, number",
    )
    .bind(promo.0)
    .fetch_all()
    .await?;
    let read = rows.iter().map(|row| {
        let amount: i64 = row.get("amount")?;
        Ok(PastOrder {
            id: OrderId {
                promo,
                generation: Generation(row.get("generation")?),
                number: ReservationNumber(row.get("number")?),
            },
            buyer: BuyerId(row.get("buyer")?),
            // What does not fit was asked for by nobody, and is found to be so.
            amount: u32::try_from(amount).unwrap_or(u32::MAX),
            state: row.get("state")?,
            created_at: Timestamp(row.get("created_at")?),
            written_at: Timestamp(row.get("written_at")?),
            pay_by: Timestamp(row.get("pay_by")?),
            paid_at: row.get::<Option<i64>>("paid_at")?.map(Timestamp),
            ended_at: row.get::<Option<i64>>("ended_at")?.map(Timestamp),
        })
    });
    read.collect()
}

/// What operators did to a promo, the oldest first.
pub(super) async fn steering(tx: &mut Tx, promo: PromoId) -> Result<Vec<(Timestamp, Steering)>> {
    let rows = tx
        .query(
            "SELECT at, what FROM operator_log WHERE what LIKE 'admin/promo/%' \
         AND outcome IN ('begun', 'ok') ORDER BY at, id",
        )
        .fetch_all()
        .await?;
    let mut steered = Vec::new();
    for row in rows {
        let what: String = row.get("what")?;
        let done = [
            ("pause", Steering::Pause),
            ("resume", Steering::Resume),
            ("close", Steering::Close),
        ]
        .into_iter()
        .find(|(name, _)| what == format!("admin/promo/{name} {promo}"));
        if let Some((_, done)) = done {
            steered.push((Timestamp(row.get("at")?), done));
        }
    }
    Ok(steered)
}
