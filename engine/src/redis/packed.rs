//! An entry of the stream, unpacked. Its name is `<number of the last event>-<how many events>`; its field
//! `e` holds an event a line. Reservations are written short, as a list, and what they have in common is
//! in the field `h`; every other event is written out in JSON. A line that cannot be read is handed on as
//! it is, so that it is set aside and not lost.

use std::collections::HashMap;

use lua_free_rules::units::{
    BuyerId, Generation, ItemId, Millis, Money, Nonce, OrderId, PromoId, ReservationNumber,
    Sequence, Timestamp,
};
use redis::Value;
use serde::Deserialize;

use crate::{Change, Event, Reservation};

/// An entry.
pub(super) struct Packed {
    last: i64,
    /// Its events in JSON, in their order.
    pub(super) events: Vec<String>,
}

/// promo, generation, item, price in minor units, pay within in ms, made at
#[derive(Deserialize)]
struct Header(i64, i64, i64, i64, u64, i64);

/// sequence, number, buyer, amount, key, body, jti
#[derive(Deserialize)]
struct Reserved(i64, i64, i64, u32, String, String, Nonce);

/// sequence, number, buyer, amount, order number, payment
#[derive(Deserialize)]
struct ReservedAgain(i64, i64, i64, u32, i64, String);

impl Packed {
    /// Reads an entry. One that was deleted has no fields, and no events.
    pub(super) fn read(id: &str, fields: &Value) -> Self {
        let fields: HashMap<String, String> =
            redis::from_redis_value(fields.clone()).unwrap_or_default();
        let header = fields.get("h").map_or("", String::as_str);
        let lines = fields.get("e").map_or("", String::as_str);
        let header: Option<Header> = serde_json::from_str(header).ok();
        let events = lines.split('\n').filter(|line| !line.is_empty());
        Self {
            last: last_of(id).unwrap_or_default(),
            events: events
                .map(|line| written_out(header.as_ref(), line).unwrap_or_else(|| line.to_owned()))
                .collect(),
        }
    }

    /// The numbers of its events.
    pub(super) fn numbers(&self) -> Vec<i64> {
        let count = i64::try_from(self.events.len()).unwrap_or(i64::MAX);
        (self.last - count + 1..=self.last).collect()
    }

    /// When its first event was made.
    pub(super) fn made_at(&self) -> Option<Timestamp> {
        let event: Event = serde_json::from_str(self.events.first()?).ok()?;
        Some(event.at)
    }
}

/// The number of the last event in the entry of that name.
pub(super) fn last_of(id: &str) -> Option<i64> {
    id.split_once('-')?.0.parse().ok()
}

fn written_out(header: Option<&Header>, line: &str) -> Option<String> {
    if !line.starts_with('[') {
        return None;
    }
    let header = header?;
    let (sequence, change) = if let Ok(short) = serde_json::from_str::<Reserved>(line) {
        let reservation = header.reservation(short.1, short.0, short.1, short.2, short.3)?;
        let change = Change::Reserved {
            reservation,
            key: short.4,
            body: short.5,
            jti: short.6,
        };
        (short.0, change)
    } else {
        let short: ReservedAgain = serde_json::from_str(line).ok()?;
        let reservation = header.reservation(short.4, short.0, short.1, short.2, short.3)?;
        let payment = short.5;
        let change = Change::ReservedAgain {
            reservation,
            payment,
        };
        (short.0, change)
    };
    let event = Event {
        promo: PromoId(header.0),
        generation: Generation(header.1),
        sequence: Sequence(sequence),
        at: Timestamp(header.5),
        change,
    };
    serde_json::to_string(&event).ok()
}

impl Header {
    fn reservation(
        &self,
        order: i64,
        sequence: i64,
        number: i64,
        buyer: i64,
        amount: u32,
    ) -> Option<Reservation> {
        Some(Reservation {
            order: OrderId {
                promo: PromoId(self.0),
                generation: Generation(self.1),
                number: ReservationNumber(order),
            },
            number: ReservationNumber(number),
            buyer: BuyerId(buyer),
            item: ItemId(self.2),
            amount,
            price: Money::from_minor(self.3)?,
            made_at: Timestamp(self.5),
            pay_within: Millis::new(self.4),
            sequence: Sequence(sequence),
        })
    }
}
