//! Leases. Who holds one is kept in memory: the file has one process, and what it held ends with it.
//! Fences are kept in the file, for they never fall.

use std::time::Duration;

use lua_free_rules::units::Timestamp;
use rusqlite::params;

use super::step::{Step, StepResult};
use crate::Fence;

/// A lease that was granted.
pub(super) struct Lease {
    /// To whom.
    pub(super) holder: String,
    /// Under which number.
    pub(super) fence: Fence,
    until: Timestamp,
    ttl_ms: i64,
}

impl Lease {
    /// A lease from `now` on.
    pub(super) fn new(holder: &str, fence: Fence, now: Timestamp, ttl: Duration) -> Self {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        Self {
            holder: holder.to_owned(),
            fence,
            until: now.plus_ms(ttl_ms),
            ttl_ms,
        }
    }

    /// Whether it has not ended. More than was granted is left only where the clock was set back:
    /// that does not keep the next one waiting.
    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        let left_ms = self.until.ms_since(now);
        left_ms > 0 && left_ms <= self.ttl_ms
    }
}

/// The number for the next holder. It is no less than the clock's milliseconds, so that it does not
/// fall where the file was lost and the ledger was not.
pub(super) fn next_fence(step: &Step<'_>, name: &str) -> StepResult<Fence> {
    let fence = step
        .db
        .prepare_cached(
            "INSERT INTO fences (name, fence) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET fence = max(fence + 1, excluded.fence)
             RETURNING fence",
        )?
        .query_row(params![name, step.now.0], |row| row.get(0))?;
    Ok(Fence(fence))
}
