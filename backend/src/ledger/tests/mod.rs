//! The ledger on a file of its own, and the events that the tests write to it.

use engine::{Change, Event, Fence, Release, Reservation};
use lua_free_rules::config::CatalogItem;
use lua_free_rules::order::State;
use lua_free_rules::promo::{Snapshot, Status, Terms};
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{
    BuyerId, Generation, ItemId, Millis, Money, Nonce, OrderId, PromoId, ReservationNumber,
    Sequence, SoldEpoch, Timestamp,
};

use super::*;
use crate::error::BackendError;

mod books;
mod orders;
mod stock;
mod users;

const NOW: Timestamp = Timestamp(1_000_000);
const PAY_WITHIN_MS: i64 = 60_000;
const LATER: Timestamp = NOW.plus_ms(PAY_WITHIN_MS);

/// A ledger with one item.
pub async fn open() -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&dir.path().join("ledger.db")).await.unwrap();
    let sneakers = CatalogItem {
        id: ItemId(3),
        title: "Sneakers".to_owned(),
        price: price(),
        stock: 100,
        description: String::new(),
        img_url: "/sneakers.svg".to_owned(),
    };
    ledger.seed(&[sneakers]).await.unwrap();
    (dir, ledger)
}

/// Keeps everyone else from writing until it is dropped.
pub async fn hold(ledger: &Ledger) -> impl Sized + use<> {
    ledger.begin().await.unwrap()
}

fn price() -> Money {
    Money::from_minor(9_900).unwrap()
}

fn event(sequence: i64, change: Change) -> Event {
    Event {
        promo: PromoId(7),
        generation: Generation(1),
        sequence: Sequence(sequence),
        at: Timestamp(900_000 + sequence),
        change,
    }
}

fn order(number: i64) -> OrderId {
    OrderId {
        promo: PromoId(7),
        generation: Generation(1),
        number: ReservationNumber(number),
    }
}

/// The first event of a generation.
pub fn published(stock: u32) -> Event {
    let published = Change::Published {
        stock,
        terms: Box::new(terms(stock)),
        digest: "a".to_owned(),
    };
    event(1, published)
}

fn reservation(first: i64, sequence: i64, buyer: i64, amount: u32) -> Reservation {
    Reservation {
        order: order(first),
        number: ReservationNumber(sequence),
        buyer: BuyerId(buyer),
        item: ItemId(3),
        amount,
        price: price(),
        made_at: Timestamp(900_000 + sequence),
        pay_within: Millis::new(60_000),
        sequence: Sequence(sequence),
    }
}

/// A reservation whose number is its sequence number.
pub fn reserved(sequence: i64, buyer: i64, amount: u32) -> Event {
    let made = Change::Reserved {
        reservation: reservation(sequence, sequence, buyer, amount),
        key: format!("key-{sequence}"),
        body: "digest".to_owned(),
        jti: Nonce([7; 16]),
    };
    event(sequence, made)
}

fn reserved_again(sequence: i64, first: i64, payment: &str) -> Event {
    let reservation = reservation(first, sequence, 5, 2);
    let payment = payment.to_owned();
    event(
        sequence,
        Change::ReservedAgain {
            reservation,
            payment,
        },
    )
}

fn released(sequence: i64, number: i64, amount: u32) -> Event {
    let release = Release {
        order: order(number),
        number: ReservationNumber(number),
    };
    event(sequence, Change::Released { release, amount })
}

async fn shop(ledger: &Ledger) -> (i64, i64) {
    let item = ledger.item(ItemId(3)).await.unwrap().unwrap();
    (item.stock, item.sales)
}

async fn state(ledger: &Ledger, number: i64) -> State {
    ledger.order(order(number)).await.unwrap().unwrap().state
}

fn terms(stock: u32) -> Terms {
    Terms {
        item: ItemId(3),
        starts_at: Timestamp(0),
        ends_at: Timestamp(i64::MAX),
        price: price(),
        stock,
        door: 5,
        per_buyer: 2,
        pay_within: Millis::new(60_000),
        token_ttl: Millis::seconds(60),
        challenges: Vec::new(),
    }
}

fn fence(available: u32, sequence: i64) -> Snapshot {
    Snapshot {
        promo: PromoId(7),
        generation: Generation(1),
        terms: terms(50),
        status: Status::Open,
        available,
        sold_out: false,
        sold_epoch: SoldEpoch(0),
        sequence: Sequence(sequence),
        places_issued: 0,
        places_used: 0,
    }
}
