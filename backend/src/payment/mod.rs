//! Payment: the adapter that a provider implements, and what becomes of payments that came late.
//!
//! | file | what is inside |
//! |---|---|
//! | `signature` | the signature of a webhook's call |
//! | `webhook` | a provider that tells of payments by signed calls |
//! | `demo` | the provider of the demo |
//!
//! Invariants: a payment that is believed is recorded before anything is done about it, whatever its
//! amount and whatever has become of its order, so no money is forgotten; what a provider tells twice
//! under one id is done once.

use std::sync::Arc;

use async_trait::async_trait;
use engine::{Clock, EngineError, SharedEngine, SystemClock};
use http::HeaderMap;
use lua_free_rules::fields::Fields;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{Money, OrderId, Timestamp};

use crate::error::Result;
use crate::ledger::{LatePayment, Ledger, Order, Payment, PaymentState};
use crate::metrics::Metrics;

mod demo;
mod signature;
mod webhook;

pub use demo::Demo;
pub use webhook::Webhook;

/// A provider tells that an order was paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The provider's id of the payment.
    pub payment: String,
    /// The order that was paid.
    pub order: OrderId,
    /// How much was paid.
    pub amount: Money,
}

/// What a provider tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// An order was paid.
    Paid(Notice),
    /// An event of this name, which means nothing here.
    Other(String),
}

/// A payment provider.
pub trait Provider: Send + Sync {
    /// The name in `/payment/webhook/{provider}`.
    fn name(&self) -> &str;

    /// Reads a webhook's call.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] if it was not signed by the provider, or at another time;
    /// [`Refusal::MediaType`], [`Refusal::BadParameter`] for what cannot be read.
    fn told(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Told>;
}

/// A provider that the shop can ask to charge: what is behind the pay button.
#[async_trait]
pub trait Button: Provider {
    /// Charges the buyer of an order. Charging twice for the same order is charging once.
    ///
    /// # Errors
    /// If the provider refuses or cannot be reached; then nothing was charged.
    async fn charge(&self, order: &Order) -> Result<Notice>;
}

/// The order that a request names.
pub(crate) fn order_id(fields: &Fields) -> std::result::Result<OrderId, Refusal> {
    fields
        .text("orderId", 64)?
        .parse()
        .map_err(|_| Refusal::BadParameter("`orderId` is not an order's id".to_owned()))
}

/// The providers of a node.
#[derive(Clone)]
pub struct Payments {
    button: Option<Arc<dyn Button>>,
    others: Vec<Arc<dyn Provider>>,
    engine: SharedEngine,
    ledger: Ledger,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
}

impl Payments {
    /// The provider behind the pay button, if there is one, and the others.
    pub fn new(
        button: Option<Arc<dyn Button>>,
        others: Vec<Arc<dyn Provider>>,
        engine: SharedEngine,
        ledger: Ledger,
        metrics: Metrics,
    ) -> Self {
        Self {
            button,
            others,
            engine,
            ledger,
            metrics,
            clock: Arc::new(SystemClock),
        }
    }

    /// The same, under another clock.
    #[must_use]
    pub fn under(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The provider of that name.
    pub fn provider(&self, name: &str) -> Option<&dyn Provider> {
        let button = self.button.as_deref().map(|button| button as &dyn Provider);
        let mut all = button
            .into_iter()
            .chain(self.others.iter().map(Arc::as_ref));
        all.find(|each| each.name() == name)
    }

    /// The provider behind the pay button.
    pub fn button(&self) -> Option<&Arc<dyn Button>> {
        self.button.as_ref()
    }

    /// Takes a payment in: records it first, then lets the order's row decide. One that came late
    /// asks the engine for units; if the engine is away, the sweeper asks later.
    ///
    /// # Errors
    /// Those of [`Ledger::receive_payment`].
    pub async fn receive(&self, provider: &dyn Provider, notice: &Notice) -> Result<Payment> {
        let reference = format!("{}:{}", provider.name(), notice.payment);
        let payment = self
            .ledger
            .receive_payment(&reference, notice.order, notice.amount, self.clock.now())
            .await?;
        if payment.state != PaymentState::Late {
            self.metrics.payment(payment.state.name());
            return Ok(payment);
        }
        let late = LatePayment {
            reference: reference.clone(),
            order: notice.order,
        };
        let settled = settle_late(
            &self.engine,
            &self.ledger,
            &self.metrics,
            &late,
            self.clock.now(),
        );
        if let Err(error) = settled.await {
            tracing::warn!(order = %notice.order, %error, "a late payment is left to the sweeper");
        }
        // Recording it again tells what became of it.
        self.ledger
            .receive_payment(&reference, notice.order, notice.amount, self.clock.now())
            .await
    }
}

/// Asks the engine for units for a late payment. If it has them, the order is paid when the order
/// writer commits the event; if not, the money goes back. Safe to repeat at any point.
///
/// # Errors
/// If the engine or the database is away.
pub async fn settle_late(
    engine: &SharedEngine,
    ledger: &Ledger,
    metrics: &Metrics,
    late: &LatePayment,
    now: Timestamp,
) -> Result<()> {
    // The order holds nothing until the release of its last reservation is applied.
    for release in ledger.pending_releases_of(late.order).await? {
        engine.release(release).await?;
    }
    match engine.reserve_again(late.order, &late.reference).await {
        Ok(_) => {
            metrics.payment("reserved_again");
            ledger.note_late_try(&late.reference, now).await
        }
        Err(EngineError::Refused(Refusal::NotAllowed | Refusal::Overloaded)) => {
            ledger.note_late_try(&late.reference, now).await
        }
        Err(EngineError::Refused(refusal)) => {
            tracing::info!(order = %late.order, %refusal, "a late payment is to be refunded");
            metrics.payment(PaymentState::RefundDue.name());
            ledger.refuse_late(late, now).await
        }
        Err(error) => Err(error.into()),
    }
}
