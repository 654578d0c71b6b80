//! Payments held against orders: what the audit counts and names, and what operators are to refund.

use lua_free_rules::units::{Generation, Money, OrderId, PromoId, Timestamp};
use serde::{Deserialize, Serialize};

use super::orders::read_order_id;
use super::{Fault, Ledger};
use crate::error::{BackendError, Result};

/// Most faults of one kind that are named.
const FAULTS_MAX: i64 = 20;

/// The payments of one promo and generation, at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentCounts {
    /// Payments that paid an order.
    pub accepted: i64,
    /// Those of them that came after their order had ended, and found units left.
    pub reserved_again: i64,
    /// Payments that came late, and are not settled yet.
    pub late: i64,
    /// Payments that go back.
    pub refund_due: i64,
    /// Orders that such a payment left without units.
    pub refund_due_orders: i64,
}

/// A payment that goes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refund {
    /// `provider:id`.
    pub reference: String,
    /// The order it was for.
    pub order_id: OrderId,
    /// How much is to be paid back.
    pub amount: Money,
    /// Since when the shop has it.
    pub since: Timestamp,
    /// What has become of the order.
    pub order_state: String,
}

/// What is off between payments and orders: what it is, what is said of it, and the query that
/// finds it by promo and generation.
const FAULTS: [(&str, &str, &str); 4] = [
    (
        "payment",
        "was accepted, but its order is not paid, or is paid with another amount",
        "SELECT p.reference AS name FROM orders AS o JOIN payments AS p ON p.order_id = o.id \
         WHERE o.promo = ? AND o.generation = ? AND p.state = 'accepted' \
          AND (o.state <> 'paid' OR p.amount <> o.amount * o.unit_price) LIMIT ?",
    ),
    (
        "payment",
        "came late and is not settled, but its order did not end",
        "SELECT p.reference AS name FROM orders AS o JOIN payments AS p ON p.order_id = o.id \
         WHERE o.promo = ? AND o.generation = ? AND p.state = 'late' \
          AND o.state NOT IN ('cancelled', 'expired') LIMIT ?",
    ),
    (
        "order",
        "is paid by more than one payment",
        "SELECT o.id AS name FROM orders AS o JOIN payments AS p ON p.order_id = o.id \
         WHERE o.promo = ? AND o.generation = ? AND p.state = 'accepted' \
         GROUP BY o.id HAVING count(*) > 1 LIMIT ?",
    ),
    (
        "order",
        "is refund_due, but no payment goes back",
        "SELECT o.id AS name FROM orders AS o WHERE o.promo = ? AND o.generation = ? \
          AND o.state = 'refund_due' AND NOT EXISTS (SELECT 1 FROM payments AS p \
           WHERE p.order_id = o.id AND p.state = 'refund_due') LIMIT ?",
    ),
];

impl Ledger {
    /// Counts the payments of a promo and generation.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn payment_counts(
        &self,
        promo: PromoId,
        generation: Generation,
    ) -> Result<PaymentCounts> {
        let row = self
            .read(
                "SELECT count(CASE WHEN p.state = 'accepted' THEN 1 END) AS accepted, \
             count(CASE WHEN p.state = 'accepted' AND o.current_number <> o.number THEN 1 END) \
              AS reserved_again, \
             count(CASE WHEN p.state = 'late' THEN 1 END) AS late, \
             count(CASE WHEN p.state = 'refund_due' THEN 1 END) AS refund_due, \
             (SELECT count(*) FROM orders WHERE promo = ? AND generation = ? \
               AND state = 'refund_due') AS refund_due_orders \
             FROM orders AS o JOIN payments AS p ON p.order_id = o.id \
             WHERE o.promo = ? AND o.generation = ?",
            )
            .await?
            .bind(promo.0)
            .bind(generation.0)
            .bind(promo.0)
            .bind(generation.0)
            .fetch_one()
            .await?;
        Ok(PaymentCounts {
            accepted: row.get("accepted")?,
            reserved_again: row.get("reserved_again")?,
            late: row.get("late")?,
            refund_due: row.get("refund_due")?,
            refund_due_orders: row.get("refund_due_orders")?,
        })
    }

    /// Names what is off between the payments and the orders of a promo and generation.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn payment_faults(
        &self,
        promo: PromoId,
        generation: Generation,
    ) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        for (what, words, query) in FAULTS {
            let found = self
                .read(query)
                .await?
                .bind(promo.0)
                .bind(generation.0)
                .bind(FAULTS_MAX)
                .fetch_all()
                .await?;
            for row in found {
                let name: String = row.get("name")?;
                faults.push(Fault(format!("{what} {name} {words}")));
            }
        }
        Ok(faults)
    }

    /// The late payments of a promo and generation that came before `moment` and are not settled:
    /// which, for which order, and when it came. The longest ago first, and not all if they are many.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn unsettled(
        &self,
        promo: PromoId,
        generation: Generation,
        moment: Timestamp,
    ) -> Result<Vec<(String, OrderId, Timestamp)>> {
        self.read(
            "SELECT p.reference, p.order_id, p.received_at FROM payments AS p \
             JOIN orders AS o ON o.id = p.order_id WHERE p.state = 'late' \
              AND o.promo = ? AND o.generation = ? AND p.received_at <= ? \
             ORDER BY p.received_at, p.reference LIMIT ?",
        )
        .await?
        .bind(promo.0)
        .bind(generation.0)
        .bind(moment.0)
        .bind(FAULTS_MAX)
        .fetch_all()
        .await?
        .iter()
        .map(|row| {
            let order = read_order_id(row.get("order_id")?)?;
            let received_at = Timestamp(row.get("received_at")?);
            Ok((row.get("reference")?, order, received_at))
        })
        .collect()
    }

    /// Up to `max` payments that go back, the oldest first; those after `after`, by the time and the
    /// reference of the last one that was seen.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn refunds(&self, after: (Timestamp, &str), max: u32) -> Result<Vec<Refund>> {
        let (since, reference) = after;
        self.read(
            "SELECT p.reference, p.order_id, p.amount, p.received_at, o.state AS order_state \
             FROM payments AS p JOIN orders AS o ON o.id = p.order_id \
             WHERE p.state = 'refund_due' \
              AND (p.received_at > ? OR (p.received_at = ? AND p.reference > ?)) \
             ORDER BY p.received_at, p.reference LIMIT ?",
        )
        .await?
        .bind(since.0)
        .bind(since.0)
        .bind(reference)
        .bind(max)
        .fetch_all()
        .await?
        .iter()
        .map(|row| {
            let reference: String = row.get("reference")?;
            let odd = || BackendError::Unexpected(format!("payment {reference} has an odd amount"));
            Ok(Refund {
                order_id: read_order_id(row.get("order_id")?)?,
                amount: Money::from_minor(row.get("amount")?).ok_or_else(odd)?,
                since: Timestamp(row.get("received_at")?),
                order_state: row.get("order_state")?,
                reference,
            })
        })
        .collect()
    }
}
