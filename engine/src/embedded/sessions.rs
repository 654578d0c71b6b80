//! Records of who is signed in. A session without a record, or past its end, is nobody's.

use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::Session;
use lua_free_rules::units::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::commit::{Step, StepResult};

/// Records a session; again is the same as once.
pub(super) fn sign_in(step: &mut Step<'_>, session: Session) -> StepResult<()> {
    let recorded = step
        .db
        .prepare_cached(
            "INSERT INTO sessions (id, buyer, expires_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at
             WHERE buyer = excluded.buyer",
        )?
        .execute(params![session.id.0, session.buyer.0, session.expires_at.0])?;
    // An id that is another buyer's was not drawn by chance.
    if recorded == 0 {
        return Err(Refusal::NotAllowed.into());
    }
    Ok(())
}

/// Removes a session's record.
pub(super) fn sign_out(step: &mut Step<'_>, session: Session) -> StepResult<()> {
    step.db
        .prepare_cached("DELETE FROM sessions WHERE id = ?1 AND buyer = ?2")?
        .execute(params![session.id.0, session.buyer.0])?;
    Ok(())
}

/// Whether the session has a record of the same buyer and has not ended.
pub(super) fn is_alive(db: &Connection, now: Timestamp, session: Session) -> StepResult<bool> {
    let record: Option<(i64, i64)> = db
        .prepare_cached("SELECT buyer, expires_at FROM sessions WHERE id = ?1")?
        .query_row([session.id.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(record.is_some_and(|(buyer, expires_at)| buyer == session.buyer.0 && now.0 < expires_at))
}

/// Refuses unless the session is alive.
pub(super) fn check(step: &Step<'_>, session: Session) -> StepResult<()> {
    if is_alive(step.db, step.now, session)? {
        Ok(())
    } else {
        Err(Refusal::NotSignedIn.into())
    }
}
