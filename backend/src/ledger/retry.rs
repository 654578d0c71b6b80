//! Transactions that others were in the way of are tried again, whole, a few times: a deadlock, a row
//! that was locked for long, a unique key that another process took first.

use std::future::Future;
use std::time::{Duration, Instant};

use super::codes::{is_duplicate, is_overtaken};
use crate::error::{BackendError, Result};

/// How often a transaction is tried, and for how long it is begun anew.
const TRIES: u32 = 6;
const TRYING_MAX: Duration = Duration::from_secs(4);
/// Waiting before the second try; each further one doubles it.
const PAUSE: Duration = Duration::from_millis(2);

/// What `attempt` returns, which is one transaction from its beginning to its commit.
///
/// # Errors
/// Those of `attempt`; the last of them, if others were in the way each time.
pub(super) async fn retried<T, F>(attempt: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let (began, mut pause) = (Instant::now(), PAUSE);
    for _ in 1..TRIES {
        match attempt().await {
            Err(BackendError::Database(error))
                if (is_overtaken(&error) || is_duplicate(&error))
                    && began.elapsed() < TRYING_MAX =>
            {
                tracing::debug!(%error, "a transaction is tried again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            done => return done,
        }
    }
    attempt().await
}
