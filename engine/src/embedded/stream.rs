//! The queue between reservations and the ledger: entries in the order of the steps that made them,
//! appended in those steps' own transactions.

use lua_free_rules::units::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::step::{Step, StepResult};
use crate::{Backlog, DeadLetter, EntryId, Event, StreamEntry};

/// Most entries one read returns.
pub(super) const READ_MAX: usize = 10_000;
/// Longest reason kept with an entry that was set aside, in characters.
const REASON_CHARS_MAX: usize = 1_000;

/// Stores an event.
pub(super) fn append(step: &mut Step<'_>, event: &Event) -> StepResult<()> {
    let payload = serde_json::to_string(event)?;
    step.db
        .prepare_cached("INSERT INTO stream (made_at, payload) VALUES (?1, ?2)")?
        .execute(params![event.at.0, payload])?;
    step.level.entries += 1;
    step.level.is_added = true;
    Ok(())
}

/// Takes entries off.
pub(super) fn acknowledge(step: &mut Step<'_>, ids: &[EntryId]) -> StepResult<()> {
    let mut statement = step
        .db
        .prepare_cached("DELETE FROM stream WHERE id BETWEEN ?1 AND ?2")?;
    let mut removed = 0;
    // What was read in order is acknowledged in order: one statement for each run without a gap.
    let numbers: Vec<i64> = ids.iter().filter(is_ours).map(|id| id.number).collect();
    for run in numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
        if let (Some(first), Some(last)) = (run.first(), run.last()) {
            removed += statement.execute([first, last])?;
        }
    }
    step.level.entries = step.level.entries.saturating_sub(removed as u64);
    Ok(())
}

/// Moves an entry among the dead letters. One that is not in the stream was moved or taken before.
pub(super) fn set_aside(step: &mut Step<'_>, id: EntryId, reason: &str) -> StepResult<()> {
    if !is_ours(&&id) {
        return Ok(());
    }
    let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
    let moved = step
        .db
        .prepare_cached(
            "INSERT INTO dead_letters (id, made_at, payload, reason)
             SELECT id, made_at, payload, ?2 FROM stream WHERE id = ?1",
        )?
        .execute(params![id.number, reason])?;
    if moved > 0 {
        acknowledge(step, &[id])?;
    }
    Ok(())
}

/// Up to `max` entries after `after`, oldest first.
pub(super) fn read(db: &Connection, after: i64, max: usize) -> StepResult<Vec<StreamEntry>> {
    let mut statement =
        db.prepare_cached("SELECT id, payload FROM stream WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let entries = statement.query_map(params![after, limit(max)], |row| {
        Ok(StreamEntry {
            id: entry(row.get(0)?),
            payload: row.get(1)?,
        })
    })?;
    Ok(entries.collect::<Result<_, _>>()?)
}

/// How many entries were not acknowledged. Walks through all of them.
pub(super) fn count(db: &Connection) -> Result<u64, rusqlite::Error> {
    let entries: i64 = db.query_row("SELECT count(*) FROM stream", [], |row| row.get(0))?;
    Ok(entries.unsigned_abs())
}

/// How much waits; `entries` is what the writer counted.
pub(super) fn backlog(db: &Connection, entries: u64) -> StepResult<Backlog> {
    let oldest: Option<i64> = db
        .prepare_cached("SELECT made_at FROM stream ORDER BY id LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let dead: i64 = db
        .prepare_cached("SELECT count(*) FROM dead_letters")?
        .query_row([], |row| row.get(0))?;
    Ok(Backlog {
        entries,
        oldest: oldest.map(Timestamp),
        dead_letters: dead.unsigned_abs(),
    })
}

/// Up to `max` entries that were set aside, oldest first.
pub(super) fn dead_letters(db: &Connection, max: usize) -> StepResult<Vec<DeadLetter>> {
    let mut statement =
        db.prepare_cached("SELECT id, payload, reason FROM dead_letters ORDER BY id LIMIT ?1")?;
    let letters = statement.query_map([limit(max)], |row| {
        Ok(DeadLetter {
            id: entry(row.get(0)?),
            payload: row.get(1)?,
            reason: row.get(2)?,
        })
    })?;
    Ok(letters.collect::<Result<_, _>>()?)
}

/// Puts an entry that was set aside back at the end. The id it gets is a new one.
pub(super) fn replay(step: &mut Step<'_>, id: EntryId) -> StepResult<bool> {
    if !is_ours(&&id) {
        return Ok(false);
    }
    let moved = step
        .db
        .prepare_cached(
            "INSERT INTO stream (made_at, payload)
             SELECT made_at, payload FROM dead_letters WHERE id = ?1",
        )?
        .execute([id.number])?;
    step.db
        .prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?
        .execute([id.number])?;
    step.level.entries += moved as u64;
    step.level.is_added |= moved > 0;
    Ok(moved > 0)
}

/// The one stream of this home.
const STREAM: i64 = 0;

const fn entry(number: i64) -> EntryId {
    EntryId {
        stream: STREAM,
        number,
    }
}

const fn is_ours(id: &&EntryId) -> bool {
    id.stream == STREAM
}

fn limit(max: usize) -> i64 {
    i64::try_from(max.min(READ_MAX)).unwrap_or(i64::MAX)
}
