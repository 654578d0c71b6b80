//! Payment: the adapter that a provider implements, the demo provider, and what becomes of payments
//! that came late.

use std::sync::Arc;

use async_trait::async_trait;
use engine::{Clock, EngineError, SharedEngine, SystemClock};
use hmac::Mac as _;
use http::HeaderMap;
use lua_free_rules::fields::Fields;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{Money, OrderId, Timestamp};

use crate::error::Result;
use crate::ledger::{LatePayment, Ledger, Order, Payment, PaymentState};
use crate::metrics::Metrics;
use crate::settings::Secret;

/// Longest id a provider gives a payment, in bytes.
const PAYMENT_ID_BYTES_MAX: usize = 128;
/// The header that carries a webhook's signature: `sha256=` and the HMAC of the body in hexadecimal.
const SIGNATURE: &str = "floodgate-signature";

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

/// A payment provider.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The name in `/payment/webhook/{provider}`.
    fn name(&self) -> &'static str;

    /// Charges the buyer of an order. Charging twice for the same order is charging once.
    ///
    /// # Errors
    /// If the provider refuses or cannot be reached; then nothing was charged.
    async fn charge(&self, order: &Order) -> Result<Notice>;

    /// Reads a webhook's call.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] if it is not signed by the provider, [`Refusal::BadParameter`].
    fn notice(&self, headers: &HeaderMap, body: &[u8]) -> Result<Notice>;
}

/// The provider of the demo: a button that pays without money, and a signed webhook.
#[derive(Debug)]
pub struct Demo {
    secret: Secret,
}

impl Demo {
    /// A demo provider whose webhook is signed with `secret`.
    pub const fn new(secret: Secret) -> Self {
        Self { secret }
    }

    fn is_signed(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let mut signatures = headers.get_all(SIGNATURE).iter();
        let (Some(signature), None) = (signatures.next(), signatures.next()) else {
            return false;
        };
        let Some(digest) = signature
            .as_bytes()
            .strip_prefix(b"sha256=")
            .and_then(unhex)
        else {
            return false;
        };
        let mut mac = self.secret.mac();
        mac.update(body);
        mac.verify_slice(&digest).is_ok()
    }
}

#[async_trait]
impl Provider for Demo {
    fn name(&self) -> &'static str {
        "demo"
    }

    async fn charge(&self, order: &Order) -> Result<Notice> {
        Ok(Notice {
            payment: format!("button-{}", order.id),
            order: order.id,
            amount: order.total(),
        })
    }

    fn notice(&self, headers: &HeaderMap, body: &[u8]) -> Result<Notice> {
        if !self.is_signed(headers, body) {
            return Err(Refusal::NotAllowed.into());
        }
        let content_type = headers.get(http::header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let fields = Fields::from_body(content_type, body)?;
        Ok(Notice {
            payment: fields.text("paymentId", PAYMENT_ID_BYTES_MAX)?.to_owned(),
            order: order_id(&fields)?,
            amount: fields
                .text("amount", 24)?
                .parse()
                .map_err(Refusal::BadParameter)?,
        })
    }
}

/// The order that a request names.
pub(crate) fn order_id(fields: &Fields) -> std::result::Result<OrderId, Refusal> {
    fields
        .text("orderId", 64)?
        .parse()
        .map_err(|_| Refusal::BadParameter("`orderId` is not an order's id".to_owned()))
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > 64 || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    text.chunks_exact(2)
        .map(|pair| u8::try_from(digit(&pair[0])? * 16 + digit(&pair[1])?).ok())
        .collect()
}

/// The providers of a node.
#[derive(Clone)]
pub struct Payments {
    providers: Vec<Arc<dyn Provider>>,
    engine: SharedEngine,
    ledger: Ledger,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
}

impl Payments {
    /// These providers, the first of which is behind the pay button.
    pub fn new(
        providers: Vec<Arc<dyn Provider>>,
        engine: SharedEngine,
        ledger: Ledger,
        metrics: Metrics,
    ) -> Self {
        Self {
            providers,
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
    pub fn provider(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.providers.iter().find(|each| each.name() == name)
    }

    /// The provider behind the pay button.
    pub fn button(&self) -> Option<&Arc<dyn Provider>> {
        self.providers.first()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::BackendError;
    use crate::settings::hex;

    fn call(body: &str, signature: Option<&str>) -> Result<Notice> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        if let Some(signature) = signature {
            headers.insert(SIGNATURE, signature.parse().unwrap());
        }
        Demo::new(Secret::new("webhook")).notice(&headers, body.as_bytes())
    }

    fn signed(body: &str) -> String {
        let mut mac = Secret::new("webhook").mac();
        mac.update(body.as_bytes());
        format!("sha256={}", hex(&mac.finalize().into_bytes()))
    }

    #[test]
    fn a_notice_is_believed_only_if_it_is_signed() {
        let body = r#"{"paymentId":"p1","orderId":"7-1-1","amount":"99.00"}"#;
        let notice = call(body, Some(&signed(body))).unwrap();
        assert_eq!(
            (notice.payment.as_str(), notice.amount.minor()),
            ("p1", 9_900)
        );
        let other = signed("other");
        for signature in [
            None,
            Some(""),
            Some("sha256="),
            Some("sha256=zz"),
            Some(&*other),
        ] {
            assert!(matches!(
                call(body, signature),
                Err(BackendError::Refused(Refusal::NotAllowed))
            ));
        }
        for body in ["{}", "[", r#"{"paymentId":"p","orderId":"x","amount":"1"}"#] {
            assert!(matches!(
                call(body, Some(&signed(body))),
                Err(BackendError::Refused(Refusal::BadParameter(_)))
            ));
        }
    }
}
