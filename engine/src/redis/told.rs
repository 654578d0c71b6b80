//! What the scripts answer, read. An answer that cannot be read is our fault, not the buyer's.

use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{
    BuyerId, Generation, ItemId, Millis, Money, OrderId, PromoId, ReservationNumber, Sequence,
    SoldEpoch, Timestamp,
};
use redis::Value;

use crate::{EngineError, Reservation, Reserve, Reserved, Result};

/// An answer's parts, in order.
pub(super) struct Parts<'a> {
    parts: std::str::Split<'a, char>,
    whole: &'a str,
}

/// An answer that means no: `E|refusal|detail`. Anything else is left to the caller.
pub(super) fn refused(answer: &str) -> Result<&str> {
    let Some(told) = answer.strip_prefix("E|") else {
        return Ok(answer);
    };
    let (name, detail) = told.split_once('|').unwrap_or((told, ""));
    Err(match name {
        "not_open" => Refusal::NotOpen {
            opens_in_s: detail.parse().ok(),
        },
        "paused" => Refusal::Paused,
        "sold_out" => Refusal::SoldOut,
        "per_buyer" => Refusal::PerBuyerLimit,
        "door_full" => Refusal::DoorFull,
        "challenge_failed" => Refusal::ChallengeFailed,
        "token_invalid" => Refusal::TokenInvalid,
        "key_reused" => Refusal::KeyReused,
        "not_found" => Refusal::NotFound,
        "not_allowed" => Refusal::NotAllowed,
        "overloaded" => Refusal::Overloaded,
        "bad" => Refusal::BadParameter(detail.to_owned()),
        _ => return Err(odd(answer)),
    }
    .into())
}

/// An answer that makes no sense.
pub(super) fn odd(answer: &str) -> EngineError {
    tracing::error!(answer, "Redis answered what cannot be read");
    EngineError::Unavailable("Redis answered what cannot be read".to_owned())
}

impl<'a> Parts<'a> {
    /// The parts of `answer`, the first of which must be `kind`.
    pub(super) fn of(answer: &'a str, kind: &str) -> Result<Self> {
        let mut parts = Self::all(answer);
        if parts.text()? == kind {
            return Ok(parts);
        }
        Err(odd(answer))
    }

    /// All parts of `answer`.
    fn all(answer: &'a str) -> Self {
        Self {
            parts: answer.split('|'),
            whole: answer,
        }
    }

    /// The next part as it is.
    pub(super) fn text(&mut self) -> Result<&'a str> {
        self.parts.next().ok_or_else(|| odd(self.whole))
    }

    /// The next part, read.
    pub(super) fn read<T: std::str::FromStr>(&mut self) -> Result<T> {
        self.text()?.parse().map_err(|_| odd(self.whole))
    }

    /// Whether the next part is 1.
    pub(super) fn flag(&mut self) -> Result<bool> {
        Ok(self.text()? == "1")
    }
}

/// The parts of a reservation of `promo`, in the order that the prelude says.
pub(super) fn reservation(parts: &mut Parts<'_>, promo: PromoId) -> Result<Reservation> {
    let generation = Generation(parts.read()?);
    let number = ReservationNumber(parts.read()?);
    let order = OrderId {
        promo,
        generation,
        number: ReservationNumber(parts.read()?),
    };
    Ok(Reservation {
        order,
        number,
        buyer: BuyerId(parts.read()?),
        item: ItemId(parts.read()?),
        amount: parts.read()?,
        price: money(parts)?,
        made_at: Timestamp(parts.read()?),
        pay_within: Millis::new(parts.read()?),
        sequence: Sequence(parts.read()?),
    })
}

/// What all that one call reserved has in common.
pub(super) struct Reservations {
    generation: Generation,
    price: Money,
    pay_within: Millis,
    made_at: Timestamp,
    /// How far the number of a change is ahead of the number of its reservation.
    ahead: i64,
    sold_out: bool,
    sold_epoch: SoldEpoch,
}

impl Reservations {
    /// Reads the answer to a call: what is common, and the answers to its requests.
    pub(super) fn read(mut answers: Vec<Value>) -> Result<(Self, Vec<Value>)> {
        if answers.is_empty() {
            return Err(odd("nothing"));
        }
        let rest = answers.split_off(1);
        let Some(Value::BulkString(common)) = answers.first() else {
            return Err(odd(&format!("{answers:?}")));
        };
        let common = String::from_utf8_lossy(common);
        // A promo that was never published: everything is refused, and nothing else is said.
        let mut parts = Parts::all(if common.is_empty() {
            "0|0|0|0|0|0|0"
        } else {
            &common
        });
        let common = Self {
            generation: Generation(parts.read()?),
            price: money(&mut parts)?,
            pay_within: Millis::new(parts.read()?),
            made_at: Timestamp(parts.read()?),
            ahead: parts.read()?,
            sold_out: parts.flag()?,
            sold_epoch: SoldEpoch(parts.read()?),
        };
        Ok((common, rest))
    }

    /// The answer to a request.
    pub(super) fn reserved(&self, request: &Reserve, answer: &Value) -> Result<Reserved> {
        let access = &request.access;
        let (reservation, repeated) = match answer {
            Value::Int(number) => {
                let reservation = Reservation {
                    order: OrderId {
                        promo: access.promo,
                        generation: self.generation,
                        number: ReservationNumber(*number),
                    },
                    number: ReservationNumber(*number),
                    buyer: access.buyer,
                    item: access.item,
                    amount: request.amount,
                    price: self.price,
                    made_at: self.made_at,
                    pay_within: self.pay_within,
                    sequence: Sequence(number.saturating_add(self.ahead)),
                };
                (reservation, false)
            }
            Value::BulkString(answer) => {
                let answer = String::from_utf8_lossy(answer);
                let mut parts = Parts::of(refused(&answer)?, "R")?;
                (reservation(&mut parts, access.promo)?, true)
            }
            _ => return Err(odd(&format!("{answer:?}"))),
        };
        Ok(Reserved {
            reservation,
            repeated,
            sold_out: self.sold_out,
            sold_epoch: self.sold_epoch,
        })
    }
}

fn money(parts: &mut Parts<'_>) -> Result<Money> {
    Money::from_minor(parts.read()?).ok_or_else(|| odd(parts.whole))
}
