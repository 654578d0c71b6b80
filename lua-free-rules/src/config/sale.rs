//! What is sold: the items to seed and the promos to publish.

use sha2::{Digest as _, Sha256};

use crate::challenge::Kind;
use crate::promo::Terms;
use crate::units::{ItemId, Millis, Money, PromoId, Timestamp};

/// An item of `catalog.toml`: seeded into the ledger if it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogItem {
    /// Its id.
    pub id: ItemId,
    /// Its name.
    pub title: String,
    /// Its everyday price.
    pub price: Money,
    /// Units in the shop.
    pub stock: u32,
    /// What it is.
    pub description: String,
    /// Where its picture is.
    pub img_url: String,
}

/// When a sale begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At a moment.
    At(Timestamp),
    /// So long after it was published.
    In(Millis),
}

/// When a sale ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At a moment.
    At(Timestamp),
    /// So long after its start.
    After(Millis),
}

/// One file of `promos/`: a sale that is proposed. What was published, the engine holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promo {
    /// Its id.
    pub id: PromoId,
    /// What is sold.
    pub item: ItemId,
    /// When it begins.
    pub start: Start,
    /// When it ends.
    pub end: End,
    /// The price of one unit.
    pub price: Money,
    /// Units published.
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

impl Promo {
    /// The terms if it is published at `now`.
    pub fn terms(&self, now: Timestamp) -> Terms {
        let starts_at = match self.start {
            Start::At(at) => at,
            Start::In(wait) => now.plus_ms(wait.ms()),
        };
        let ends_at = match self.end {
            End::At(at) => at,
            End::After(span) => starts_at.plus_ms(span.ms()),
        };
        Terms {
            item: self.item,
            starts_at,
            ends_at,
            price: self.price,
            stock: self.stock,
            door: self.door,
            per_buyer: self.per_buyer,
            pay_within: self.pay_within,
            token_ttl: self.token_ttl,
            challenges: self.challenges.clone(),
        }
    }

    /// Stands for the proposal as written, relative times unresolved: publishing it twice is
    /// publishing it once.
    pub fn digest(&self) -> String {
        Sha256::digest(format!("{self:?}"))
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}
