//! The stock equation: every unit that was published is somewhere, and in one place only.

use serde::{Deserialize, Serialize};

/// Where the units of one promo and generation are, counted at one fence (a sequence number that
/// both the engine and the ledger have reached).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Books {
    /// Units published, additions included.
    pub published: i64,
    /// Units that can be reserved.
    pub available: i64,
    /// Units reserved by orders that are not in the ledger yet.
    pub reserved: i64,
    /// Units of written orders that wait for payment.
    pub written: i64,
    /// Units of paid orders.
    pub paid: i64,
    /// Units of orders that ended in the ledger, whose release the engine has not applied yet.
    pub releasing: i64,
}

/// The books do not balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Imbalance {
    /// A count is negative.
    #[error("{what} is negative: {count}")]
    Negative {
        /// Which one.
        what: &'static str,
        /// The count.
        count: i64,
    },
    /// More units are held than were published.
    #[error("oversold: {0} units more are out than were published")]
    Oversold(i64),
    /// Units have gone missing.
    #[error("lost: {0} units are nowhere")]
    Lost(i64),
}

impl Books {
    /// Checks `published = available + reserved + written + paid + releasing`.
    ///
    /// # Errors
    /// Says what is off, and by how many units.
    pub fn check(&self) -> Result<(), Imbalance> {
        let parts = [
            ("available", self.available),
            ("reserved", self.reserved),
            ("written", self.written),
            ("paid", self.paid),
            ("releasing", self.releasing),
        ];
        for (what, count) in parts.into_iter().chain([("published", self.published)]) {
            if count < 0 {
                return Err(Imbalance::Negative { what, count });
            }
        }
        let out = parts
            .iter()
            .fold(0_i64, |sum, (_, count)| sum.saturating_add(*count));
        match out - self.published {
            0 => Ok(()),
            more if more > 0 => Err(Imbalance::Oversold(more)),
            less => Err(Imbalance::Lost(-less)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn moving_units_keeps_the_balance_and_losing_one_breaks_it(
            a in 0_i64..1_000, r in 0_i64..1_000, w in 0_i64..1_000, p in 0_i64..1_000, x in 0_i64..1_000,
        ) {
            let mut books = Books {
                published: a + r + w + p + x, available: a, reserved: r, written: w, paid: p, releasing: x,
            };
            prop_assert_eq!(books.check(), Ok(()));
            books.paid += 1;
            prop_assert_eq!(books.check(), Err(Imbalance::Oversold(1)));
            books.published += 2;
            prop_assert_eq!(books.check(), Err(Imbalance::Lost(1)));
        }
    }

    #[test]
    fn a_negative_count_is_not_balanced_away() {
        let books = Books {
            published: 1,
            available: 2,
            written: -1,
            ..Books::default()
        };
        assert_eq!(
            books.check(),
            Err(Imbalance::Negative {
                what: "written",
                count: -1
            })
        );
    }
}
