//! What a batch of events does to the ledger: one transaction, a few statements whatever the size of the
//! batch. A replay writes nothing twice, and several writers may write at once, the same events or others
//! of the same promos, in any order:
//!
//! - An event counts where its movement is inserted. Writers that insert the same one meet its key: the
//!   second waits for the first, begins anew, and finds it written.
//! - Movements add up in any order, and so do the units of items.
//! - Events that name an order exist only because somebody read the order's row, or the release that was
//!   committed with it, in this ledger: whatever order they are written in, the row is there. An event
//!   whose order is not there contradicts the ledger; it is not early.
//! - What `reserved_again` and `released` do to an order is decided by the state that they find, and comes
//!   out the same in either order: the one speaks of a new reservation number, the other of an earlier one.
//! - What the engine lost and was rebuilt without is refused: see `endings`.
//! - Everybody inserts in the order of keys and updates items last, one after the other by their ids, so
//!   that writers wait for each other instead of being in each other's way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Change, Event, Reservation};
use lua_free_rules::units::Timestamp;

use super::Ledger;
use super::codes::is_duplicate;
use super::connection::Tx;
use super::endings::Endings;
use super::movements::{insert_movements, key_of, split_known};
use super::publishings::{Publishing, insert_publishing, publishing_in};
use super::retry::retried;
use super::values::Row;
use crate::error::{BackendError, Result};

/// What writing a batch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Events that were written.
    pub new: usize,
    /// Events that the ledger had already.
    pub repeated: usize,
}

impl Ledger {
    /// Writes a batch of events. Either all of them are in the ledger afterwards, or nothing changed.
    ///
    /// # Errors
    /// [`BackendError::Contradiction`] if the ledger holds something else under the same key, or an
    /// event does not fit what is there; [`BackendError::RebuiltWithout`] if the engine lost an event and
    /// was rebuilt before it came here.
    pub async fn write_events(&self, events: &[Event], now: Timestamp) -> Result<Written> {
        let batch = in_order(events)?;
        // Nearly always nothing of it is known. The movements' key says so if something is, and only then is
        // it worth looking which.
        let is_first_try = AtomicBool::new(true);
        let written = retried(|| async {
            let mut tx = self.begin().await?;
            let endings = Endings::hold(&mut tx, &batch).await?;
            // What has ended is refused only where it is new.
            let is_first_try = is_first_try.swap(false, Ordering::Relaxed);
            let (new, known) = if is_first_try && !endings.concern(&batch) {
                (batch.clone(), Vec::new())
            } else {
                split_known(&mut tx, &batch).await?
            };
            if !known.is_empty() {
                meet_same_content(&mut tx, &known).await?;
            }
            if !new.is_empty() {
                write_new(&mut tx, &new, &endings, now).await?;
            }
            tx.commit().await?;
            Ok(new.len())
        });
        let new = match written.await {
            Err(BackendError::Database(error)) if is_duplicate(&error) => {
                return Err(BackendError::Contradiction(format!(
                    "what an event makes is in the ledger under another movement: {error}"
                )));
            }
            new => new?,
        };
        let repeated = events.len() - new;
        Ok(Written { new, repeated })
    }
}

/// The events by their keys, each once.
fn in_order(events: &[Event]) -> Result<Vec<&Event>> {
    let mut ordered: BTreeMap<_, &Event> = BTreeMap::new();
    for event in events {
        let twin = ordered.insert(key_of(event), event);
        if twin.is_some_and(|twin| twin != event) {
            let (promo, generation, sequence) = key_of(event);
            return Err(BackendError::Contradiction(format!(
                "movement {sequence} of promo {promo} generation {generation} has two contents"
            )));
        }
    }
    Ok(ordered.into_values().collect())
}

async fn write_new(tx: &mut Tx, new: &[&Event], endings: &Endings, now: Timestamp) -> Result<()> {
    endings.refuse_late(tx, new).await?;
    let mut items = lock_named_orders(tx, new).await?;
    Endings::refuse_doubled(tx, new).await?;
    let orders: Vec<OrderLine> = new.iter().filter_map(|it| OrderLine::of(it)).collect();
    items.extend(orders.iter().map(|order| (order.id.clone(), order.item)));
    insert_orders(tx, &orders, now).await?;
    insert_movements(tx, new).await?;
    for event in new {
        if let Some(publishing) = Publishing::told_by(event) {
            insert_publishing(tx, &publishing).await?;
        }
        if let Change::ReservedAgain {
            reservation,
            payment,
        } = &event.change
        {
            pay_late(tx, reservation, payment, event.at).await?;
        }
    }
    finish_releases(tx, new).await?;
    update_items(tx, new, &items).await
}

/// Meeting the same content under a key is a replay; meeting other content is an error.
async fn meet_same_content(tx: &mut Tx, known: &[&Event]) -> Result<()> {
    for event in known {
        let Some(told) = Publishing::told_by(event) else {
            continue;
        };
        if publishing_in(tx, event).await?.as_ref() != Some(&told) {
            return Err(BackendError::Contradiction(format!(
                "publishing {} of promo {} is in the ledger with other content",
                event.generation.0, event.promo
            )));
        }
    }
    let told: Vec<OrderLine> = known.iter().filter_map(|it| OrderLine::of(it)).collect();
    if told.is_empty() {
        return Ok(());
    }
    let ids: Vec<(&str,)> = told.iter().map(|order| (order.id.as_str(),)).collect();
    let kept: HashMap<String, OrderLine> = tx
        .query("SELECT o.* FROM {rows id text} AS e CROSS JOIN orders AS o WHERE o.id = e.id")
        .bind(serde_json::to_string(&ids)?)
        .fetch_all()
        .await?
        .iter()
        .map(|row| OrderLine::read(row).map(|order| (order.id.clone(), order)))
        .collect::<Result<_>>()?;
    match told.iter().find(|order| kept.get(&order.id) != Some(order)) {
        None => Ok(()),
        Some(order) => Err(BackendError::Contradiction(format!(
            "order {} is in the ledger with other content, or is missing",
            order.id
        ))),
    }
}

/// What an event says of a new order.
#[derive(Debug, PartialEq, Eq)]
struct OrderLine {
    id: String,
    promo: i64,
    generation: i64,
    number: i64,
    buyer: i64,
    item: i64,
    amount: i64,
    unit_price: i64,
    created_at: i64,
    pay_within_ms: i64,
    key: String,
    body: String,
    jti: String,
}

impl OrderLine {
    fn of(event: &Event) -> Option<Self> {
        let Change::Reserved {
            reservation: made,
            key,
            body,
            jti,
        } = &event.change
        else {
            return None;
        };
        Some(Self {
            id: made.order.to_string(),
            promo: made.order.promo.0,
            generation: made.order.generation.0,
            number: made.number.0,
            buyer: made.buyer.0,
            item: made.item.0,
            amount: made.amount.into(),
            unit_price: made.price.minor(),
            created_at: made.made_at.0,
            pay_within_ms: made.pay_within.ms(),
            key: key.clone(),
            body: body.clone(),
            jti: jti.to_string(),
        })
    }

    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            promo: row.get("promo")?,
            generation: row.get("generation")?,
            number: row.get("number")?,
            buyer: row.get("buyer")?,
            item: row.get("item")?,
            amount: row.get("amount")?,
            unit_price: row.get("unit_price")?,
            created_at: row.get("created_at")?,
            pay_within_ms: row.get::<i64>("pay_by")? - row.get::<i64>("written_at")?,
            key: row.get("idempotency_key")?,
            body: row.get("body")?,
            jti: row.get("jti")?,
        })
    }
}

/// Inserts new orders. Their time to pay runs from now.
async fn insert_orders(tx: &mut Tx, orders: &[OrderLine], now: Timestamp) -> Result<()> {
    if orders.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = orders
        .iter()
        .map(|it| {
            let pay_by = now.plus_ms(it.pay_within_ms).0;
            (
                &it.id,
                it.promo,
                it.generation,
                it.number,
                it.buyer,
                it.item,
                it.amount,
                it.unit_price,
                it.created_at,
                now.0,
                pay_by,
                &it.key,
                &it.body,
                &it.jti,
            )
        })
        .collect();
    tx.query(
        "INSERT INTO orders (id, promo, generation, number, buyer, item, amount, unit_price, state, \
                             created_at, written_at, pay_by, current_number, idempotency_key, body, jti) \
         SELECT e.id, e.promo, e.generation, e.number, e.buyer, e.item, e.amount, e.unit_price, \
                'written', e.created_at, e.written_at, e.pay_by, e.number, e.idempotency_key, e.body, \
                e.jti \
         FROM {rows id text, promo int, generation int, number int, buyer int, item int, amount int, \
                    unit_price int, created_at int, written_at int, pay_by int, idempotency_key text, \
                    body text, jti text} AS e",
    )
    .bind(serde_json::to_string(&rows)?)
    .execute()
    .await?;
    Ok(())
}

/// The items of the orders that events name without having made them; the orders stay locked.
async fn lock_named_orders(tx: &mut Tx, new: &[&Event]) -> Result<HashMap<String, i64>> {
    let named: BTreeSet<String> = new
        .iter()
        .filter(|event| event.change.reservation().is_none())
        .filter_map(|event| event.change.order())
        .map(|id| id.to_string())
        .collect();
    if named.is_empty() {
        return Ok(HashMap::new());
    }
    // An order may be made and named in one batch.
    let made: HashMap<String, i64> = new
        .iter()
        .filter_map(|event| event.change.reservation())
        .map(|made| (made.order.to_string(), made.item.0))
        .collect();
    let ids: Vec<(&String,)> = named.iter().map(|id| (id,)).collect();
    let found: HashMap<String, i64> = tx
        .query(
            "SELECT o.id, o.item FROM {rows id text} AS e CROSS JOIN orders AS o WHERE o.id = e.id \
             ORDER BY o.id {lock}",
        )
        .bind(serde_json::to_string(&ids)?)
        .fetch_all()
        .await?
        .iter()
        .map(|row| Ok((row.get("id")?, row.get("item")?)))
        .collect::<Result<_>>()?;
    let is_there = |id: &&String| !found.contains_key(*id) && !made.contains_key(*id);
    match named.iter().find(is_there) {
        None => Ok(found),
        Some(id) => Err(BackendError::Contradiction(format!(
            "an event names order {id}, which is not in the ledger"
        ))),
    }
}

/// The engine reserved again for a late payment: the order holds units and is paid. If the payment was
/// settled otherwise in the meantime, the units go back; the movement stands either way, since the
/// engine made it.
async fn pay_late(tx: &mut Tx, made: &Reservation, payment: &str, at: Timestamp) -> Result<()> {
    let order = made.order.to_string();
    let accepted = tx
        .query(
            "UPDATE payments SET state = 'accepted' \
         WHERE reference = ? AND order_id = ? AND state = 'late'",
        )
        .bind(payment)
        .bind(&order)
        .execute()
        .await?;
    if accepted.rows == 1 {
        let paid = tx
            .query(
                "UPDATE orders SET state = 'paid', current_number = ?, paid_at = ? \
             WHERE id = ? AND state IN ('cancelled', 'expired')",
            )
            .bind(made.number.0)
            .bind(at.0)
            .bind(&order)
            .execute()
            .await?;
        if paid.rows == 1 {
            return Ok(());
        }
        tx.query("UPDATE payments SET state = 'refund_due' WHERE reference = ?")
            .bind(payment)
            .execute()
            .await?;
    }
    tx.query(
        "INSERT INTO releases (order_id, number, amount, state, ended_at) \
         VALUES (?, ?, ?, 'pending', ?)",
    )
    .bind(&order)
    .bind(made.number.0)
    .bind(made.amount)
    .bind(at.0)
    .execute()
    .await?;
    Ok(())
}

async fn finish_releases(tx: &mut Tx, new: &[&Event]) -> Result<()> {
    let released: BTreeSet<(String, i64)> = new
        .iter()
        .filter_map(|event| match event.change {
            Change::Released { release, .. } => Some((release.order.to_string(), release.number.0)),
            _ => None,
        })
        .collect();
    if !released.is_empty() {
        tx.query(
            "{update releases set state = 'done' by order_id text, number int} \
             WHERE t.order_id = e.order_id AND t.number = e.number",
        )
        .bind(serde_json::to_string(&released)?)
        .execute()
        .await?;
    }
    Ok(())
}

/// One change of stock and sales for each item, whatever the number of movements.
async fn update_items(tx: &mut Tx, new: &[&Event], item_of: &HashMap<String, i64>) -> Result<()> {
    let mut moved: BTreeMap<i64, i64> = BTreeMap::new();
    for event in new {
        let order = event.change.order().map(|id| id.to_string());
        if let Some(item) = order.and_then(|id| item_of.get(&id)) {
            *moved.entry(*item).or_default() += event.change.delta();
        }
    }
    for (item, delta) in moved {
        tx.query("UPDATE items SET stock = stock + ?, sales = sales - ? WHERE id = ?")
            .bind(delta)
            .bind(delta)
            .bind(item)
            .execute()
            .await?;
    }
    Ok(())
}
