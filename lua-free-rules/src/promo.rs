//! The sale of one item: its terms, its window, how many its door admits, and which phase it is in.

use serde::{Deserialize, Serialize};

use crate::challenge::Kind;
use crate::units::{Generation, ItemId, Millis, Money, PromoId, Sequence, SoldEpoch, Timestamp};

/// How many places a door has for each unit of stock when nobody says otherwise.
pub const DEFAULT_DOOR: u32 = 5;

/// What was published: fixed for a generation, but for the limits a reload may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What is sold.
    pub item: ItemId,
    /// First moment at which it is sold.
    pub starts_at: Timestamp,
    /// First moment at which it no longer is.
    pub ends_at: Timestamp,
    /// The price of one unit.
    pub price: Money,
    /// Units published, additions included.
    pub stock: u32,
    /// Places for each unit of stock.
    pub door: u32,
    /// Units that one buyer may hold.
    pub per_buyer: u32,
    /// How long a written order waits for its payment.
    pub pay_within: Millis,
    /// How long an access token lives.
    pub token_ttl: Millis,
    /// The kinds of challenge offered, the preferred one first; empty for none.
    pub challenges: Vec<Kind>,
}

/// Idempotency keys and places are kept so long after the last moment at which an order can be paid in
/// time.
const KEEP_MS: i64 = 24 * 60 * 60 * 1_000;
/// Tokens and their lifetimes are counted in whole seconds.
const TOKEN_TTL_MS_MIN: i64 = 1_000;

impl Terms {
    /// What keeps these terms from selling, whenever that is looked at.
    pub fn fault(&self) -> Option<&'static str> {
        let faults = [
            (self.stock == 0, "`stock` must be at least 1"),
            (self.door == 0, "`door` must be at least 1"),
            (self.per_buyer == 0, "`per_buyer` must be at least 1"),
            (self.price.minor() == 0, "`price` must be more than zero"),
            (
                self.token_ttl.ms() < TOKEN_TTL_MS_MIN,
                "`token_ttl` must be at least 1s",
            ),
            (
                self.ends_at <= self.starts_at,
                "the sale must end after it begins",
            ),
        ];
        faults
            .into_iter()
            .find_map(|(is_wrong, words)| is_wrong.then_some(words))
    }

    /// From when on idempotency keys and places need not be kept.
    pub fn forget_at(&self) -> Timestamp {
        self.ends_at.plus_ms(self.pay_within.ms()).plus_ms(KEEP_MS)
    }

    /// How many places the door has: buyers who hold, or held and used, a token.
    pub const fn places(&self) -> u64 {
        (self.stock as u64).saturating_mul(self.door as u64)
    }
}

/// What an operator made of a published promo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Sells within its window.
    Open,
    /// Answers 503 until it is resumed.
    Paused,
    /// Over for good, whatever the window says.
    Closed,
    /// Its counts are being rebuilt from the ledger; sells nothing.
    Rebuilding,
}

/// Where a sale stands at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before its start.
    Upcoming,
    /// Selling.
    Live,
    /// After its end.
    Ended,
    /// Paused by an operator, or rebuilding.
    Paused,
    /// Closed by an operator.
    Closed,
}

/// A promo as the engine told it at one moment: what every node decides from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which promo.
    pub promo: PromoId,
    /// Which publishing of it.
    pub generation: Generation,
    /// What was published.
    pub terms: Terms,
    /// What an operator made of it.
    pub status: Status,
    /// Units that can be reserved now.
    pub available: u32,
    /// Whether buyers are told "sold out". Follows `available = 0` at once, and `available > 0` at
    /// most once a second.
    pub sold_out: bool,
    /// Which change between sold out and available this is.
    pub sold_epoch: SoldEpoch,
    /// The number of the last change of `available`.
    pub sequence: Sequence,
    /// Places held by a live token that was not used yet.
    pub places_issued: u64,
    /// Places whose token was used.
    pub places_used: u64,
}

impl Snapshot {
    /// The phase at `now`.
    pub fn phase(&self, now: Timestamp) -> Phase {
        match self.status {
            Status::Closed => Phase::Closed,
            _ if now >= self.terms.ends_at => Phase::Ended,
            Status::Paused | Status::Rebuilding => Phase::Paused,
            Status::Open if now < self.terms.starts_at => Phase::Upcoming,
            Status::Open => Phase::Live,
        }
    }

    /// The `promoStatus` of the item API: 1 upcoming, 2 live, 3 sold out, 4 ended. (0, no promo, is
    /// for items without one.) A paused sale counts as what it will be when it is resumed.
    pub fn promo_status(&self, now: Timestamp) -> u8 {
        match self.phase(now) {
            Phase::Ended | Phase::Closed => 4,
            _ if now < self.terms.starts_at => 1,
            _ if self.sold_out => 3,
            _ => 2,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn snapshot() -> Snapshot {
        Snapshot {
            promo: PromoId(7),
            generation: Generation(1),
            terms: Terms {
                item: ItemId(3),
                starts_at: Timestamp(1_000),
                ends_at: Timestamp(100_000),
                price: Money::from_minor(9_900).unwrap(),
                stock: 50,
                door: DEFAULT_DOOR,
                per_buyer: 2,
                pay_within: Millis::seconds(900),
                token_ttl: Millis::seconds(60),
                challenges: vec![Kind::Altcha, Kind::Image],
            },
            status: Status::Open,
            available: 50,
            sold_out: false,
            sold_epoch: SoldEpoch(0),
            sequence: Sequence(1),
            places_issued: 0,
            places_used: 0,
        }
    }

    #[test]
    fn the_window_is_half_open() {
        let promo = snapshot();
        assert_eq!(promo.phase(Timestamp(999)), Phase::Upcoming);
        assert_eq!(promo.phase(Timestamp(1_000)), Phase::Live);
        assert_eq!(promo.phase(Timestamp(99_999)), Phase::Live);
        assert_eq!(promo.phase(Timestamp(100_000)), Phase::Ended);
        assert_eq!(promo.terms.places(), 250);
    }

    #[test]
    fn the_status_follows_the_clock_and_the_operator() {
        let mut promo = snapshot();
        assert_eq!(promo.promo_status(Timestamp(0)), 1);
        assert_eq!(promo.promo_status(Timestamp(1_000)), 2);
        promo.sold_out = true;
        assert_eq!(promo.promo_status(Timestamp(1_000)), 3);
        assert_eq!(promo.promo_status(Timestamp(100_000)), 4);
        promo.status = Status::Paused;
        assert_eq!(promo.phase(Timestamp(1_000)), Phase::Paused);
        promo.status = Status::Closed;
        assert_eq!(promo.promo_status(Timestamp(1_000)), 4);
    }
}
