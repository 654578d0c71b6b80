//! Orders and releases. Each step of an order is one conditional UPDATE of its row: whoever changes
//! the row first has decided, and what ends an order records its release in the same transaction.

use engine::{Fence, Release};
use lua_free_rules::order::State;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{BuyerId, ItemId, Money, OrderId, ReservationNumber, Timestamp};

use super::connection::Tx;
use super::retry::retried;
use super::values::Row;
use super::{Ledger, SWEEPER, fences};
use crate::error::{BackendError, Result};

/// An order as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which.
    pub id: OrderId,
    /// Whose.
    pub buyer: BuyerId,
    /// What is bought.
    pub item: ItemId,
    /// How many units.
    pub amount: u32,
    /// The price of one.
    pub unit_price: Money,
    /// What has become of it.
    pub state: State,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Until when it can be paid.
    pub pay_by: Timestamp,
    /// The reservation that holds its units, or held them last.
    pub current: ReservationNumber,
}

impl Order {
    /// What is to be paid.
    pub fn total(&self) -> Money {
        self.unit_price.times(self.amount)
    }

    /// The refusal for a step that its state does not allow.
    pub fn in_other_state(&self) -> Refusal {
        Refusal::OrderState {
            state: self.state.name(),
            not_yet_written: false,
        }
    }
}

macro_rules! select {
    ($condition:literal) => {
        concat!(
            "SELECT id, buyer, item, amount, unit_price, state, created_at, pay_by, current_number \
             FROM orders ",
            $condition
        )
    };
}

impl Ledger {
    /// One order, if it is written.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn order(&self, id: OrderId) -> Result<Option<Order>> {
        let row = self
            .read(select!("WHERE id = ?"))
            .await?
            .bind(id.to_string())
            .fetch_optional()
            .await?;
        row.as_ref().map(read_order).transpose()
    }

    /// A buyer's last `max` orders, newest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn orders_of(&self, buyer: BuyerId, max: u32) -> Result<Vec<Order>> {
        self.read(select!("WHERE buyer = ? ORDER BY created_at DESC LIMIT ?"))
            .await?
            .bind(buyer.0)
            .bind(max)
            .fetch_all()
            .await?
            .iter()
            .map(read_order)
            .collect()
    }

    /// Cancels an order that waits for its payment. Cancelling again changes nothing.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if the buyer has no such order, [`Refusal::OrderState`].
    pub async fn cancel(&self, id: OrderId, buyer: BuyerId, now: Timestamp) -> Result<Order> {
        retried(|| async {
            let mut tx = self.begin().await?;
            let order = order_in(&mut tx, id)
                .await?
                .filter(|order| order.buyer == buyer)
                .ok_or(Refusal::NotFound)?;
            if order.state == State::Cancelled {
                return Ok(order);
            }
            if !end_order(&mut tx, id, State::Cancelled, now).await? {
                return Err(order.in_other_state().into());
            }
            tx.commit().await?;
            let state = State::Cancelled;
            Ok(Order { state, ..order })
        })
        .await
    }

    /// Expires up to `max` orders whose time to pay has passed, but for those that others are changing
    /// just now, for the sweeper that has `fence`. Returns how many.
    ///
    /// # Errors
    /// [`BackendError::Replaced`] if another sweeper has taken over; or if the database fails.
    pub async fn expire(&self, now: Timestamp, max: u32, fence: Fence) -> Result<usize> {
        retried(|| async {
            let mut tx = self.begin().await?;
            let due = tx
                .query(
                    "SELECT id FROM orders WHERE state = 'written' AND pay_by <= ? \
                     ORDER BY pay_by LIMIT ? {lock_free}",
                )
                .bind(now.0)
                .bind(max)
                .fetch_all()
                .await?;
            let due = due.iter().map(|row| Ok((row.get("id")?, now.0)));
            let due: Vec<(String, i64)> = due.collect::<Result<_>>()?;
            if due.is_empty() {
                return Ok(0);
            }
            fences::pass(&mut tx, SWEEPER, fence).await?;
            let rows = serde_json::to_string(&due)?;
            tx.query(
                "INSERT INTO releases (order_id, number, amount, state, ended_at) \
                 SELECT o.id, o.current_number, o.amount, 'pending', e.now \
                 FROM {rows id text, now int} AS e CROSS JOIN orders AS o WHERE o.id = e.id",
            )
            .bind(&rows)
            .execute()
            .await?;
            tx.query(
                "{update orders set state = 'expired', ended_at = e.now by id text, now int} \
                 WHERE t.id = e.id AND t.state = 'written'",
            )
            .bind(&rows)
            .execute()
            .await?;
            tx.commit().await?;
            Ok(due.len())
        })
        .await
    }

    /// Up to `max` releases that were not confirmed, those tried longest ago first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn pending_releases(&self, max: u32) -> Result<Vec<Release>> {
        self.read(
            "SELECT order_id, number FROM releases WHERE state = 'pending' \
             ORDER BY tried_at LIMIT ?",
        )
        .await?
        .bind(max)
        .fetch_all()
        .await?
        .iter()
        .map(read_release)
        .collect()
    }

    /// The releases of one order that were not confirmed.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn pending_releases_of(&self, order: OrderId) -> Result<Vec<Release>> {
        self.read("SELECT order_id, number FROM releases WHERE state = 'pending' AND order_id = ?")
            .await?
            .bind(order.to_string())
            .fetch_all()
            .await?
            .iter()
            .map(read_release)
            .collect()
    }

    /// Notes for each release whether the engine had applied it before: then it is done.
    /// Otherwise it is done when its event is written.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn note_releases(&self, tried: &[(Release, bool)], now: Timestamp) -> Result<()> {
        retried(|| async {
            let mut tx = self.begin().await?;
            for (release, applied_before) in tried {
                tx.query(
                    "UPDATE releases SET tried_at = ?, state = CASE WHEN ? THEN 'done' ELSE state END \
                     WHERE order_id = ? AND number = ?",
                )
                .bind(now.0)
                .bind(*applied_before)
                .bind(release.order.to_string())
                .bind(release.number.0)
                .execute()
                .await?;
            }
            tx.commit().await
        })
        .await
    }
}

/// Ends a written order and records its release. False if the order is not written any more.
pub(super) async fn end_order(
    tx: &mut Tx,
    id: OrderId,
    state: State,
    now: Timestamp,
) -> Result<bool> {
    let ended = tx
        .query("UPDATE orders SET state = ?, ended_at = ? WHERE id = ? AND state = 'written'")
        .bind(state.name())
        .bind(now.0)
        .bind(id.to_string())
        .execute()
        .await?;
    if ended.rows == 0 {
        return Ok(false);
    }
    tx.query(
        "INSERT INTO releases (order_id, number, amount, state, ended_at) \
         SELECT id, current_number, amount, 'pending', ? FROM orders WHERE id = ?",
    )
    .bind(now.0)
    .bind(id.to_string())
    .execute()
    .await?;
    Ok(true)
}

/// An order, locked for a transaction that may change it.
pub(super) async fn order_in(tx: &mut Tx, id: OrderId) -> Result<Option<Order>> {
    let row = tx
        .query(select!("WHERE id = ? {lock}"))
        .bind(id.to_string())
        .fetch_optional()
        .await?;
    row.as_ref().map(read_order).transpose()
}

/// An order id as the ledger spells it.
pub(super) fn read_order_id(text: &str) -> Result<OrderId> {
    text.parse()
        .map_err(|_| BackendError::Unexpected(format!("`{text}` is not an order id")))
}

fn read_release(row: &Row) -> Result<Release> {
    Ok(Release {
        order: read_order_id(row.get("order_id")?)?,
        number: ReservationNumber(row.get("number")?),
    })
}

fn read_order(row: &Row) -> Result<Order> {
    let id = read_order_id(row.get("id")?)?;
    let odd = |what: &str| BackendError::Unexpected(format!("order {id} has an odd {what}"));
    let state: String = row.get("state")?;
    let amount: i64 = row.get("amount")?;
    Ok(Order {
        id,
        buyer: BuyerId(row.get("buyer")?),
        item: ItemId(row.get("item")?),
        amount: u32::try_from(amount).map_err(|_| odd("amount"))?,
        unit_price: Money::from_minor(row.get("unit_price")?).ok_or_else(|| odd("price"))?,
        state: State::from_name(&state).ok_or_else(|| odd("state"))?,
        created_at: Timestamp(row.get("created_at")?),
        pay_by: Timestamp(row.get("pay_by")?),
        current: ReservationNumber(row.get("current_number")?),
    })
}
