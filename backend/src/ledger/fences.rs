//! Fences: for each lease the greatest number under which anything was written here. Who was replaced and
//! does not know it yet, for his process stood still, comes with a smaller one and is refused.

use engine::Fence;

use super::Ledger;
use super::connection::Tx;
use super::retry::retried;
use crate::error::{BackendError, Result};

/// The lease of the expiry sweeper.
pub const SWEEPER: &str = "sweeper";

impl Ledger {
    /// From now on nothing is written under a smaller number.
    ///
    /// # Errors
    /// [`BackendError::Replaced`] if a greater one was here; or if the database fails.
    pub async fn raise_fence(&self, lease: &'static str, fence: Fence) -> Result<()> {
        retried(|| async {
            let mut tx = self.begin().await?;
            pass(&mut tx, lease, fence).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }
}

/// Lets a transaction go on if nobody with a greater number was here. Until it ends, no other one passes.
pub(super) async fn pass(tx: &mut Tx, lease: &'static str, fence: Fence) -> Result<()> {
    let passed = tx
        .query("UPDATE fences SET fence = ? WHERE name = ? AND fence <= ?")
        .bind(fence.0)
        .bind(lease)
        .bind(fence.0)
        .execute()
        .await?;
    if passed.rows == 0 {
        return Err(BackendError::Replaced(lease));
    }
    Ok(())
}
