//! What the scripts answer, read. An answer that cannot be read is our fault, not the buyer's.

use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{
    BuyerId, Generation, ItemId, Millis, Money, OrderId, PromoId, ReservationNumber, Sequence,
    SoldEpoch, Timestamp,
};

use crate::{EngineError, Reservation, Reserved, Result};

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
        let mut parts = answer.split('|');
        if parts.next() == Some(kind) {
            return Ok(Self {
                parts,
                whole: answer,
            });
        }
        Err(odd(answer))
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

/// `generation|number|<record>`: a reservation of `promo`.
pub(super) fn reservation(parts: &mut Parts<'_>, promo: PromoId) -> Result<Reservation> {
    let generation = Generation(parts.read()?);
    let number = ReservationNumber(parts.read()?);
    let order = OrderId {
        promo,
        generation,
        number: ReservationNumber(parts.read()?),
    };
    let reservation = Reservation {
        order,
        number,
        buyer: BuyerId(parts.read()?),
        item: ItemId(parts.read()?),
        amount: parts.read()?,
        price: money(parts)?,
        made_at: Timestamp(parts.read()?),
        pay_within: Millis::new(parts.read()?),
        sequence: Sequence(parts.read()?),
    };
    // Whether it was released.
    parts.text()?;
    Ok(reservation)
}

/// The answer to a request to reserve.
pub(super) fn reserved(answer: &str, promo: PromoId) -> Result<Reserved> {
    let mut parts = Parts::of(refused(answer)?, "R")?;
    Ok(Reserved {
        reservation: reservation(&mut parts, promo)?,
        repeated: parts.flag()?,
        sold_out: parts.flag()?,
        sold_epoch: SoldEpoch(parts.read()?),
    })
}

fn money(parts: &mut Parts<'_>) -> Result<Money> {
    Money::from_minor(parts.read()?).ok_or_else(|| odd(parts.whole))
}
