//! The signal by which an order server tells the edge that a promo is sold out, or no longer is:
//! `floodgate-sold-out: <promo>;<generation>;<epoch>;<0|1>` in its answer.

use lua_free_rules::promo::Snapshot;
use lua_free_rules::units::{Generation, PromoId, SoldEpoch};

/// The header; taken off before the answer goes to the buyer.
pub(crate) const HEADER: &str = "floodgate-sold-out";

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal {
    pub promo: PromoId,
    pub generation: Generation,
    pub epoch: SoldEpoch,
    pub sold_out: bool,
}

impl Signal {
    /// Reads the header's value; `None` if it is malformed.
    pub fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(';').map(str::trim);
        let signal = Self {
            promo: parts.next()?.parse().ok()?,
            generation: Generation(parts.next()?.parse().ok()?),
            epoch: SoldEpoch(parts.next()?.parse().ok()?),
            sold_out: match parts.next()? {
                "0" => false,
                "1" => true,
                _ => return None,
            },
        };
        parts.next().is_none().then_some(signal)
    }

    /// Whether it is newer than what is known of its promo. Epochs of different generations are
    /// not compared: another generation's sale is another sale.
    pub fn is_news_to(&self, known: &Snapshot) -> bool {
        self.promo == known.promo
            && self.generation == known.generation
            && self.epoch > known.sold_epoch
    }

    /// Brings `known` up to date; returns whether it was behind.
    pub fn apply(&self, known: &mut Snapshot) -> bool {
        let news = self.is_news_to(known);
        if news {
            known.sold_out = self.sold_out;
            known.sold_epoch = self.epoch;
            if self.sold_out {
                known.available = 0;
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_whole_or_not_at_all() {
        let signal = Signal::parse("7;1;3;1").unwrap();
        assert_eq!(signal.promo, PromoId(7));
        assert_eq!(signal.epoch, SoldEpoch(3));
        assert!(signal.sold_out);
        for bad in [
            "",
            "7",
            "7;1;3",
            "7;1;3;2",
            "7;1;3;1;0",
            "x;1;3;1",
            "7;1;-;0",
        ] {
            assert_eq!(Signal::parse(bad), None, "{bad}");
        }
    }
}
