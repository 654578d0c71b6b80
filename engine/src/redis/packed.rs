//! An entry of the stream, unpacked. Its name is `<number of the last event>-<how many events>`; its field
//! `e` holds an event a line. Reservations are written short, as [`Line`]s, and what they have in common is
//! in the field `h`; every other event is written out in JSON. A line that cannot be read is handed on as
//! it is, so that it is set aside and not lost.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

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

/// What the reservations of an entry have in common: promo, generation, item, price in minor units, pay
/// within in ms, made at, number of the first one, and how far the numbers of their changes are ahead of
/// theirs. The others follow without a gap.
#[derive(Deserialize)]
struct Header(i64, i64, i64, i64, u64, i64, i64, i64);

/// What was reserved for whom, and why: five parts with tabs between, the texts in JSON, which has no raw
/// tab or line break. Redis keeps it with the buyer as it stands in the stream.
pub(super) struct Line<'a> {
    /// Who.
    pub(super) buyer: BuyerId,
    /// How many.
    pub(super) amount: u32,
    /// What for.
    pub(super) cause: Cause<'a>,
}

/// Why units were reserved.
pub(super) enum Cause<'a> {
    /// A request: token, key, digest.
    Request(Nonce, Cow<'a, str>, Cow<'a, str>),
    /// A payment that came late, and the order it is for.
    Payment(Cow<'a, str>, ReservationNumber),
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{}\t", self.buyer, self.amount)?;
        match &self.cause {
            Cause::Request(jti, key, body) => write!(f, "{jti}\t{}\t{}", json(key), json(body)),
            Cause::Payment(payment, order) => write!(f, "\t{}\t{}", json(payment), order.0),
        }
    }
}

impl Line<'_> {
    fn read(line: &str) -> Option<Self> {
        let mut parts = line.split('\t');
        let mut next = || parts.next();
        let (buyer, amount, jti, key, body) = (next()?, next()?, next()?, next()?, next()?);
        let text = |part| serde_json::from_str::<String>(part).ok().map(Cow::Owned);
        let cause = if jti.is_empty() {
            Cause::Payment(text(key)?, ReservationNumber(body.parse().ok()?))
        } else {
            Cause::Request(jti.parse().ok()?, text(key)?, text(body)?)
        };
        parts.next().is_none().then_some(Self {
            buyer: BuyerId(buyer.parse().ok()?),
            amount: amount.parse().ok()?,
            cause,
        })
    }
}

/// A text in JSON: without a raw tab or line break, and as it stands in an event.
pub(super) fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Packed {
    /// Reads an entry. One that was deleted has no fields, and no events.
    pub(super) fn read(id: &str, fields: &Value) -> Self {
        let fields: HashMap<String, String> =
            redis::from_redis_value(fields.clone()).unwrap_or_default();
        let header = fields.get("h").map_or("", String::as_str);
        let lines = fields.get("e").map_or("", String::as_str);
        let header: Option<Header> = serde_json::from_str(header).ok();
        let lines = lines.split('\n').filter(|line| !line.is_empty());
        let event = |(index, line): (usize, &str)| {
            let event = header
                .as_ref()
                .and_then(|header| header.event(i64::try_from(index).ok()?, Line::read(line)?));
            let written = event.and_then(|event| serde_json::to_string(&event).ok());
            written.unwrap_or_else(|| line.to_owned())
        };
        Self {
            last: last_of(id).unwrap_or_default(),
            events: lines.enumerate().map(event).collect(),
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

impl Header {
    /// The event of the line at `index`.
    fn event(&self, index: i64, line: Line<'_>) -> Option<Event> {
        let number = self.6.checked_add(index)?;
        let sequence = Sequence(number.checked_add(self.7)?);
        let order = match line.cause {
            Cause::Request(..) => ReservationNumber(number),
            Cause::Payment(_, order) => order,
        };
        let reservation = Reservation {
            order: OrderId {
                promo: PromoId(self.0),
                generation: Generation(self.1),
                number: order,
            },
            number: ReservationNumber(number),
            buyer: line.buyer,
            item: ItemId(self.2),
            amount: line.amount,
            price: Money::from_minor(self.3)?,
            made_at: Timestamp(self.5),
            pay_within: Millis::new(self.4),
            sequence,
        };
        Some(Event {
            promo: PromoId(self.0),
            generation: Generation(self.1),
            sequence,
            at: Timestamp(self.5),
            change: match line.cause {
                Cause::Request(jti, key, body) => Change::Reserved {
                    reservation,
                    key: key.into_owned(),
                    body: body.into_owned(),
                    jti,
                },
                Cause::Payment(payment, _) => Change::ReservedAgain {
                    reservation,
                    payment: payment.into_owned(),
                },
            },
        })
    }
}
