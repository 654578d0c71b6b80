//! The stock movements, and what a batch of them does to orders, releases, payments and items: one
//! transaction, a few statements whatever the size of the batch. A replay writes nothing twice.

use std::collections::HashSet;

use engine::{Change, Event, Reservation};
use lua_free_rules::units::{OrderId, ReservationNumber, Timestamp};
use serde_json::{Value, json};
use sqlx::{Row as _, Sqlite, Transaction};

use super::Ledger;
use crate::error::{BackendError, Result};

/// What writing a batch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Events that were written.
    pub new: usize,
    /// Events that the ledger had already.
    pub repeated: usize,
}

type Tx = Transaction<'static, Sqlite>;

impl Ledger {
    /// Writes a batch of events. Either all of them are in the ledger afterwards, or nothing changed.
    ///
    /// # Errors
    /// [`BackendError::Contradiction`] if the ledger holds something else under the same key, or an
    /// event does not fit what is there.
    pub async fn write_events(&self, events: &[Event], now: Timestamp) -> Result<Written> {
        let mut tx = self.begin().await?;
        let all = rows_of(events.iter());
        let inserted = insert_movements(&mut tx, &all).await?;
        if inserted.len() < events.len() {
            meet_same_content(&mut tx, &all, events).await?;
        }
        let mut fresh = inserted;
        let new: Vec<&Event> = events.iter().filter(|e| fresh.remove(&key_of(e))).collect();
        insert_orders(&mut tx, &new, now).await?;
        for event in &new {
            if let Change::ReservedAgain {
                reservation,
                payment,
            } = &event.change
            {
                pay_late(&mut tx, reservation, payment, event.at).await?;
            }
        }
        finish_releases(&mut tx, &new).await?;
        update_items(&mut tx, &new).await?;
        tx.commit().await?;
        Ok(Written {
            new: new.len(),
            repeated: events.len() - new.len(),
        })
    }
}

type Key = (i64, i64, i64);

const fn key_of(event: &Event) -> Key {
    (event.promo.0, event.generation.0, event.sequence.0)
}

/// The movements as JSON rows: promo, generation, sequence, kind, delta, order, number, buyer, at.
fn rows_of<'a>(events: impl Iterator<Item = &'a Event>) -> String {
    let rows = events.map(|event| {
        let (promo, generation, sequence) = key_of(event);
        let (kind, order, number, buyer) = subject_of(&event.change);
        json!([
            promo,
            generation,
            sequence,
            kind,
            event.change.delta(),
            order.map(|id| id.to_string()),
            number.map(|number| number.0),
            buyer,
            event.at.0,
        ])
    });
    Value::Array(rows.collect()).to_string()
}

fn subject_of(
    change: &Change,
) -> (
    &'static str,
    Option<OrderId>,
    Option<ReservationNumber>,
    Option<i64>,
) {
    match change {
        Change::Published { .. } => ("published", None, None, None),
        Change::Added { .. } => ("added", None, None, None),
        Change::Reserved {
            reservation: made, ..
        } => (
            "reserved",
            Some(made.order),
            Some(made.number),
            Some(made.buyer.0),
        ),
        Change::ReservedAgain {
            reservation: made, ..
        } => (
            "reserved_again",
            Some(made.order),
            Some(made.number),
            Some(made.buyer.0),
        ),
        Change::Released { release, .. } => {
            ("released", Some(release.order), Some(release.number), None)
        }
    }
}

/// Inserts what is not there; returns the keys that were new.
async fn insert_movements(tx: &mut Tx, rows: &str) -> Result<HashSet<Key>> {
    sqlx::query(
        "INSERT INTO stock_movements \
         (promo, generation, sequence, kind, delta, order_id, number, buyer, at) \
         SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, \
                value->>7, value->>8 FROM json_each(?) WHERE true \
         ON CONFLICT (promo, generation, sequence) DO NOTHING \
         RETURNING promo, generation, sequence",
    )
    .bind(rows)
    .fetch_all(&mut **tx)
    .await?
    .iter()
    .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
    .collect()
}

/// Meeting the same content under a key is a replay; meeting other content is an error.
async fn meet_same_content(tx: &mut Tx, rows: &str, events: &[Event]) -> Result<()> {
    let other = sqlx::query(
        "SELECT m.promo, m.generation, m.sequence FROM json_each(?) AS e \
         JOIN stock_movements AS m ON m.promo = e.value->>0 AND m.generation = e.value->>1 \
          AND m.sequence = e.value->>2 \
         WHERE m.kind IS NOT e.value->>3 OR m.delta IS NOT e.value->>4 \
            OR m.order_id IS NOT e.value->>5 OR m.number IS NOT e.value->>6 \
            OR m.buyer IS NOT e.value->>7 OR m.at IS NOT e.value->>8 LIMIT 1",
    )
    .bind(rows)
    .fetch_optional(&mut **tx)
    .await?;
    if let Some(row) = other {
        let key: (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        return Err(BackendError::Contradiction(format!(
            "movement {} of promo {} generation {} is in the ledger with other content",
            key.2, key.0, key.1
        )));
    }
    let orders = Value::Array(
        reserved(events.iter())
            .map(|made| order_row(made, Timestamp(0)))
            .collect(),
    )
    .to_string();
    let other = sqlx::query(
        "SELECT e.value->>0 FROM json_each(?) AS e JOIN orders AS o ON o.id = e.value->>0 \
         WHERE o.buyer IS NOT e.value->>4 OR o.item IS NOT e.value->>5 \
            OR o.amount IS NOT e.value->>6 OR o.unit_price IS NOT e.value->>7 LIMIT 1",
    )
    .bind(orders)
    .fetch_optional(&mut **tx)
    .await?;
    match other {
        None => Ok(()),
        Some(row) => Err(BackendError::Contradiction(format!(
            "order {} is in the ledger with other content",
            row.try_get::<String, _>(0)?
        ))),
    }
}

fn reserved<'a>(events: impl Iterator<Item = &'a Event>) -> impl Iterator<Item = &'a Reservation> {
    events.filter_map(|event| event.change.reservation())
}

/// The order as a JSON row. Its time to pay runs from `written_at`.
fn order_row(made: &Reservation, written_at: Timestamp) -> Value {
    json!([
        made.order.to_string(),
        made.order.promo.0,
        made.order.generation.0,
        made.number.0,
        made.buyer.0,
        made.item.0,
        made.amount,
        made.price.minor(),
        made.made_at.0,
        written_at.plus_ms(made.pay_within.ms()).0,
    ])
}

async fn insert_orders(tx: &mut Tx, new: &[&Event], now: Timestamp) -> Result<()> {
    let rows: Vec<Value> = reserved(new.iter().copied())
        .map(|made| order_row(made, now))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let expected = rows.len() as u64;
    let inserted = sqlx::query(
        "INSERT INTO orders (id, promo, generation, number, buyer, item, amount, unit_price, \
                             state, created_at, written_at, pay_by, current_number) \
         SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, \
                value->>7, 'written', value->>8, ?, value->>9, value->>3 \
         FROM json_each(?) WHERE true ON CONFLICT DO NOTHING",
    )
    .bind(now.0)
    .bind(Value::Array(rows).to_string())
    .execute(&mut **tx)
    .await?;
    if inserted.rows_affected() == expected {
        return Ok(());
    }
    Err(BackendError::Contradiction(
        "an order is in the ledger under another movement".to_owned(),
    ))
}

/// The engine reserved again for a late payment: the order holds units and is paid. If the payment was
/// settled otherwise in the meantime, the units go back; the movement stands either way, since the
/// engine made it.
async fn pay_late(tx: &mut Tx, made: &Reservation, payment: &str, at: Timestamp) -> Result<()> {
    let order = made.order.to_string();
    let accepted = sqlx::query(
        "UPDATE payments SET state = 'accepted' \
         WHERE reference = ? AND order_id = ? AND state = 'late'",
    )
    .bind(payment)
    .bind(&order)
    .execute(&mut **tx)
    .await?;
    if accepted.rows_affected() == 1 {
        let paid = sqlx::query(
            "UPDATE orders SET state = 'paid', current_number = ?, paid_at = ? \
             WHERE id = ? AND state IN ('cancelled', 'expired')",
        )
        .bind(made.number.0)
        .bind(at.0)
        .bind(&order)
        .execute(&mut **tx)
        .await?;
        if paid.rows_affected() == 1 {
            return Ok(());
        }
        sqlx::query("UPDATE payments SET state = 'refund_due' WHERE reference = ?")
            .bind(payment)
            .execute(&mut **tx)
            .await?;
    }
    sqlx::query(
        "INSERT INTO releases (order_id, number, amount, state, ended_at) \
         VALUES (?, ?, ?, 'pending', ?)",
    )
    .bind(&order)
    .bind(made.number.0)
    .bind(made.amount)
    .bind(at.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn finish_releases(tx: &mut Tx, new: &[&Event]) -> Result<()> {
    let released: Vec<Value> = new
        .iter()
        .filter_map(|event| match event.change {
            Change::Released { release, .. } => {
                Some(json!([release.order.to_string(), release.number.0]))
            }
            _ => None,
        })
        .collect();
    if !released.is_empty() {
        sqlx::query(
            "UPDATE releases SET state = 'done' WHERE (order_id, number) IN \
             (SELECT value->>0, value->>1 FROM json_each(?))",
        )
        .bind(Value::Array(released).to_string())
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// One change of stock and sales for each item, whatever the number of movements.
async fn update_items(tx: &mut Tx, new: &[&Event]) -> Result<()> {
    let moved: Vec<Value> = new
        .iter()
        .filter_map(|event| {
            let (_, order, ..) = subject_of(&event.change);
            order.map(|id| json!([id.to_string(), event.change.delta()]))
        })
        .collect();
    if !moved.is_empty() {
        sqlx::query(
            "UPDATE items SET stock = stock + moved.delta, sales = sales - moved.delta \
             FROM (SELECT o.item AS item, sum(e.value->>1) AS delta FROM json_each(?) AS e \
                   JOIN orders AS o ON o.id = e.value->>0 GROUP BY o.item) AS moved \
             WHERE items.id = moved.item",
        )
        .bind(Value::Array(moved).to_string())
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}
