//! The door: who gets a place, on which token, and which challenges were spent.

use lua_free_rules::admission::in_window;
use lua_free_rules::challenge::Attempt;
use lua_free_rules::promo::{Snapshot, Terms};
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::Access;
use lua_free_rules::units::{BuyerId, Nonce, Timestamp};
use rusqlite::params;

use super::commit::{Step, StepResult};
use super::holdings::{self, Grant, Owner, Place};
use super::{promos, sessions};
use crate::Entry;

/// Most expired places that one entry takes back: the upkeep does the rest.
const TAKE_BACK_MAX: usize = 16;

/// Gives the buyer a place, or the live token of the place he has.
pub(super) fn enter(step: &mut Step<'_>, entry: &Entry) -> StepResult<Access> {
    sessions::check(step, entry.session)?;
    let mut row = promos::current(step.db, entry.promo)?.ok_or(Refusal::NotFound)?;
    in_window(&row.snapshot, step.now)?;
    if row.snapshot.available == 0 {
        return Err(Refusal::SoldOut.into());
    }
    let owner = Owner {
        promo: entry.promo,
        generation: row.snapshot.generation,
        buyer: entry.session.buyer,
    };
    let mut holding = holdings::load(step.db, owner)?;
    if let Some(grant) = holding.place.grant()
        && step.now < grant.expires_at
    {
        return Ok(access(&row.snapshot, owner.buyer, grant));
    }
    let left = row.snapshot.terms.per_buyer.saturating_sub(holding.held);
    if left == 0 {
        return Err(Refusal::PerBuyerLimit.into());
    }
    // Whoever has a place gets his next token on it; only a new place must be free.
    let is_full = holding.place == Place::None
        && row.snapshot.places_issued + row.snapshot.places_used >= row.snapshot.terms.places();
    if is_full && !holdings::can_take_back(step.db, &row, step.now)? {
        return Err(Refusal::DoorFull.into());
    }
    if let Some(attempt) = entry.attempt
        && (step.now >= attempt.expires_at || is_spent(step, attempt)?)
    {
        return Err(Refusal::ChallengeFailed.into());
    }

    // From here on nothing is refused.
    if let Some(attempt) = entry.attempt {
        spend(step, attempt)?;
    }
    if is_full {
        holdings::take_back(step.db, &mut row, step.now, TAKE_BACK_MAX)?;
    }
    let grant = grant(&row.snapshot.terms, entry.jti, left, step.now);
    let place = match holding.place {
        Place::None | Place::Issued(_) => Place::Issued(grant),
        Place::Used(_) => Place::Used(Some(grant)),
    };
    holding.move_to(place, &mut row.snapshot)?;
    holdings::save(step.db, owner, &holding)?;
    promos::save(step.db, &row)?;
    Ok(access(&row.snapshot, owner.buyer, &grant))
}

/// Spends a challenge. Returns whether this was its first attempt.
pub(super) fn spend(step: &mut Step<'_>, attempt: Attempt) -> StepResult<bool> {
    let spent = step
        .db
        .prepare_cached("INSERT OR IGNORE INTO challenges (id, expires_at) VALUES (?1, ?2)")?
        .execute(params![attempt.id.0, attempt.expires_at.0])?;
    Ok(spent > 0)
}

fn is_spent(step: &Step<'_>, attempt: Attempt) -> StepResult<bool> {
    let mut statement = step
        .db
        .prepare_cached("SELECT 1 FROM challenges WHERE id = ?1")?;
    Ok(statement.exists([attempt.id.0])?)
}

fn grant(terms: &Terms, jti: Nonce, left: u32, now: Timestamp) -> Grant {
    let whole = |at: Timestamp| Timestamp(at.seconds().saturating_mul(1_000));
    Grant {
        jti,
        issued_at: whole(now),
        expires_at: whole(now.plus_ms(terms.token_ttl.ms()).min(terms.ends_at)),
        amount_max: left,
    }
}

const fn access(promo: &Snapshot, buyer: BuyerId, grant: &Grant) -> Access {
    Access {
        buyer,
        jti: grant.jti,
        promo: promo.promo,
        item: promo.terms.item,
        generation: promo.generation,
        amount_max: grant.amount_max,
        issued_at: grant.issued_at,
        expires_at: grant.expires_at,
    }
}
