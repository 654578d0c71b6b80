//! An item as buyers see it: what the shop knows of it, and what its promo makes of it at this
//! moment. A cached item never carries a promo's state; that is computed for each answer.

use serde::{Deserialize, Serialize};

use crate::challenge;
use crate::promo::{Phase, Snapshot};
use crate::units::{ItemId, Money, PromoId, Timestamp};

/// What the shop knows of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Its id.
    pub id: ItemId,
    /// Its name.
    pub title: String,
    /// Its everyday price.
    pub price: Money,
    /// Units in the shop.
    pub stock: i64,
    /// What it is.
    pub description: String,
    /// Units sold.
    pub sales: i64,
    /// Where its picture is.
    pub img_url: String,
}

/// An item with its promo: one answer of the item API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemAnswer<'a> {
    /// The item; its `stock` is the promo's while one is running.
    #[serde(flatten)]
    pub item: std::borrow::Cow<'a, Item>,
    /// 0 none, 1 upcoming, 2 live, 3 sold out, 4 ended.
    pub promo_status: u8,
    /// The promo's price.
    pub promo_price: Option<Money>,
    /// Which promo.
    pub promo_id: Option<PromoId>,
    /// RFC 3339.
    pub start_date: Option<String>,
    /// RFC 3339.
    pub end_date: Option<String>,
}

impl Item {
    /// The answer at `now`, given every promo there is.
    pub fn answer<'a>(&'a self, promos: &[Snapshot], now: Timestamp) -> ItemAnswer<'a> {
        let mut item = std::borrow::Cow::Borrowed(self);
        let promo = promo_of(self.id, promos, now);
        if let Some(promo) = promo.filter(|promo| promo.promo_status(now) == 2 || promo.sold_out) {
            item.to_mut().stock = i64::from(promo.available);
        }
        ItemAnswer {
            item,
            promo_status: promo.map_or(0, |promo| promo.promo_status(now)),
            promo_price: promo.map(|promo| promo.terms.price),
            promo_id: promo.map(|promo| promo.promo),
            start_date: promo.map(|promo| promo.terms.starts_at.to_rfc3339()),
            end_date: promo.map(|promo| promo.terms.ends_at.to_rfc3339()),
        }
    }
}

/// The promo that an item's page shows: the running one, else the next, else the last.
pub fn promo_of(item: ItemId, promos: &[Snapshot], now: Timestamp) -> Option<&Snapshot> {
    promos
        .iter()
        .filter(|promo| promo.terms.item == item)
        .min_by_key(|promo| {
            let (start, end) = (promo.terms.starts_at.0, promo.terms.ends_at.0);
            match promo.phase(now) {
                Phase::Live | Phase::Paused => (0, end),
                Phase::Upcoming => (1, start),
                Phase::Ended | Phase::Closed => (2, -end),
            }
        })
}

/// What `GET /promo/state` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PromoState<'a> {
    /// Which promo.
    pub promo_id: PromoId,
    /// What it sells.
    pub item_id: ItemId,
    /// Where it stands.
    pub phase: Phase,
    /// Whether nothing is available.
    pub sold_out: bool,
    /// Now, in milliseconds since the Unix epoch, as are the next two.
    pub server_time: Timestamp,
    /// Its start.
    pub starts_at: Timestamp,
    /// Its end.
    pub ends_at: Timestamp,
    /// The price of one unit.
    pub price: Money,
    /// Units one buyer may hold.
    pub per_buyer_limit: u32,
    /// The kinds of challenge offered, the preferred one first.
    pub challenge: &'a [challenge::Kind],
}

impl<'a> PromoState<'a> {
    /// The state of `promo` at `now`.
    pub fn at(promo: &'a Snapshot, now: Timestamp) -> Self {
        let mut challenge = promo.terms.challenges.as_slice();
        if challenge.is_empty() {
            challenge = &[challenge::Kind::None];
        }
        Self {
            promo_id: promo.promo,
            item_id: promo.terms.item,
            phase: promo.phase(now),
            sold_out: promo.sold_out,
            server_time: now,
            starts_at: promo.terms.starts_at,
            ends_at: promo.terms.ends_at,
            price: promo.terms.price,
            per_buyer_limit: promo.terms.per_buyer,
            challenge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promo::tests::snapshot;

    fn item() -> Item {
        Item {
            id: ItemId(3),
            title: "Sneakers".to_owned(),
            price: Money::from_minor(12_900).unwrap(),
            stock: 400,
            description: String::new(),
            sales: 0,
            img_url: "/resources/img/sneakers.svg".to_owned(),
        }
    }

    #[test]
    fn the_answer_follows_the_clock_not_the_cache() {
        let (item, promos) = (item(), [snapshot()]);
        let status = |now| item.answer(&promos, Timestamp(now)).promo_status;
        assert_eq!([status(999), status(1_000), status(100_000)], [1, 2, 4]);
        assert_eq!(item.answer(&[], Timestamp(0)).promo_status, 0);
        let json = serde_json::to_value(item.answer(&promos, Timestamp(1_000))).unwrap();
        assert_eq!(json["promoPrice"], "99.00");
        assert_eq!(json["stock"], 50);
        assert_eq!(json["imgUrl"], "/resources/img/sneakers.svg");
        assert_eq!(json["startDate"], "1970-01-01T00:00:01Z");
    }

    #[test]
    fn the_running_promo_comes_before_the_next_and_the_last() {
        let mut next = snapshot();
        next.promo = PromoId(8);
        next.terms.starts_at = Timestamp(200_000);
        next.terms.ends_at = Timestamp(300_000);
        let promos = [next, snapshot()];
        let shown = |now| promo_of(ItemId(3), &promos, Timestamp(now)).map(|promo| promo.promo.0);
        assert_eq!(
            [shown(500), shown(2_000), shown(150_000), shown(400_000)],
            [Some(7), Some(7), Some(8), Some(8)]
        );
    }
}
