//! Stock movements: one row for each event, under the engine's own number. The key is what makes an
//! event count once, whoever writes it and however often.

use std::collections::HashMap;

use engine::{Change, Event};

use super::connection::Tx;
use super::values::Row;
use crate::error::{BackendError, Result};

/// Promo, generation, sequence: the number of an event.
pub(super) type Key = (i64, i64, i64);

pub(super) const fn key_of(event: &Event) -> Key {
    (event.promo.0, event.generation.0, event.sequence.0)
}

/// A row.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    key: Key,
    kind: String,
    delta: i64,
    order: Option<String>,
    number: Option<i64>,
    buyer: Option<i64>,
    at: i64,
}

impl Line {
    fn of(event: &Event) -> Self {
        let (kind, number, buyer) = match &event.change {
            Change::Published { .. } => ("published", None, None),
            Change::Added { .. } => ("added", None, None),
            Change::Reserved { reservation, .. } => (
                "reserved",
                Some(reservation.number),
                Some(reservation.buyer),
            ),
            Change::ReservedAgain { reservation, .. } => (
                "reserved_again",
                Some(reservation.number),
                Some(reservation.buyer),
            ),
            Change::Released { release, .. } => ("released", Some(release.number), None),
        };
        Self {
            key: key_of(event),
            kind: kind.to_owned(),
            delta: event.change.delta(),
            order: event.change.order().map(|id| id.to_string()),
            number: number.map(|number| number.0),
            buyer: buyer.map(|buyer| buyer.0),
            at: event.at.0,
        }
    }

    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            key: read_key(row)?,
            kind: row.get("kind")?,
            delta: row.get("delta")?,
            order: row.get("order_id")?,
            number: row.get("number")?,
            buyer: row.get("buyer")?,
            at: row.get("at")?,
        })
    }
}

/// Splits events into those that are new and those that the ledger has.
///
/// # Errors
/// [`BackendError::Contradiction`] if the ledger has other content under the same key.
pub(super) async fn split_known<'e>(
    tx: &mut Tx,
    events: &[&'e Event],
) -> Result<(Vec<&'e Event>, Vec<&'e Event>)> {
    let keys: Vec<Key> = events.iter().map(|event| key_of(event)).collect();
    let rows = tx
        .query(
            "SELECT m.promo, m.generation, m.sequence, m.kind, m.delta, m.order_id, m.number, m.buyer, \
             m.at FROM {rows promo int, generation int, sequence int} AS e \
             CROSS JOIN stock_movements AS m WHERE m.promo = e.promo \
             AND m.generation = e.generation AND m.sequence = e.sequence",
        )
        .bind(serde_json::to_string(&keys)?)
        .fetch_all()
        .await?;
    if rows.is_empty() {
        return Ok((events.to_vec(), Vec::new()));
    }
    let lines: HashMap<Key, Line> = rows
        .iter()
        .map(|row| Line::read(row).map(|line| (line.key, line)))
        .collect::<Result<_>>()?;
    let (known, new): (Vec<_>, Vec<_>) = events
        .iter()
        .copied()
        .partition(|event| lines.contains_key(&key_of(event)));
    let other = known
        .iter()
        .map(|event| key_of(event))
        .zip(known.iter().map(|event| Line::of(event)))
        .find(|(key, line)| lines.get(key) != Some(line));
    match other {
        None => Ok((new, known)),
        Some(((promo, generation, sequence), _)) => Err(BackendError::Contradiction(format!(
            "movement {sequence} of promo {promo} generation {generation} is in the ledger with other \
             content"
        ))),
    }
}

/// Those of the numbers under which the ledger has anything, whatever it is.
pub(super) async fn known_keys(tx: &mut Tx, keys: &[Key]) -> Result<Vec<Key>> {
    let rows = tx
        .query(
            "SELECT m.promo, m.generation, m.sequence \
             FROM {rows promo int, generation int, sequence int} AS e \
             CROSS JOIN stock_movements AS m WHERE m.promo = e.promo \
             AND m.generation = e.generation AND m.sequence = e.sequence",
        )
        .bind(serde_json::to_string(keys)?)
        .fetch_all()
        .await?;
    rows.iter().map(read_key).collect()
}

/// Promo, generation and sequence of a row.
pub(super) fn read_key(row: &Row) -> Result<Key> {
    let (promo, generation) = (row.get("promo")?, row.get("generation")?);
    Ok((promo, generation, row.get("sequence")?))
}

/// Inserts new ones. One that another process inserted meanwhile is a duplicate: the whole transaction
/// is to be done again.
pub(super) async fn insert_movements(tx: &mut Tx, new: &[&Event]) -> Result<()> {
    let lines: Vec<Line> = new.iter().map(|event| Line::of(event)).collect();
    let rows: Vec<_> = lines
        .iter()
        .map(|it| {
            let (promo, generation, sequence) = it.key;
            (
                promo, generation, sequence, &it.kind, it.delta, &it.order, it.number, it.buyer,
                it.at,
            )
        })
        .collect();
    tx.query(
        "INSERT INTO stock_movements \
         (promo, generation, sequence, kind, delta, order_id, number, buyer, at) \
         SELECT e.promo, e.generation, e.sequence, e.kind, e.delta, e.order_id, e.number, e.buyer, e.at \
         FROM {rows promo int, generation int, sequence int, kind text, delta int, order_id text, \
                    number int, buyer int, at int} AS e",
    )
    .bind(serde_json::to_string(&rows)?)
    .execute()
    .await?;
    Ok(())
}
