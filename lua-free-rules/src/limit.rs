//! Rate limits by the generic cell rate algorithm (GCRA; ITU-T I.371, ATM Forum TM 4.0): one
//! timestamp for each key, no background work. A rate of zero means zero.

use serde::{Deserialize, Serialize};

use crate::units::Timestamp;

/// So many requests each second on average, with a burst on top of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests a second, in the long run. Zero lets nothing through.
    pub per_second: u32,
    /// Requests that may come at once. Zero lets nothing through.
    pub burst: u32,
}

/// What the limiter remembers of one key: the theoretical arrival time of its next request, in
/// microseconds since the Unix epoch. Zero for a key never seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrival(pub i64);

/// Whether a request may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may; remember this.
    Pass(Arrival),
    /// It may not; asking again makes sense after so many seconds.
    Wait {
        /// Seconds, rounded up.
        retry_after_s: u32,
    },
}

/// Seconds to wait that are told when nothing will ever pass.
const NEVER_S: u32 = 3600;

impl Rate {
    /// Judges one request of a key last remembered as `seen`.
    pub fn judge(self, seen: Arrival, now: Timestamp) -> Verdict {
        if self.per_second == 0 || self.burst == 0 {
            return Verdict::Wait {
                retry_after_s: NEVER_S,
            };
        }
        let now_us = now.0.saturating_mul(1_000);
        let spacing_us = 1_000_000 / i64::from(self.per_second).min(1_000_000);
        let tolerance_us = spacing_us.saturating_mul(i64::from(self.burst) - 1);
        let due_us = seen.0.max(now_us);
        let ahead_us = due_us - now_us;
        if ahead_us <= tolerance_us {
            return Verdict::Pass(Arrival(due_us.saturating_add(spacing_us)));
        }
        let wait_s = (ahead_us - tolerance_us).saturating_add(999_999) / 1_000_000;
        Verdict::Wait {
            retry_after_s: u32::try_from(wait_s).unwrap_or(NEVER_S).min(NEVER_S),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zero_means_zero() {
        for rate in [
            Rate {
                per_second: 0,
                burst: 10,
            },
            Rate {
                per_second: 10,
                burst: 0,
            },
        ] {
            assert!(matches!(
                rate.judge(Arrival::default(), Timestamp(5)),
                Verdict::Wait { .. }
            ));
        }
    }

    #[test]
    fn a_burst_passes_then_waits_for_its_turn() {
        let rate = Rate {
            per_second: 2,
            burst: 3,
        };
        let mut seen = Arrival::default();
        for _ in 0..3 {
            let Verdict::Pass(next) = rate.judge(seen, Timestamp(10_000)) else {
                panic!("burst")
            };
            seen = next;
        }
        assert_eq!(
            rate.judge(seen, Timestamp(10_000)),
            Verdict::Wait { retry_after_s: 1 }
        );
        assert!(matches!(
            rate.judge(seen, Timestamp(10_500)),
            Verdict::Pass(_)
        ));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_plus_rate(
            per_second in 1_u32..200, burst in 1_u32..50,
            mut at in proptest::collection::vec(0_i64..10_000, 1..400),
        ) {
            at.sort_unstable();
            let rate = Rate { per_second, burst };
            let (mut seen, mut passed) = (Arrival::default(), 0_i64);
            for ms in &at {
                if let Verdict::Pass(next) = rate.judge(seen, Timestamp(1_000_000 + ms)) {
                    seen = next;
                    passed += 1;
                }
            }
            let span_us = (at[at.len() - 1] - at[0]) * 1_000;
            let spacing_us = 1_000_000 / i64::from(per_second);
            prop_assert!(passed <= i64::from(burst) + span_us / spacing_us);
        }
    }
}
