//! What one buyer has in one generation of a promo: units, and a place behind the door. The counts
//! of places in the promo's row move only here, together with the place itself.

use lua_free_rules::promo::Snapshot;
use lua_free_rules::token::LEEWAY_S;
use lua_free_rules::units::{BuyerId, Generation, Nonce, PromoId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::commit::{StepError, StepResult};
use super::promos::Row;

/// A token that was issued and can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    /// Its id.
    pub(super) jti: Nonce,
    /// When it was issued; whole seconds.
    pub(super) issued_at: Timestamp,
    /// When it expires; whole seconds.
    pub(super) expires_at: Timestamp,
    /// The most units it can order.
    pub(super) amount_max: u32,
}

/// A buyer's place behind the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Place {
    /// He has none.
    #[default]
    None,
    /// Held by a token that was not used. It stays so after the token's end until it is taken back.
    Issued(Grant),
    /// His token was used; while his limit leaves units he may have been given another.
    Used(Option<Grant>),
}

/// Units and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Holding {
    /// Units of his orders that did not end.
    pub(super) held: u32,
    /// His place.
    pub(super) place: Place,
}

/// Whose holding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    /// In which promo.
    pub(super) promo: PromoId,
    /// In which publishing of it.
    pub(super) generation: Generation,
    /// Who.
    pub(super) buyer: BuyerId,
}

impl Grant {
    /// Whether its place may be taken back: from the very moment on at which nobody may use it.
    pub(super) const fn is_over(&self, now: Timestamp) -> bool {
        now.0 >= self.expires_at.plus_ms(LEEWAY_S * 1_000).0
    }
}

impl Place {
    /// The token that can still be used, but for its expiry.
    pub(super) const fn grant(&self) -> Option<&Grant> {
        match self {
            Self::Issued(grant) | Self::Used(Some(grant)) => Some(grant),
            Self::None | Self::Used(None) => None,
        }
    }
}

impl Holding {
    /// Gives it another place, and counts that in the promo's row.
    pub(super) fn move_to(&mut self, place: Place, promo: &mut Snapshot) -> StepResult<()> {
        let moved = |count: u64, was: bool, is: bool| {
            (count + u64::from(is))
                .checked_sub(u64::from(was))
                .ok_or_else(|| StepError::Broken("fewer places than buyers in them".to_owned()))
        };
        let issued = |place: &Place| matches!(place, Place::Issued(_));
        let used = |place: &Place| matches!(place, Place::Used(_));
        promo.places_issued = moved(promo.places_issued, issued(&self.place), issued(&place))?;
        promo.places_used = moved(promo.places_used, used(&self.place), used(&place))?;
        self.place = place;
        Ok(())
    }
}

/// A buyer's holding; nothing at all if there is no row.
pub(super) fn load(db: &Connection, owner: Owner) -> StepResult<Holding> {
    let mut statement = db.prepare_cached(
        "SELECT held, place, jti, issued_at, expires_at, amount_max FROM holdings
         WHERE promo = ?1 AND generation = ?2 AND buyer = ?3",
    )?;
    let key = [owner.promo.0, owner.generation.0, owner.buyer.0];
    Ok(statement
        .query_row(key, read)
        .optional()?
        .unwrap_or_default())
}

/// Keeps a buyer's holding, or drops its row if there is nothing to keep.
pub(super) fn save(db: &Connection, owner: Owner, holding: &Holding) -> StepResult<()> {
    let key = [owner.promo.0, owner.generation.0, owner.buyer.0];
    if *holding == Holding::default() {
        db.prepare_cached(
            "DELETE FROM holdings WHERE promo = ?1 AND generation = ?2 AND buyer = ?3",
        )?
        .execute(key)?;
        return Ok(());
    }
    let place = match holding.place {
        Place::None => 0,
        Place::Issued(_) => 1,
        Place::Used(_) => 2,
    };
    let grant = holding.place.grant();
    db.prepare_cached(
        "INSERT INTO holdings (promo, generation, buyer, held, place, jti, issued_at, expires_at,
             amount_max)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (promo, generation, buyer) DO UPDATE SET held = excluded.held,
             place = excluded.place, jti = excluded.jti, issued_at = excluded.issued_at,
             expires_at = excluded.expires_at, amount_max = excluded.amount_max",
    )?
    .execute(params![
        key[0],
        key[1],
        key[2],
        holding.held,
        place,
        grant.map(|grant| grant.jti.0),
        grant.map(|grant| grant.issued_at.0),
        grant.map(|grant| grant.expires_at.0),
        grant.map(|grant| grant.amount_max),
    ])?;
    Ok(())
}

/// Takes back up to `max` places whose tokens expired unused. Returns how many it was. The row is
/// changed, not saved.
pub(super) fn take_back(
    db: &Connection,
    row: &mut Row,
    now: Timestamp,
    max: usize,
) -> StepResult<usize> {
    let promo = &mut row.snapshot;
    let expired: Vec<(i64, Holding)> = {
        let mut statement = db.prepare_cached(
            "SELECT held, place, jti, issued_at, expires_at, amount_max, buyer FROM holdings
             WHERE promo = ?1 AND generation = ?2 AND place = 1 AND expires_at <= ?3
             ORDER BY expires_at LIMIT ?4",
        )?;
        let found = statement.query_map(
            params![
                promo.promo.0,
                promo.generation.0,
                now.plus_ms(-LEEWAY_S * 1_000).0,
                i64::try_from(max).unwrap_or(i64::MAX),
            ],
            |row| Ok((row.get(6)?, read(row)?)),
        )?;
        found.collect::<Result<_, _>>()?
    };
    let count = expired.len();
    for (buyer, mut holding) in expired {
        holding.move_to(Place::None, promo)?;
        let owner = Owner {
            promo: promo.promo,
            generation: promo.generation,
            buyer: BuyerId(buyer),
        };
        save(db, owner, &holding)?;
    }
    Ok(count)
}

/// Whether any place can be taken back.
pub(super) fn can_take_back(db: &Connection, row: &Row, now: Timestamp) -> StepResult<bool> {
    let mut statement = db.prepare_cached(
        "SELECT 1 FROM holdings
         WHERE promo = ?1 AND generation = ?2 AND place = 1 AND expires_at <= ?3",
    )?;
    let promo = &row.snapshot;
    Ok(statement.exists([
        promo.promo.0,
        promo.generation.0,
        now.plus_ms(-LEEWAY_S * 1_000).0,
    ])?)
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Holding> {
    let grant = match row.get::<_, Option<[u8; 16]>>(2)? {
        None => None,
        Some(jti) => Some(Grant {
            jti: Nonce(jti),
            issued_at: Timestamp(row.get(3)?),
            expires_at: Timestamp(row.get(4)?),
            amount_max: row.get(5)?,
        }),
    };
    let place = match (row.get::<_, i64>(1)?, grant) {
        (0, None) => Place::None,
        (1, Some(grant)) => Place::Issued(grant),
        (2, grant) => Place::Used(grant),
        (place, _) => return Err(rusqlite::Error::IntegralValueOutOfRange(1, place)),
    };
    Ok(Holding {
        held: row.get(0)?,
        place,
    })
}
