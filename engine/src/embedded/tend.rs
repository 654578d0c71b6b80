//! Upkeep that follows the clock, in passes small enough that buyers' requests go on between them.

use lua_free_rules::units::{Generation, PromoId};
use rusqlite::params;

use super::step::{Step, StepResult};
use super::{holdings, promos};

/// Most rows of each kind that one pass touches.
const PASS_ROWS: u32 = 500;
/// A spent challenge is remembered a little beyond its expiry, should the clock be set back.
const CHALLENGE_KEEP_MS: i64 = 60_000;

/// One pass. Returns whether another one would find more to do.
pub(super) fn pass(step: &mut Step<'_>) -> StepResult<bool> {
    reopen(step)?;
    let more = [
        take_back(step)?,
        forget(
            step,
            "DELETE FROM challenges WHERE id IN
                 (SELECT id FROM challenges WHERE expires_at <= ?1 LIMIT ?2)",
            step.now.plus_ms(-CHALLENGE_KEEP_MS).0,
        )?,
        forget(
            step,
            "DELETE FROM sessions WHERE id IN
                 (SELECT id FROM sessions WHERE expires_at <= ?1 LIMIT ?2)",
            step.now.0,
        )?,
        forget_keys(step)?,
    ];
    Ok(more.contains(&true))
}

/// Tells buyers of stock that came back and could not be told at once.
fn reopen(step: &mut Step<'_>) -> StepResult<()> {
    for mut row in promos::all(step.db)? {
        if row.follow(step.now) {
            step.level.signals.push(row.sold());
            promos::save(step.db, &row)?;
        }
    }
    Ok(())
}

/// Takes back places whose tokens expired unused, of earlier generations too.
fn take_back(step: &Step<'_>) -> StepResult<bool> {
    let mut more = false;
    for (promo, generation) in keys(
        step,
        "SELECT promo, generation FROM promos WHERE places_issued > ?1",
        0,
    )? {
        let Some(mut row) = promos::generation(step.db, promo, generation)? else {
            continue;
        };
        let count = holdings::take_back(step.db, &mut row, step.now, PASS_ROWS as usize)?;
        if count > 0 {
            promos::save(step.db, &row)?;
        }
        more |= count >= PASS_ROWS as usize;
    }
    Ok(more)
}

fn forget(step: &Step<'_>, sql: &str, until: i64) -> StepResult<bool> {
    let forgotten = step
        .db
        .prepare_cached(sql)?
        .execute(params![until, PASS_ROWS])?;
    Ok(forgotten >= PASS_ROWS as usize)
}

/// Forgets idempotency keys and token ids past their keeping. The reservations stay.
fn forget_keys(step: &Step<'_>) -> StepResult<bool> {
    let due = keys(
        step,
        "SELECT promo, generation FROM promos WHERE forget_at <= ?1 AND forgotten_to < last_number",
        step.now.0,
    )?;
    for (promo, generation) in &due {
        let key = params![promo.0, generation.0, PASS_ROWS];
        step.db
            .prepare_cached(
                "UPDATE reservations SET key = NULL, body = NULL, jti = NULL
                 FROM (SELECT forgotten_to FROM promos WHERE promo = ?1 AND generation = ?2)
                 WHERE promo = ?1 AND generation = ?2
                     AND number > forgotten_to AND number <= forgotten_to + ?3",
            )?
            .execute(key)?;
        step.db
            .prepare_cached(
                "UPDATE promos SET forgotten_to = min(last_number, forgotten_to + ?3)
                 WHERE promo = ?1 AND generation = ?2",
            )?
            .execute(key)?;
    }
    Ok(!due.is_empty())
}

fn keys(step: &Step<'_>, sql: &str, bound: i64) -> StepResult<Vec<(PromoId, Generation)>> {
    let mut statement = step.db.prepare_cached(sql)?;
    let keys = statement.query_map([bound], |row| {
        Ok((PromoId(row.get(0)?), Generation(row.get(1)?)))
    })?;
    Ok(keys.collect::<Result<_, _>>()?)
}
