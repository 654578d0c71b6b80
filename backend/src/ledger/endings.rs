//! Generations that ended because the engine was rebuilt. The rebuild counts what the ledger holds at one
//! moment; the units of anything else go to the generation that goes on. An order writer that stood still
//! may come later with events that the engine had answered for and lost: what takes or brings units is
//! refused then, for it would be sold twice. Releases are written at any time.
//!
//! - Who writes events and who rebuilds exclude each other by a row: writers hold it in common, a rebuild
//!   alone. So each transaction is either counted by the rebuild or knows of it.
//! - Events that were set aside before are counted too, and are written when they come again.
//! - A generation's number is never given out twice. The rebuild ends the next number as well if an earlier
//!   rebuild may have given it out, and the engine goes on with the one after that.
//! - A sale that was over goes on in no generation, and takes nothing late either: what it did not sell may
//!   be published again, and the engine counts its changes on from what the ledger holds. Which sales those
//!   are the engine decides, so all of them end first, and the numbers after theirs are taken back.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use engine::{Change, Event};
use lua_free_rules::units::{Generation, PromoId};

use super::Ledger;
use super::connection::Tx;
use super::movements::{Key, key_of, known_keys, read_key};
use super::values::Row;
use crate::error::{BackendError, Result};

/// What a writer knows of the rebuilds before it: the last generation of each promo that ended.
#[derive(Debug)]
pub(super) struct Endings(HashMap<i64, i64>);

impl Endings {
    /// Keeps rebuilds from beginning until the transaction ends. Whatever it reads comes after this.
    pub(super) async fn hold(tx: &mut Tx, events: &[&Event]) -> Result<Self> {
        let row = tx
            .query("SELECT fence FROM fences WHERE name = 'rebuild' {lock_shared}")
            .fetch_one()
            .await?;
        if row.get::<i64>("fence")? == 0 {
            return Ok(Self(HashMap::new()));
        }
        let promos: BTreeSet<(i64,)> = events.iter().map(|event| (event.promo.0,)).collect();
        let ended = tx
            .query(
                "SELECT n.promo, n.ended FROM {rows promo int} AS e CROSS JOIN endings AS n \
                 WHERE n.promo = e.promo",
            )
            .bind(serde_json::to_string(&promos)?)
            .fetch_all()
            .await?;
        let ended = ended
            .iter()
            .map(|row| Ok((row.get("promo")?, row.get("ended")?)));
        Ok(Self(ended.collect::<Result<_>>()?))
    }

    /// Whether any of the events is of a generation that ended.
    pub(super) fn concern(&self, events: &[&Event]) -> bool {
        events.iter().any(|event| self.has_ended(event))
    }

    fn has_ended(&self, event: &Event) -> bool {
        let ended = self.0.get(&event.promo.0);
        ended.is_some_and(|ended| event.generation.0 <= *ended)
    }

    /// Refuses what a rebuild did not count.
    ///
    /// # Errors
    /// [`BackendError::RebuiltWithout`].
    pub(super) async fn refuse_late(&self, tx: &mut Tx, new: &[&Event]) -> Result<()> {
        let late = |event: &&&Event| self.has_ended(event) && !is_release(event);
        let late: Vec<&Event> = new.iter().filter(late).copied().collect();
        if late.is_empty() {
            return Ok(());
        }
        let counted = counted_keys(tx, &late).await?;
        match late.iter().find(|event| !counted.contains(&key_of(event))) {
            None => Ok(()),
            Some(event) => Err(BackendError::RebuiltWithout(words(event))),
        }
    }

    /// Refuses a release that the ledger has under another number: the engine lost the one that it had
    /// told of, and applied it again. The orders are locked, so nobody else writes it just now.
    ///
    /// # Errors
    /// [`BackendError::Contradiction`].
    pub(super) async fn refuse_doubled(tx: &mut Tx, new: &[&Event]) -> Result<()> {
        let mut releases: BTreeMap<(String, i64), i64> = BTreeMap::new();
        let mut doubled = None;
        for event in new {
            if let Change::Released { release, .. } = &event.change {
                let release = (release.order.to_string(), release.number.0);
                let order = release.0.clone();
                if releases.insert(release, event.sequence.0).is_some() {
                    doubled = Some(order);
                }
            }
        }
        if releases.is_empty() {
            return Ok(());
        }
        let releases: Vec<(&String, i64, i64)> = releases
            .iter()
            .map(|((order, number), sequence)| (order, *number, *sequence))
            .collect();
        // Under its own number it is only repeated.
        let known = tx
            .query(
                "SELECT m.order_id FROM {rows order_id text, number int, sequence int} AS e \
                 CROSS JOIN stock_movements AS m WHERE m.order_id = e.order_id \
                  AND m.number = e.number AND m.kind = 'released' AND m.sequence <> e.sequence",
            )
            .bind(serde_json::to_string(&releases)?)
            .fetch_all()
            .await?;
        let known = known.first().map(|row| row.get("order_id")).transpose()?;
        match known.or(doubled) {
            None => Ok(()),
            Some(order) => Err(BackendError::Contradiction(format!(
                "the units of order {order} are back already, under another movement"
            ))),
        }
    }
}

impl Ledger {
    /// Begins to end every generation there is. Until the ending is finished or dropped nobody writes
    /// events; those whose transactions had begun are waited for.
    ///
    /// # Errors
    /// If the database fails, or somebody writes for too long.
    pub async fn begin_ending(&self) -> Result<Ending> {
        let mut tx = self.begin().await?;
        tx.query("UPDATE fences SET fence = fence + 1 WHERE name = 'rebuild'")
            .execute()
            .await?;
        Ok(Ending { tx })
    }

    /// The last generation that ended of each promo that was ever rebuilt.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn endings(&self) -> Result<BTreeMap<PromoId, Generation>> {
        let rows = self.read(ENDED).await?.fetch_all().await?;
        rows.iter().map(read_ended).collect()
    }

    /// Takes back that numbers after `current` have ended, if `ended` is still the last word: the engine was
    /// rebuilt, and gave none of them out.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn take_back_ending(
        &self,
        promo: PromoId,
        ended: Generation,
        current: Generation,
    ) -> Result<()> {
        self.write("UPDATE endings SET ended = ? WHERE promo = ? AND ended = ?")
            .await?
            .bind(current.0)
            .bind(promo.0)
            .bind(ended.0)
            .execute()
            .await?;
        Ok(())
    }
}

const ENDED: &str = "SELECT promo, ended FROM endings";

fn read_ended(row: &Row) -> Result<(PromoId, Generation)> {
    Ok((PromoId(row.get("promo")?), Generation(row.get("ended")?)))
}

/// The same, inside a transaction.
pub(super) async fn ended_in(tx: &mut Tx) -> Result<BTreeMap<PromoId, Generation>> {
    let rows = tx.query(ENDED).fetch_all().await?;
    rows.iter().map(read_ended).collect()
}

/// Every generation there is, about to end. Dropped, nothing has ended.
#[derive(Debug)]
pub struct Ending {
    tx: Tx,
}

impl Ending {
    /// Ends every generation there is. Returns which of the events that were set aside count beside
    /// what the ledger holds, by their numbers: those of generations that had not ended before, and
    /// those that an earlier rebuild counted. They may be written later.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn finish(mut self, set_aside: &[Event]) -> Result<Vec<Event>> {
        let tx = &mut self.tx;
        let ended = ended_in(tx).await?;
        let mut published = published(tx).await?;
        let set_aside = unwritten(tx, set_aside).await?;
        let earlier = counted_keys(tx, &set_aside).await?;
        let counts = |event: &Event| {
            let has_ended = ended.get(&event.promo);
            is_release(event)
                || has_ended.is_none_or(|ended| event.generation > *ended)
                || earlier.contains(&key_of(event))
        };
        let mut counted = Vec::new();
        for event in set_aside {
            let Some(generations) = published.get_mut(&event.promo) else {
                continue;
            };
            if counts(event) {
                // The first event of a generation comes before its others.
                if matches!(event.change, Change::Published { .. }) {
                    generations.insert(event.generation);
                }
                if generations.contains(&event.generation) {
                    counted.push(event);
                }
            }
        }
        for (promo, generations) in &published {
            let last = generations.last().copied().unwrap_or_default();
            end(tx, *promo, last, ended.get(promo).copied()).await?;
        }
        let late: BTreeSet<Key> = counted.iter().map(|event| key_of(event)).collect();
        tx.query(
            "INSERT INTO counted_events (promo, generation, sequence) \
             SELECT e.promo, e.generation, e.sequence \
             FROM {rows promo int, generation int, sequence int} AS e",
        )
        .bind(serde_json::to_string(&(&late - &earlier))?)
        .execute()
        .await?;
        let counted = counted.into_iter().cloned().collect();
        self.tx.commit().await?;
        Ok(counted)
    }
}

/// Ends a promo's generations: the last one that anything is known of, and the number after the one that
/// ended before, which a rebuild may have given out.
async fn end(
    tx: &mut Tx,
    promo: PromoId,
    last: Generation,
    ended: Option<Generation>,
) -> Result<()> {
    let moved = tx
        .query(
            "SELECT coalesce(max(generation), 0) AS generation FROM stock_movements \
             WHERE promo = ?",
        )
        .bind(promo.0)
        .fetch_one()
        .await?;
    let before = ended.unwrap_or_default();
    let now = last.0.max(moved.get("generation")?).max(before.0 + 1);
    let end = match ended {
        None => "INSERT INTO endings (ended, promo) VALUES (?, ?)",
        Some(_) => "UPDATE endings SET ended = ? WHERE promo = ?",
    };
    tx.query(end).bind(now).bind(promo.0).execute().await?;
    Ok(())
}

/// The generations of each promo whose publishing the ledger has.
async fn published(tx: &mut Tx) -> Result<BTreeMap<PromoId, BTreeSet<Generation>>> {
    let rows = tx
        .query("SELECT promo, generation FROM publishings")
        .fetch_all()
        .await?;
    let mut all: BTreeMap<PromoId, BTreeSet<Generation>> = BTreeMap::new();
    for row in rows {
        let generations = all.entry(PromoId(row.get("promo")?)).or_default();
        generations.insert(Generation(row.get("generation")?));
    }
    Ok(all)
}

/// Those whose numbers the ledger does not have, in the order of their numbers, each number once.
async fn unwritten<'e>(tx: &mut Tx, events: &'e [Event]) -> Result<Vec<&'e Event>> {
    let mut events: BTreeMap<Key, &Event> = events.iter().map(|it| (key_of(it), it)).collect();
    let keys: Vec<Key> = events.keys().copied().collect();
    for known in known_keys(tx, &keys).await? {
        events.remove(&known);
    }
    Ok(events.into_values().collect())
}

/// The numbers of those that a rebuild counted.
async fn counted_keys(tx: &mut Tx, events: &[&Event]) -> Result<BTreeSet<Key>> {
    let keys: Vec<Key> = events.iter().map(|event| key_of(event)).collect();
    let rows = tx
        .query(
            "SELECT c.promo, c.generation, c.sequence \
             FROM {rows promo int, generation int, sequence int} AS e \
             CROSS JOIN counted_events AS c WHERE c.promo = e.promo \
             AND c.generation = e.generation AND c.sequence = e.sequence",
        )
        .bind(serde_json::to_string(&keys)?)
        .fetch_all()
        .await?;
    rows.iter().map(read_key).collect()
}

const fn is_release(event: &Event) -> bool {
    matches!(event.change, Change::Released { .. })
}

/// What was lost, and what is to be done about it.
fn words(event: &Event) -> String {
    let (promo, generation) = (event.promo, event.generation.0);
    let lost = match &event.change {
        Change::Reserved { reservation, .. } => format!(
            "order {} of buyer {} is void: tell the buyer",
            reservation.order, reservation.buyer
        ),
        Change::ReservedAgain { reservation, .. } => format!(
            "order {} did not get its units again: its late payment is settled anew",
            reservation.order
        ),
        Change::Added { stock } => format!("{stock} units were not added: add them again"),
        Change::Published { stock, .. } => {
            format!("{stock} units were not published: publish them again")
        }
        Change::Released { .. } => "units did not come back".to_owned(),
    };
    format!("{lost} (promo {promo}, generation {generation})")
}
