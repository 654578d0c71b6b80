//! The word that a promo is sold out, or no longer is. It comes from the engine as a signal, and from an
//! order server with an answer: `floodgate-sold-out: <promo>;<generation>;<epoch>;<0|1>`.

use lua_free_rules::promo::Snapshot;
use lua_free_rules::units::{Generation, PromoId, SoldEpoch};

/// The header; taken off before the answer goes to the buyer.
pub(crate) const HEADER: &str = "floodgate-sold-out";

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sold {
    pub promo: PromoId,
    pub generation: Generation,
    pub epoch: SoldEpoch,
    pub sold_out: bool,
}

impl Sold {
    /// Reads the header's value; `None` if it is malformed.
    pub fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(';').map(str::trim);
        let sold = Self {
            promo: parts.next()?.parse().ok()?,
            generation: Generation(parts.next()?.parse().ok()?),
            epoch: SoldEpoch(parts.next()?.parse().ok()?),
            sold_out: match parts.next()? {
                "0" => false,
                "1" => true,
                _ => return None,
            },
        };
        parts.next().is_none().then_some(sold)
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
    fn the_header_is_read_whole_or_not_at_all() {
        let sold = Sold::parse("7;1;3;1").unwrap();
        assert_eq!(sold.promo, PromoId(7));
        assert_eq!(sold.epoch, SoldEpoch(3));
        assert!(sold.sold_out);
        for bad in [
            "",
            "7",
            "7;1;3",
            "7;1;3;2",
            "7;1;3;1;0",
            "x;1;3;1",
            "7;1;-;0",
        ] {
            assert_eq!(Sold::parse(bad), None, "{bad}");
        }
    }
}
