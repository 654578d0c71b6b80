//! How long buyers go on asking: what is asked again, after which wait, and when they let it be.

use std::time::Duration;

use tokio::time::Instant;

use super::buyer::{Buyer, End, Go};
use super::dice::Dice;
use super::pool::{Dial, Stay};
use super::stage::{Answer, Call, Data};
use super::steps::Lost;

/// First wait before asking again without a `Retry-After`; it doubles.
const BACKOFF: Duration = Duration::from_millis(100);
/// Longest such wait.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// What waits are spread by, so that those who were refused together do not return together.
const SPREAD: Duration = Duration::from_millis(300);
/// A sale that opens this soon is waited for.
const OPENS_SOON: Duration = Duration::from_secs(2);

impl<D: Dial> Buyer<'_, D> {
    /// Asks until there is an answer that asking again would not change, or patience is over.
    pub(super) async fn asked(&self, first_due: Instant, call: &Call, dice: &mut Dice) -> Go<Data> {
        let give_up_at = first_due + self.stage.scene.patience;
        let mut due = first_due;
        for tried in 0.. {
            let answer = self
                .stage
                .ask(self.person, due, call, Stay::ForAnswer)
                .await;
            let wait = self.wait_after(&answer, tried);
            let end = match answer {
                Answer::Granted(data) => return Ok(data),
                Answer::Lost(Lost::Stopped) => return Err(End::Stopped),
                Answer::Refused { code, .. } => End::Refused(call.step, code),
                Answer::Lost(_) => End::Lost(call.step),
            };
            let Some(wait) = wait else { return Err(end) };
            due = Instant::now() + wait + dice.up_to(SPREAD.min(wait));
            if due > give_up_at {
                return Err(end);
            }
            due = self.stage.rest_until(due).await.ok_or(End::Stopped)?;
        }
        Err(End::Stopped)
    }

    /// How long to wait before asking the same again, where that may help.
    fn wait_after(&self, answer: &Answer, tried: u32) -> Option<Duration> {
        let backoff = (BACKOFF * 2_u32.pow(tried.min(8))).min(BACKOFF_MAX);
        let scene = &self.stage.scene;
        match *answer {
            Answer::Granted(_) => None,
            Answer::Lost(_) => Some(backoff),
            Answer::Refused {
                code,
                status,
                retry_after,
            } => {
                let wait = retry_after.unwrap_or(backoff);
                let helps = match code {
                    30002 | 30008 => tried < scene.tries,
                    30003 => wait <= OPENS_SOON && retry_after.is_some() && tried < scene.tries,
                    30007 => tried < scene.door_tries,
                    30010 => retry_after.is_some(),
                    10002 | 0 => status >= 500,
                    _ => false,
                };
                helps.then_some(wait)
            }
        }
    }
}
