//! The operators' log: who asked for what, when, and what came of it.

use engine::{Clock as _, SystemClock};
use lua_free_rules::units::Timestamp;
use serde::Serialize;

use super::Ledger;
use crate::error::Result;

/// Who works with engine and ledger himself.
pub const COMMAND_LINE: &str = "command line";

/// One call of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperatorCall {
    /// When.
    pub at: Timestamp,
    /// The fingerprint of the token that was shown, or [`COMMAND_LINE`].
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

    /// Does `work` for an operator at the command line, who has the passwords of engine and ledger instead of
    /// a token, and notes what he asked for and what came of it.
    ///
    /// # Errors
    /// Those of `work`; or if the database fails before it.
    pub async fn noted<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let call = self
            .note_call(COMMAND_LINE, what, SystemClock.now())
            .await?;
        let result = work.await;
        let outcome = result
            .as_ref()
            .map_or_else(|e| e.refusal().name(), |_| "ok");
        if let Err(error) = self.note_outcome(call, outcome).await {
            tracing::error!(what, outcome, %error, "an outcome could not be noted");
        }
        result
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
