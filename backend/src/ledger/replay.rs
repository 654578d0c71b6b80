//! What an engine that lost its memory is rebuilt from: every event that the ledger holds, as it was.

use engine::past::is_rebuilt;
use engine::{Change, Event, Past, Release, Reservation};
use lua_free_rules::promo::Status;
use lua_free_rules::units::{
    BuyerId, Generation, ItemId, Millis, Money, PromoId, ReservationNumber, Sequence, Timestamp,
};

use super::Ledger;
use super::connection::Tx;
use super::endings::ended_in;
use super::orders::read_order_id;
use super::past::{Steering, steering};
use super::publishings::{Publishing, publishings_in};
use super::values::Row;
use crate::error::{BackendError, Result};

const MOVEMENTS: &str = "SELECT m.generation, m.sequence, m.kind, m.delta, m.order_id, m.number, m.at, \
    o.buyer, o.item, o.unit_price, o.written_at, o.pay_by, o.idempotency_key, o.body, o.jti, p.reference \
    FROM stock_movements AS m LEFT JOIN orders AS o ON o.id = m.order_id \
    LEFT JOIN payments AS p ON p.order_id = m.order_id AND p.state = 'accepted' \
     AND m.kind = 'reserved_again' AND o.current_number = m.number \
    WHERE m.promo = ? ORDER BY m.generation, m.sequence";

impl Ledger {
    /// What the events of every promo add up to, and what operators made of it last. All of it is read
    /// from one state of the database.
    ///
    /// # Errors
    /// If the database fails, or holds what no event can have written.
    pub async fn pasts(&self) -> Result<Vec<Past>> {
        self.reopen_releases().await?;
        let mut tx = self.database.snapshot().await?;
        let mut pasts = Vec::new();
        let ended = ended_in(&mut tx).await?;
        for promo in promos(&mut tx).await? {
            let mut past = Past::new(promo);
            past.numbered = ended.get(&promo).copied().unwrap_or_default();
            let published = publishings_in(&mut tx, promo).await?;
            for row in tx.query(MOVEMENTS).bind(promo.0).fetch_all().await? {
                past.apply(&event(promo, &published, &row)?);
            }
            // What was steered since somebody published it, however often it was rebuilt.
            let begun = published.iter().rev().find(|it| !is_rebuilt(&it.digest));
            past.status = status(&mut tx, promo, begun).await?;
            pasts.push(past);
        }
        tx.commit().await?;
        Ok(pasts)
    }
}

impl Ledger {
    /// A release that was noted as applied, and whose event was lost with the engine that applied it, is to
    /// be applied again.
    async fn reopen_releases(&self) -> Result<()> {
        self.write(
            "UPDATE releases SET state = 'pending' WHERE state = 'done' AND NOT EXISTS ( \
             SELECT 1 FROM stock_movements AS m WHERE m.order_id = releases.order_id \
              AND m.number = releases.number AND m.kind = 'released')",
        )
        .await?
        .execute()
        .await?;
        Ok(())
    }
}

async fn promos(tx: &mut Tx) -> Result<Vec<PromoId>> {
    let rows = tx
        .query("SELECT DISTINCT promo FROM publishings ORDER BY promo")
        .fetch_all()
        .await?;
    rows.iter()
        .map(|row| Ok(PromoId(row.get("promo")?)))
        .collect()
}

/// What operators made of the last publishing.
async fn status(tx: &mut Tx, promo: PromoId, last: Option<&Publishing>) -> Result<Status> {
    let since = last.map_or(Timestamp(0), |publishing| publishing.at);
    let steered = steering(tx, promo).await?;
    let steered = steered.into_iter().filter(|(at, _)| *at >= since);
    Ok(steered.fold(Status::Open, |before, (_, what)| match what {
        _ if before == Status::Closed => before,
        Steering::Close => Status::Closed,
        Steering::Pause => Status::Paused,
        Steering::Resume => Status::Open,
    }))
}

fn event(promo: PromoId, published: &[Publishing], row: &Row) -> Result<Event> {
    let generation = Generation(row.get("generation")?);
    let (kind, delta): (String, i64) = (row.get("kind")?, row.get("delta")?);
    let units = || u32::try_from(delta.unsigned_abs()).map_err(|_| odd(promo, "units"));
    let change = match kind.as_str() {
        "published" => {
            let known = published.iter().find(|each| each.generation == generation);
            let known = known.ok_or_else(|| odd(promo, "publishing"))?;
            Change::Published {
                stock: units()?,
                terms: Box::new(known.terms.clone()),
                digest: known.digest.clone(),
            }
        }
        "added" => Change::Added { stock: units()? },
        "reserved" => Change::Reserved {
            reservation: reservation(promo, row, units()?)?,
            key: row.get("idempotency_key")?,
            body: row.get("body")?,
            jti: row
                .get::<String>("jti")?
                .parse()
                .map_err(|_| odd(promo, "token"))?,
        },
        "reserved_again" => Change::ReservedAgain {
            reservation: reservation(promo, row, units()?)?,
            // One that was settled otherwise since asks no more.
            payment: row.get::<Option<String>>("reference")?.unwrap_or_default(),
        },
        "released" => Change::Released {
            release: Release {
                order: read_order_id(&row.get::<String>("order_id")?)?,
                number: ReservationNumber(row.get("number")?),
            },
            amount: units()?,
        },
        _ => return Err(odd(promo, "kind of movement")),
    };
    Ok(Event {
        promo,
        generation,
        sequence: Sequence(row.get("sequence")?),
        at: Timestamp(row.get("at")?),
        change,
    })
}

fn reservation(promo: PromoId, row: &Row, amount: u32) -> Result<Reservation> {
    let (written_at, pay_by): (i64, i64) = (row.get("written_at")?, row.get("pay_by")?);
    Ok(Reservation {
        order: read_order_id(&row.get::<String>("order_id")?)?,
        number: ReservationNumber(row.get("number")?),
        buyer: BuyerId(row.get("buyer")?),
        item: ItemId(row.get("item")?),
        amount,
        price: Money::from_minor(row.get("unit_price")?).ok_or_else(|| odd(promo, "price"))?,
        made_at: Timestamp(row.get("at")?),
        pay_within: Millis::new(pay_by.saturating_sub(written_at).unsigned_abs()),
        sequence: Sequence(row.get("sequence")?),
    })
}

fn odd(promo: PromoId, what: &str) -> BackendError {
    BackendError::Unexpected(format!("a movement of promo {promo} has an odd {what}"))
}
