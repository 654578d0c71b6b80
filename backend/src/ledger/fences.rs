//! Fences: for each lease the greatest number under which anything was written here. Who was replaced and
//! does not know it yet, for his process stood still, comes with a smaller one and is refused.

use engine::Fence;
use sqlx::{Sqlite, Transaction};

use super::Ledger;
use crate::error::{BackendError, Result};

/// The lease of the expiry sweeper.
pub const SWEEPER: &str = "sweeper";

impl Ledger {
    /// From now on nothing is written under a smaller number.
    ///
    /// # Errors
    /// [`BackendError::Replaced`] if a greater one was here; or if the database fails.
    pub async fn raise_fence(&self, lease: &'static str, fence: Fence) -> Result<()> {
        let mut tx = self.begin().await?;
        pass(&mut tx, lease, fence).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Lets a transaction go on if nobody with a greater number was here. Until it ends, no other one passes.
pub(super) async fn pass(
    tx: &mut Transaction<'static, Sqlite>,
    lease: &'static str,
    fence: Fence,
) -> Result<()> {
    let passed = sqlx::query("UPDATE fences SET fence = ? WHERE name = ? AND fence <= ?")
        .bind(fence.0)
        .bind(lease)
        .bind(fence.0)
        .execute(&mut **tx)
        .await?;
    if passed.rows_affected() == 0 {
        return Err(BackendError::Replaced(lease));
    }
    Ok(())
}
