//! The crowd's clock: steady moments for measuring, and the wall-clock milliseconds they stand for in
//! the history. One reading of the wall clock at the start, so that a clock step in mid-run bends
//! nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Steady moments and their wall-clock times.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    wall_us_at_start: i64,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            start: Instant::now(),
            wall_us_at_start: i64::try_from(wall.as_micros()).unwrap_or(i64::MAX),
        }
    }

    /// Milliseconds since the Unix epoch, rounded down: for the moment of sending.
    pub fn wall_ms_floor(&self, at: Instant) -> i64 {
        self.wall_us(at).div_euclid(1_000)
    }

    /// The same, rounded up: for the moment of receipt. Together the two enclose an exchange.
    pub fn wall_ms_ceil(&self, at: Instant) -> i64 {
        self.wall_us(at).saturating_add(999).div_euclid(1_000)
    }

    /// The moment at which the wall clock shows `wall_ms`.
    pub fn at_wall_ms(&self, wall_ms: i64) -> Instant {
        let ahead_us = wall_ms
            .saturating_mul(1_000)
            .saturating_sub(self.wall_us_at_start);
        self.start + Duration::from_micros(u64::try_from(ahead_us).unwrap_or(0))
    }

    fn wall_us(&self, at: Instant) -> i64 {
        let since = at.saturating_duration_since(self.start).as_micros();
        self.wall_us_at_start
            .saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sending_is_rounded_down_and_receipt_up() {
        let clock = Clock {
            start: Instant::now(),
            wall_us_at_start: 10_500,
        };
        let at = clock.start + Duration::from_micros(700);
        assert_eq!((clock.wall_ms_floor(at), clock.wall_ms_ceil(at)), (11, 12));
        assert_eq!(
            clock.at_wall_ms(12),
            clock.start + Duration::from_micros(1_500)
        );
        assert_eq!(clock.at_wall_ms(0), clock.start);
    }
}
