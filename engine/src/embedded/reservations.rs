//! The rows of reservations: how they are found by number, idempotency key, token or payment.

use lua_free_rules::units::{
    BuyerId, Generation, ItemId, Nonce, OrderId, PromoId, ReservationNumber, Sequence, Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, Params, params};

use super::commit::StepResult;
use super::promos::{millis, price};
use crate::{Reservation, Reserve};

/// A reservation as it is kept.
pub(super) struct Kept {
    /// What callers see of it.
    pub(super) reservation: Reservation,
    /// Whether its units went back.
    pub(super) is_released: bool,
    /// What was asked under its key, while that is remembered.
    pub(super) body: Option<String>,
}

/// What a reservation was made for.
pub(super) enum Origin<'a> {
    /// A request with a token: the first reservation of an order.
    Request(&'a Reserve),
    /// A payment that came late.
    Payment(&'a str),
}

macro_rules! select {
    ($condition:literal) => {
        concat!(
            "SELECT promo, generation, number, order_number, buyer, item, amount, price, made_at, \
             pay_within, sequence, is_released, body FROM reservations WHERE ",
            $condition
        )
    };
}

/// The reservation of that number, if it is the order's.
pub(super) fn find(
    db: &Connection,
    order: OrderId,
    number: ReservationNumber,
) -> StepResult<Option<Kept>> {
    one(
        db,
        select!("promo = ?1 AND generation = ?2 AND number = ?3 AND order_number = ?4"),
        [order.promo.0, order.generation.0, number.0, order.number.0],
    )
}

/// The order that was made under an idempotency key.
pub(super) fn by_key(
    db: &Connection,
    promo: PromoId,
    buyer: BuyerId,
    key: &str,
) -> StepResult<Option<Kept>> {
    one(
        db,
        select!("promo = ?1 AND buyer = ?2 AND key = ?3"),
        params![promo.0, buyer.0, key],
    )
}

/// The order that was made with a token.
pub(super) fn by_token(
    db: &Connection,
    promo: PromoId,
    buyer: BuyerId,
    jti: Nonce,
) -> StepResult<Option<Kept>> {
    one(
        db,
        select!("promo = ?1 AND buyer = ?2 AND jti = ?3"),
        params![promo.0, buyer.0, jti.0],
    )
}

/// The reservation that a late payment asked for.
pub(super) fn by_payment(
    db: &Connection,
    order: OrderId,
    payment: &str,
) -> StepResult<Option<Kept>> {
    one(
        db,
        select!("promo = ?1 AND generation = ?2 AND order_number = ?3 AND payment = ?4"),
        params![order.promo.0, order.generation.0, order.number.0, payment],
    )
}

/// Whether any reservation that a late payment asked for still holds the order's units.
pub(super) fn is_held_again(db: &Connection, order: OrderId) -> StepResult<bool> {
    let mut statement = db.prepare_cached(
        "SELECT 1 FROM reservations WHERE promo = ?1 AND generation = ?2 AND order_number = ?3
             AND payment IS NOT NULL AND is_released = 0",
    )?;
    Ok(statement.exists([order.promo.0, order.generation.0, order.number.0])?)
}

/// Keeps a new reservation.
pub(super) fn insert(
    db: &Connection,
    reservation: &Reservation,
    origin: &Origin<'_>,
) -> StepResult<()> {
    let (request, payment) = match origin {
        Origin::Request(request) => (Some(*request), None),
        Origin::Payment(payment) => (None, Some(*payment)),
    };
    db.prepare_cached(
        "INSERT INTO reservations (promo, generation, number, order_number, buyer, item, amount,
             price, made_at, pay_within, sequence, is_released, key, body, jti, payment)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0, ?12, ?13, ?14, ?15)",
    )?
    .execute(params![
        reservation.order.promo.0,
        reservation.order.generation.0,
        reservation.number.0,
        reservation.order.number.0,
        reservation.buyer.0,
        reservation.item.0,
        reservation.amount,
        reservation.price.minor(),
        reservation.made_at.0,
        reservation.pay_within.ms(),
        reservation.sequence.0,
        request.map(|request| &request.key),
        request.map(|request| &request.body),
        request.map(|request| request.access.jti.0),
        payment,
    ])?;
    Ok(())
}

/// Marks a reservation's units as gone back.
pub(super) fn mark_released(db: &Connection, reservation: &Reservation) -> StepResult<()> {
    db.prepare_cached(
        "UPDATE reservations SET is_released = 1
         WHERE promo = ?1 AND generation = ?2 AND number = ?3",
    )?
    .execute([
        reservation.order.promo.0,
        reservation.order.generation.0,
        reservation.number.0,
    ])?;
    Ok(())
}

fn one(db: &Connection, sql: &str, params: impl Params) -> StepResult<Option<Kept>> {
    Ok(db.prepare_cached(sql)?.query_row(params, read).optional()?)
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Kept> {
    let order = OrderId {
        promo: PromoId(row.get(0)?),
        generation: Generation(row.get(1)?),
        number: ReservationNumber(row.get(3)?),
    };
    Ok(Kept {
        reservation: Reservation {
            order,
            number: ReservationNumber(row.get(2)?),
            buyer: BuyerId(row.get(4)?),
            item: ItemId(row.get(5)?),
            amount: row.get(6)?,
            price: price(row, 7)?,
            made_at: Timestamp(row.get(8)?),
            pay_within: millis(row, 9)?,
            sequence: Sequence(row.get(10)?),
        },
        is_released: row.get(11)?,
        body: row.get(12)?,
    })
}
