//! Payments. What was received is recorded first; what becomes of the order, its row decides.
//!
//! At most one payment of an order is `late` at a time: a second one is to be refunded, so the
//! engine is never asked twice for the same order.

use lua_free_rules::order::State;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{Money, OrderId, Timestamp};

use super::Ledger;
use super::connection::Tx;
use super::orders::{Order, end_order, order_in, read_order_id};
use super::retry::retried;
use crate::error::{BackendError, Result};

/// What has become of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentState {
    /// It paid the order.
    Accepted,
    /// It came after the order had ended; the engine decides whether there are units left.
    Late,
    /// The money goes back.
    RefundDue,
}

impl PaymentState {
    /// The name in JSON and in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Late => "late",
            Self::RefundDue => "refund_due",
        }
    }

    fn from_name(name: &str) -> Result<Self> {
        [Self::Accepted, Self::Late, Self::RefundDue]
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| BackendError::Unexpected(format!("`{name}` is not a payment's state")))
    }
}

/// A payment that was recorded, and its order after that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// What has become of it.
    pub state: PaymentState,
    /// The order it is for.
    pub order: Order,
}

/// A late payment that is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatePayment {
    /// `provider:id`.
    pub reference: String,
    /// The order it is for.
    pub order: OrderId,
}

impl Ledger {
    /// Records a payment and, if it is in time, marks the order paid: one transaction. One of another
    /// amount than the order's total is to be refunded, and leaves the order as it is. Recording a
    /// payment again tells what became of it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if the order is not written, [`Refusal::BadParameter`] if the reference
    /// was used for another order or amount.
    pub async fn receive_payment(
        &self,
        reference: &str,
        id: OrderId,
        amount: Money,
        now: Timestamp,
    ) -> Result<Payment> {
        retried(|| async {
            let mut tx = self.begin().await?;
            // Its lock makes payments of one order come one after the other.
            let order = order_in(&mut tx, id).await?.ok_or(Refusal::NotFound)?;
            if let Some(state) = recorded(&mut tx, reference, id, amount).await? {
                return Ok(Payment { state, order });
            }
            let state = if order.total() == amount {
                decide(&mut tx, &order, now).await?
            } else {
                PaymentState::RefundDue
            };
            tx.query(
                "INSERT INTO payments (reference, order_id, amount, state, received_at) \
                 VALUES (?, ?, ?, ?, ?)",
            )
            .bind(reference)
            .bind(id.to_string())
            .bind(amount.minor())
            .bind(state.name())
            .bind(now.0)
            .execute()
            .await?;
            let order = order_in(&mut tx, id).await?.ok_or(Refusal::NotFound)?;
            tx.commit().await?;
            Ok(Payment { state, order })
        })
        .await
    }

    /// Up to `max` late payments that are not settled, those tried longest ago first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn late_payments(&self, max: u32) -> Result<Vec<LatePayment>> {
        self.read(
            "SELECT reference, order_id FROM payments WHERE state = 'late' \
             ORDER BY tried_at LIMIT ?",
        )
        .await?
        .bind(max)
        .fetch_all()
        .await?
        .iter()
        .map(|row| {
            Ok(LatePayment {
                reference: row.get("reference")?,
                order: read_order_id(row.get("order_id")?)?,
            })
        })
        .collect()
    }

    /// Notes that a late payment was tried, so that others come first next time.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn note_late_try(&self, reference: &str, now: Timestamp) -> Result<()> {
        self.write("UPDATE payments SET tried_at = ? WHERE reference = ?")
            .await?
            .bind(now.0)
            .bind(reference)
            .execute()
            .await?;
        Ok(())
    }

    /// The engine has no units for a late payment: the money goes back.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn refuse_late(&self, late: &LatePayment, now: Timestamp) -> Result<()> {
        retried(|| async {
            let mut tx = self.begin().await?;
            order_in(&mut tx, late.order).await?;
            let refused = tx
                .query(
                    "UPDATE payments SET state = 'refund_due', tried_at = ? \
                     WHERE reference = ? AND state = 'late'",
                )
                .bind(now.0)
                .bind(&late.reference)
                .execute()
                .await?;
            if refused.rows == 1 {
                tx.query(
                    "UPDATE orders SET state = 'refund_due' \
                     WHERE id = ? AND state IN ('cancelled', 'expired')",
                )
                .bind(late.order.to_string())
                .execute()
                .await?;
            }
            tx.commit().await
        })
        .await
    }
}

/// What a new payment means for its order, which is changed accordingly.
async fn decide(tx: &mut Tx, order: &Order, now: Timestamp) -> Result<PaymentState> {
    let paid = tx
        .query(
            "UPDATE orders SET state = 'paid', paid_at = ? \
         WHERE id = ? AND state = 'written' AND pay_by > ?",
        )
        .bind(now.0)
        .bind(order.id.to_string())
        .bind(now.0)
        .execute()
        .await?;
    if paid.rows == 1 {
        return Ok(PaymentState::Accepted);
    }
    // Still written means that its time has passed and the sweeper has not come by yet.
    let expired = end_order(tx, order.id, State::Expired, now).await?;
    if !expired && !matches!(order.state, State::Cancelled | State::Expired) {
        return Ok(PaymentState::RefundDue);
    }
    let others = tx
        .query("SELECT count(*) AS others FROM payments WHERE order_id = ? AND state = 'late'")
        .bind(order.id.to_string())
        .fetch_one()
        .await?;
    Ok(match others.get::<i64>("others")? {
        0 => PaymentState::Late,
        _ => PaymentState::RefundDue,
    })
}

async fn recorded(
    tx: &mut Tx,
    reference: &str,
    id: OrderId,
    amount: Money,
) -> Result<Option<PaymentState>> {
    let row = tx
        .query("SELECT reference, order_id, amount, state FROM payments WHERE reference = ?")
        .bind(reference)
        .fetch_optional()
        .await?;
    let Some(row) = row else { return Ok(None) };
    let (order, state): (String, String) = (row.get("order_id")?, row.get("state")?);
    // To MariaDB, blanks at the end make no difference.
    let is_same_order = order == id.to_string() && row.get::<String>("reference")? == reference;
    let is_same_amount = row.get::<i64>("amount")? == amount.minor();
    for (is_same, what) in [(is_same_order, "order"), (is_same_amount, "amount")] {
        if !is_same {
            let words = format!("`paymentId` was used for another {what}");
            return Err(Refusal::BadParameter(words).into());
        }
    }
    PaymentState::from_name(&state).map(Some)
}
