//! Latencies in a histogram of bounded size and even relative precision (HDR).

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency told apart, in microseconds: ten minutes.
const US_MAX: u64 = 600_000_000;

/// A latency histogram: microseconds, three significant digits.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

/// What reports say of a histogram, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Percentiles {
    /// How many latencies.
    pub count: u64,
    /// Their mean.
    pub mean_ms: f64,
    /// Half are below.
    pub p50_ms: f64,
    /// 90 % are below.
    pub p90_ms: f64,
    /// 99 % are below.
    pub p99_ms: f64,
    /// 99.9 % are below.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Default for Latency {
    fn default() -> Self {
        // Fails only if low < 1, high < 2 x low, or more than 5 digits: these are constants that
        // are none of that.
        let bounded = Histogram::new_with_bounds(1, US_MAX, 3).expect("bounds are in range");
        Self(bounded)
    }
}

impl Latency {
    /// Takes a latency in; longer than ten minutes counts as ten minutes.
    pub fn record(&mut self, latency: Duration) {
        self.0
            .saturating_record(u64::try_from(latency.as_micros()).unwrap_or(US_MAX));
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The value below which this share (0 to 1) of all latencies lies, in milliseconds.
    pub fn at_ms(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1_000.0
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, so every value fits.
        let _ = self.0.add(&other.0);
    }

    /// The figures of a report.
    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            count: self.count(),
            mean_ms: (self.0.mean() / 10.0).round() / 100.0,
            p50_ms: self.at_ms(0.5),
            p90_ms: self.at_ms(0.9),
            p99_ms: self.at_ms(0.99),
            p999_ms: self.at_ms(0.999),
            max_ms: self.0.max() as f64 / 1_000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_three_digits() {
        let mut latency = Latency::default();
        for ms in 1..=1_000 {
            latency.record(Duration::from_millis(ms));
        }
        let told = latency.percentiles();
        for (value, right) in [
            (told.p50_ms, 500.0),
            (told.p90_ms, 900.0),
            (told.p99_ms, 990.0),
            (told.p999_ms, 999.0),
            (told.max_ms, 1_000.0),
            (told.mean_ms, 500.5),
        ] {
            assert!(
                (value - right).abs() <= right * 0.001,
                "{value} is not {right}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_kept_at_the_edge() {
        let mut latency = Latency::default();
        latency.record(Duration::from_secs(100_000));
        latency.record(Duration::ZERO);
        assert_eq!(latency.count(), 2);
        assert!(latency.at_ms(1.0) >= 599_000.0);
        assert_eq!(Latency::default().percentiles().count, 0);
    }
}
