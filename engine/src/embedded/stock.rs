//! Stock: reserving, reserving again for a late payment, and releasing, each with its event in the
//! same step.

use lua_free_rules::admission::in_window;
use lua_free_rules::promo::Status;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::OrderId;

use super::holdings::{self, Holding, Owner, Place};
use super::promos::{self, Row};
use super::reservations::{self, Kept, Origin};
use super::sessions;
use super::step::{Step, StepError, StepResult};
use crate::bounds;
use crate::{Change, Release, Reservation, Reserve, Reserved};

/// Reserves units and stores the order event.
pub(super) fn reserve(step: &mut Step<'_>, request: &Reserve) -> StepResult<Reserved> {
    bounds::check_request(request)?;
    sessions::check(step, request.session)?;
    let access = &request.access;
    if request.session.buyer != access.buyer {
        return Err(Refusal::TokenInvalid.into());
    }
    let row = promos::current(step.db, access.promo)?;
    if let Some(earlier) = earlier(step, request)? {
        return repeated(earlier, row.as_ref());
    }
    let mut row = row.ok_or(Refusal::NotFound)?;
    let owner = Owner {
        promo: access.promo,
        generation: row.snapshot.generation,
        buyer: access.buyer,
    };
    let mut holding = holdings::load(step.db, owner)?;
    allow(step, request, &row, &holding)?;

    // From here on nothing is refused.
    hold(&mut holding, request.amount)?;
    holding.move_to(Place::Used(None), &mut row.snapshot)?;
    holdings::save(step.db, owner, &holding)?;
    let number = row.next_number();
    let terms = &row.snapshot.terms;
    let reservation = Reservation {
        order: OrderId {
            promo: owner.promo,
            generation: owner.generation,
            number,
        },
        number,
        buyer: owner.buyer,
        item: terms.item,
        amount: request.amount,
        price: terms.price,
        made_at: step.now,
        pay_within: terms.pay_within,
        sequence: row.next_sequence(),
    };
    reservations::insert(step.db, &reservation, &Origin::Request(request))?;
    let made = Change::Reserved {
        reservation,
        key: request.key.clone(),
        body: request.body.clone(),
        jti: access.jti,
    };
    promos::change(step, &mut row, made)?;
    Ok(Reserved {
        reservation,
        repeated: false,
        sold_out: row.snapshot.sold_out,
        sold_epoch: row.snapshot.sold_epoch,
    })
}

/// The order that was made before under this key or with this token.
fn earlier(step: &Step<'_>, request: &Reserve) -> StepResult<Option<Kept>> {
    let (promo, buyer) = (request.access.promo, request.access.buyer);
    if let Some(kept) = reservations::by_key(step.db, promo, buyer, &request.key)? {
        if kept.body.as_deref() != Some(request.body.as_str()) {
            return Err(Refusal::KeyReused.into());
        }
        return Ok(Some(kept));
    }
    reservations::by_token(step.db, promo, buyer, request.access.jti)
}

fn repeated(kept: Kept, row: Option<&Row>) -> StepResult<Reserved> {
    let promo = &row
        .ok_or_else(|| StepError::Broken("an order's promo is missing".to_owned()))?
        .snapshot;
    Ok(Reserved {
        reservation: kept.reservation,
        repeated: true,
        sold_out: promo.sold_out,
        sold_epoch: promo.sold_epoch,
    })
}

/// Whether a new reservation may be made.
fn allow(step: &Step<'_>, request: &Reserve, row: &Row, holding: &Holding) -> StepResult<()> {
    let (access, promo) = (&request.access, &row.snapshot);
    if access.generation != promo.generation || access.item != promo.terms.item {
        return Err(Refusal::TokenInvalid.into());
    }
    if promo.status == Status::Rebuilding {
        return Err(Refusal::Overloaded.into());
    }
    in_window(promo, step.now)?;
    let is_good = holding
        .place
        .grant()
        .is_some_and(|grant| grant.jti == access.jti && !grant.is_over(step.now));
    if !is_good || access.is_expired(step.now) {
        return Err(Refusal::TokenInvalid.into());
    }
    if request.amount == 0 {
        return Err(Refusal::BadParameter("amount must be at least 1".to_owned()).into());
    }
    if promo.terms.per_buyer.saturating_sub(holding.held) < request.amount {
        return Err(Refusal::PerBuyerLimit.into());
    }
    match promo.available {
        0 => Err(Refusal::SoldOut.into()),
        left if left < request.amount => {
            Err(Refusal::BadParameter(format!("only {left} left: ask for fewer")).into())
        }
        _ if step.level.entries >= step.level.max => Err(Refusal::Overloaded.into()),
        _ => Ok(()),
    }
}

/// Reserves again for an order whose payment came late.
pub(super) fn reserve_again(
    step: &mut Step<'_>,
    order: OrderId,
    payment: &str,
) -> StepResult<Reservation> {
    bounds::check_payment(payment)?;
    let first = reservations::find(step.db, order, order.number)?.ok_or(Refusal::NotFound)?;
    if let Some(kept) = reservations::by_payment(step.db, order, payment)? {
        return Ok(kept.reservation);
    }
    if !first.is_released || reservations::is_held_again(step.db, order)? {
        return Err(Refusal::NotAllowed.into());
    }
    let mut row = row_of(step, order)?;
    let owner = owner_of(&first.reservation);
    let amount = first.reservation.amount;
    let mut holding = holdings::load(step.db, owner)?;
    // What a closed promo or an earlier publishing did not sell went back to the shop, and may have
    // been published again.
    let is_over = !row.is_current || row.snapshot.status == Status::Closed;
    if is_over || row.snapshot.available < amount {
        return Err(Refusal::SoldOut.into());
    }
    if row.snapshot.terms.per_buyer.saturating_sub(holding.held) < amount {
        return Err(Refusal::PerBuyerLimit.into());
    }

    // From here on nothing is refused.
    hold(&mut holding, amount)?;
    holdings::save(step.db, owner, &holding)?;
    let reservation = Reservation {
        number: row.next_number(),
        made_at: step.now,
        sequence: row.next_sequence(),
        ..first.reservation
    };
    reservations::insert(step.db, &reservation, &Origin::Payment(payment))?;
    let payment = payment.to_owned();
    let change = Change::ReservedAgain {
        reservation,
        payment,
    };
    promos::change(step, &mut row, change)?;
    Ok(reservation)
}

/// Gives the units of a reservation back. Returns whether this call did.
pub(super) fn release(step: &mut Step<'_>, release: Release) -> StepResult<bool> {
    let kept =
        reservations::find(step.db, release.order, release.number)?.ok_or(Refusal::NotFound)?;
    if kept.is_released {
        return Ok(false);
    }
    let amount = kept.reservation.amount;
    let mut row = row_of(step, release.order)?;
    let owner = owner_of(&kept.reservation);
    let mut holding = holdings::load(step.db, owner)?;
    holding.held = holding
        .held
        .checked_sub(amount)
        .ok_or_else(|| StepError::Broken("a buyer holds less than he ordered".to_owned()))?;
    if holding.held == 0
        && let Place::Used(next) = holding.place
    {
        // Nothing was bought with the place: it goes back, unless a token still stands on it.
        let place = next
            .filter(|grant| !grant.is_over(step.now))
            .map_or(Place::None, Place::Issued);
        holding.move_to(place, &mut row.snapshot)?;
    }
    holdings::save(step.db, owner, &holding)?;
    reservations::mark_released(step.db, &kept.reservation)?;
    promos::change(step, &mut row, Change::Released { release, amount })?;
    Ok(true)
}

/// The first reservation of an order.
pub(super) fn reservation(
    db: &rusqlite::Connection,
    order: OrderId,
) -> StepResult<Option<Reservation>> {
    let kept = reservations::find(db, order, order.number)?;
    Ok(kept.map(|kept| kept.reservation))
}

fn row_of(step: &Step<'_>, order: OrderId) -> StepResult<Row> {
    promos::generation(step.db, order.promo, order.generation)?
        .ok_or_else(|| StepError::Broken(format!("order {order} has no promo")))
}

const fn owner_of(reservation: &Reservation) -> Owner {
    Owner {
        promo: reservation.order.promo,
        generation: reservation.order.generation,
        buyer: reservation.buyer,
    }
}

fn hold(holding: &mut Holding, amount: u32) -> StepResult<()> {
    holding.held = holding
        .held
        .checked_add(amount)
        .ok_or_else(|| StepError::Broken("a buyer holds too much".to_owned()))?;
    Ok(())
}
