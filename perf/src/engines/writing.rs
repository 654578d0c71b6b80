//! Order events into a ledger, as the order writer writes them.

use std::time::Instant;

use backend::{Ledger, LedgerSettings};
use engine::{Change, Clock as _, Event, Reservation, SystemClock};
use lua_free_rules::config::CatalogItem;
use lua_free_rules::promo::Terms;
use lua_free_rules::units::{
    BuyerId, Generation, ItemId, Millis, Money, Nonce, OrderId, PromoId, ReservationNumber,
    Sequence, Timestamp,
};

use super::Failure;

/// The seconds that `orders` of them take in transactions of `batch`, in an empty ledger.
pub async fn seconds(
    settings: &LedgerSettings,
    orders: usize,
    batch: usize,
) -> Result<f64, Failure> {
    let ledger = Ledger::open(settings).await?;
    let (now, units) = (SystemClock.now(), u32::try_from(orders)?);
    let price = Money::from_minor(9_900).unwrap_or_default();
    let item = CatalogItem {
        id: ItemId(1),
        title: "Sneakers".to_owned(),
        price,
        stock: units,
        description: String::new(),
        img_url: String::new(),
    };
    ledger.seed(&[item]).await?;
    let published = Change::Published {
        stock: units,
        terms: Box::new(terms(units, now, price)),
        digest: "crowd".to_owned(),
    };
    ledger
        .write_events(&[event(1, now, published)], now)
        .await?;
    let events: Vec<Event> = (1..=i64::from(units))
        .map(|number| event(number + 1, now, reserved(number, now, price)))
        .collect();
    let begun = Instant::now();
    for some in events.chunks(batch.max(1)) {
        ledger.write_events(some, now).await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let left = ledger.item(ItemId(1)).await?.map_or(1, |item| item.stock);
    ledger.close().await;
    if left != 0 {
        return Err(format!("{left} units are left: not every order was written").into());
    }
    Ok(seconds)
}

const fn event(sequence: i64, at: Timestamp, change: Change) -> Event {
    Event {
        promo: PromoId(1),
        generation: Generation(1),
        sequence: Sequence(sequence),
        at,
        change,
    }
}

fn reserved(number: i64, made_at: Timestamp, price: Money) -> Change {
    let number_in_promo = ReservationNumber(number);
    let reservation = Reservation {
        order: OrderId {
            promo: PromoId(1),
            generation: Generation(1),
            number: number_in_promo,
        },
        number: number_in_promo,
        buyer: BuyerId(number),
        item: ItemId(1),
        amount: 1,
        price,
        made_at,
        pay_within: Millis::seconds(900),
        sequence: Sequence(number + 1),
    };
    // As they are without an `Idempotency-Key`.
    let jti = Nonce(u128::from(number.unsigned_abs()).to_be_bytes());
    Change::Reserved {
        reservation,
        key: jti.to_string(),
        body: "1:1:1".to_owned(),
        jti,
    }
}

fn terms(stock: u32, starts_at: Timestamp, price: Money) -> Terms {
    Terms {
        item: ItemId(1),
        starts_at,
        ends_at: starts_at.plus_ms(3_600_000),
        price,
        stock,
        door: 5,
        per_buyer: 1,
        pay_within: Millis::seconds(900),
        token_ttl: Millis::seconds(60),
        challenges: Vec::new(),
    }
}
