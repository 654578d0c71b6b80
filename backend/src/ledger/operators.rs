//! The operators' log: who asked for what, when, and what came of it.

use lua_free_rules::units::Timestamp;
use serde::Serialize;

use super::Ledger;
use crate::error::Result;

/// One call of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperatorCall {
    /// When.
    pub at: Timestamp,
    /// The fingerprint of the token that was shown.
    pub who: String,
    /// What was asked.
    pub what: String,
    /// `begun`, `ok`, or the name of the refusal.
    pub outcome: String,
}

impl Ledger {
    /// Notes a call before it is done, so that none goes unnoted. Returns its number.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn note_call(&self, who: &str, what: &str, now: Timestamp) -> Result<i64> {
        self.write(
            "INSERT INTO operator_log (at, who, what, outcome) VALUES (?, ?, ?, 'begun') \
             {returning_id}",
        )
        .await?
        .bind(now.0)
        .bind(who)
        .bind(what)
        .insert()
        .await
    }

    /// Notes what came of it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn note_outcome(&self, call: i64, outcome: &str) -> Result<()> {
        self.write("UPDATE operator_log SET outcome = ? WHERE id = ?")
            .await?
            .bind(outcome)
            .bind(call)
            .execute()
            .await?;
        Ok(())
    }

    /// The last `max` calls, newest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn calls(&self, max: u32) -> Result<Vec<OperatorCall>> {
        self.read("SELECT at, who, what, outcome FROM operator_log ORDER BY id DESC LIMIT ?")
            .await?
            .bind(max)
            .fetch_all()
            .await?
            .iter()
            .map(|row| {
                Ok(OperatorCall {
                    at: Timestamp(row.get("at")?),
                    who: row.get("who")?,
                    what: row.get("what")?,
                    outcome: row.get("outcome")?,
                })
            })
            .collect()
    }
}
