//! `/order/…`: create, look up, pay, cancel. Buyers see and move their own orders only.

use engine::Reservation;
use lua_free_rules::order::State;
use lua_free_rules::purchase::Purchase;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::Session;
use lua_free_rules::units::{ItemId, Money, OrderId, PromoId, Timestamp};
use serde::Serialize;
use serde_json::json;

use super::{Call, SOLD_OUT};
use crate::answer::Reply;
use crate::error::{BackendError, Result};
use crate::ledger::Order;
use crate::ledger::PaymentState;
use crate::payment::order_id;
use crate::promos::signal;

/// Most orders one list shows.
const LIST_MAX: u32 = 100;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderAnswer {
    order_id: OrderId,
    item_id: ItemId,
    promo_id: PromoId,
    amount: u32,
    unit_price: Money,
    total: String,
    state: State,
    created_at: Timestamp,
    /// Known once the order is written.
    pay_by: Option<Timestamp>,
}

impl From<&Order> for OrderAnswer {
    fn from(order: &Order) -> Self {
        Self {
            order_id: order.id,
            item_id: order.item,
            promo_id: order.id.promo,
            amount: order.amount,
            unit_price: order.unit_price,
            total: order.total().to_string(),
            state: order.state,
            created_at: order.created_at,
            pay_by: Some(order.pay_by),
        }
    }
}

impl From<&Reservation> for OrderAnswer {
    fn from(made: &Reservation) -> Self {
        Self {
            order_id: made.order,
            item_id: made.item,
            promo_id: made.order.promo,
            amount: made.amount,
            unit_price: made.price,
            total: made.price.times(made.amount).to_string(),
            state: State::Reserved,
            created_at: made.made_at,
            pay_by: None,
        }
    }
}

pub async fn create(call: Call) -> Result<Reply> {
    let session = call.session()?;
    let fields = call.fields()?;
    let key = call
        .headers
        .get("idempotency-key")
        .map(|value| value.as_bytes());
    let purchase = Purchase::read(&fields, key)?;
    match call.shop.reservations.make(session, &purchase).await {
        Ok(reserved) => {
            let outcome = if reserved.repeated {
                "repeated"
            } else {
                "made"
            };
            call.shop.metrics.reservation(purchase.promo, outcome);
            let order = reserved.reservation.order;
            let (generation, epoch) = (order.generation.0, reserved.sold_epoch.0);
            let reply = Reply::ok(&json!({ "orderId": order }))?.accepted();
            if reserved.repeated {
                // The order may be of an earlier generation than the epoch.
                return Ok(reply);
            }
            let signal = signal(order.promo, generation, epoch, reserved.sold_out);
            Ok(reply.header(SOLD_OUT, &signal))
        }
        Err(error) => Err(refused(&call, purchase.promo, error).await),
    }
}

/// Counts a refusal. One for being sold out tells the edges too. Only promos that the engine has
/// spoken about are counted by name: others may have been made up.
async fn refused(call: &Call, promo: PromoId, error: BackendError) -> BackendError {
    let refusal = error.refusal();
    // A request that is shed costs the engine nothing.
    if call.shop.promos.is_known(promo) {
        call.shop.metrics.reservation(promo, refusal.name());
    }
    if refusal != Refusal::SoldOut {
        return error;
    }
    let signal = call.shop.promos.sold_out_signal(promo).await;
    BackendError::SoldOut { signal }
}

pub async fn get(call: Call) -> Result<Reply> {
    let session = call.live_session().await?;
    let id = queried_id(&call)?;
    if let Some(order) = call.shop.ledger.order(id).await? {
        return Reply::ok(&OrderAnswer::from(&own(order, session)?));
    }
    let made = reservation_of(&call, id, session).await?;
    // It may have been written between the two looks.
    match call.shop.ledger.order(id).await? {
        Some(order) => Reply::ok(&OrderAnswer::from(&order)),
        None => Reply::ok(&OrderAnswer::from(&made)),
    }
}

pub async fn list(call: Call) -> Result<Reply> {
    let session = call.live_session().await?;
    let orders = call.shop.ledger.orders_of(session.buyer, LIST_MAX).await?;
    let answers: Vec<OrderAnswer> = orders.iter().map(OrderAnswer::from).collect();
    Reply::ok(&answers)
}

pub async fn pay(call: Call) -> Result<Reply> {
    let session = call.live_session().await?;
    let id = order_id(&call.fields()?)?;
    let provider = call.shop.payments.button().ok_or(Refusal::NotAllowed)?;
    let order = written(&call, id, session).await?;
    match order.state {
        State::Paid => return Reply::ok(&OrderAnswer::from(&order)),
        State::Written if call.now < order.pay_by => {}
        // Its time has passed and the sweeper has not come by yet.
        State::Written => {
            let state = State::Expired;
            return Err(Order { state, ..order }.in_other_state().into());
        }
        _ => return Err(order.in_other_state().into()),
    }
    let notice = provider.charge(&order).await?;
    let payment = call
        .shop
        .payments
        .receive(provider.as_ref(), &notice)
        .await?;
    let reply = Reply::ok(&OrderAnswer::from(&payment.order))?;
    // Its time ran out meanwhile, and whether there are units left is not known yet.
    let is_open = payment.state == PaymentState::Late;
    Ok(if is_open { reply.accepted() } else { reply })
}

pub async fn cancel(call: Call) -> Result<Reply> {
    let session = call.live_session().await?;
    let id = order_id(&call.fields()?)?;
    written(&call, id, session).await?;
    let order = call.shop.ledger.cancel(id, session.buyer, call.now).await?;
    Reply::ok(&OrderAnswer::from(&order))
}

/// The buyer's order, written.
async fn written(call: &Call, id: OrderId, session: Session) -> Result<Order> {
    match call.shop.ledger.order(id).await? {
        Some(order) => own(order, session),
        None => {
            reservation_of(call, id, session).await?;
            Err(not_yet_written().into())
        }
    }
}

/// The buyer's reservation, which the ledger does not have yet.
async fn reservation_of(call: &Call, id: OrderId, session: Session) -> Result<Reservation> {
    let made = call.shop.engine.reservation(id).await?;
    let own = made.filter(|made| made.buyer == session.buyer);
    Ok(own.ok_or(Refusal::NotFound)?)
}

/// Others' orders are not there.
fn own(order: Order, session: Session) -> Result<Order> {
    if order.buyer == session.buyer {
        Ok(order)
    } else {
        Err(Refusal::NotFound.into())
    }
}

/// The refusal for an order that the ledger does not have yet.
pub const fn not_yet_written() -> Refusal {
    Refusal::OrderState {
        state: State::Reserved.name(),
        not_yet_written: true,
    }
}

/// The order that a query names.
fn queried_id(call: &Call) -> Result<OrderId> {
    let fields = call.query()?;
    let text = fields.text("id", 64)?;
    text.parse()
        .map_err(|_| Refusal::BadParameter("`id` is not an order's id".to_owned()).into())
}
