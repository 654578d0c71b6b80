//! Chance that can be repeated: SplitMix64, written out here so that a seed means the same crowd in
//! every version of the generator.

use std::time::Duration;

/// A source of numbers that follow from its seed alone.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The dice of `seed` for one purpose or one buyer.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut dice = Self(seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        // Neighbouring streams must not begin alike.
        let mixed = dice.draw();
        Self(mixed ^ stream)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, but not including, 1.
    pub fn share(&mut self) -> f64 {
        // 53 bits are what a double holds exactly.
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A whole number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        u64::try_from((u128::from(self.draw()) * u128::from(end)) >> 64).unwrap_or(0)
    }

    /// A length of time between nothing and `longest`.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.share())
    }

    /// An exponentially distributed length of time; at most twenty times the mean.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64((-(1.0 - self.share()).ln()).min(20.0))
    }

    /// 128 bits in hex: an idempotency key.
    pub fn key(&mut self) -> String {
        format!("{:016x}{:016x}", self.draw(), self.draw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_seed_never_change() {
        // The published test vector of SplitMix64.
        let mut dice = Dice(1_234_567);
        assert_eq!(dice.draw(), 6_457_827_717_110_365_317);
        assert_eq!(dice.draw(), 3_203_168_211_198_807_973);
        // And how a buyer's dice follow from seed and number.
        assert_eq!(Dice::new(42, 7).draw(), 10_300_557_502_895_582_377);
    }

    #[test]
    fn draws_stay_in_their_range_and_about_even() {
        let mut dice = Dice::new(1, 1);
        let mut sum = Duration::ZERO;
        for _ in 0..10_000 {
            assert!((0.0..1.0).contains(&dice.share()));
            assert!(dice.below(3) < 3);
            sum += dice.exponential(Duration::from_millis(100));
        }
        let mean = sum / 10_000;
        assert!((90..110).contains(&mean.as_millis()), "{mean:?}");
        assert_eq!(dice.below(0), 0);
    }

    #[test]
    fn streams_of_one_seed_differ() {
        let firsts: std::collections::BTreeSet<_> = (0..10_000)
            .map(|stream| Dice::new(9, stream).draw())
            .collect();
        assert_eq!(firsts.len(), 10_000);
    }
}
