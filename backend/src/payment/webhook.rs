//! A provider that tells of payments by signed calls: who it is, and how its calls are read.

use http::{HeaderMap, header};
use lua_free_rules::config::PaymentProvider;
use lua_free_rules::fields::Fields;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{Millis, Timestamp};

use super::{Notice, Provider, Told, order_id, signature};
use crate::error::Result;
use crate::settings::Secret;

/// How far the time of a call may be from ours, unless the provider says otherwise.
pub const TOLERANCE: Millis = PaymentProvider::TOLERANCE;
/// The event that is a payment.
const PAID: &str = "paid";
const EVENT_BYTES_MAX: usize = 64;
/// Longest id a provider gives a payment, in bytes.
const PAYMENT_ID_BYTES_MAX: usize = 128;
const AMOUNT_BYTES_MAX: usize = 24;

/// A provider, by what it signs with.
#[derive(Debug, Clone)]
pub struct Webhook {
    name: String,
    secrets: Vec<Secret>,
    tolerance: Millis,
}

impl Webhook {
    /// A provider of that name in `/payment/webhook/{name}`, whose calls are signed under one of
    /// `secrets`, at most `tolerance` before or after now.
    pub fn new(name: impl Into<String>, secrets: Vec<Secret>, tolerance: Millis) -> Self {
        Self {
            name: name.into(),
            secrets,
            tolerance,
        }
    }

    /// Whether anyone could sign for it: without a secret, or with an empty one.
    pub(crate) fn is_open(&self) -> bool {
        self.secrets.is_empty() || self.secrets.iter().any(Secret::is_empty)
    }
}

impl Provider for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn told(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Told> {
        let signed = signature::verify(headers, body, &self.secrets, self.tolerance, now);
        if let Err(reason) = signed {
            tracing::warn!(provider = self.name, %reason, "a call is not believed");
            return Err(Refusal::NotAllowed.into());
        }
        let content_type = headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        Ok(read(&Fields::from_body(content_type, body)?)?)
    }
}

fn read(fields: &Fields) -> std::result::Result<Told, Refusal> {
    let event = fields.text("event", EVENT_BYTES_MAX)?;
    if event != PAID {
        return Ok(Told::Other(event.to_owned()));
    }
    Ok(Told::Paid(Notice {
        payment: fields.text("paymentId", PAYMENT_ID_BYTES_MAX)?.to_owned(),
        order: order_id(fields)?,
        amount: fields
            .text("amount", AMOUNT_BYTES_MAX)?
            .parse()
            .map_err(Refusal::BadParameter)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> std::result::Result<Told, Refusal> {
        read(&Fields::from_body(
            Some("application/json"),
            body.as_bytes(),
        )?)
    }

    #[test]
    fn a_payment_is_told_whole() {
        let body = r#"{"event":"paid","paymentId":"p1","orderId":"7-1-1","amount":"99.00"}"#;
        let Ok(Told::Paid(notice)) = told(body) else {
            panic!("{:?}", told(body));
        };
        assert_eq!(
            (notice.payment.as_str(), notice.amount.minor()),
            ("p1", 9_900)
        );
        for part in [
            r#""event":"paid","#,
            r#""paymentId":"p1","#,
            r#""orderId":"7-1-1","#,
            r#","amount":"99.00""#,
        ] {
            let without = body.replace(part, "");
            assert_ne!(without, body);
            assert!(matches!(told(&without), Err(Refusal::BadParameter(_))));
        }
        for (part, wrong) in [
            ("\"7-1-1\"", "\"7\""),
            ("\"99.00\"", "\"-1\""),
            ("\"99.00\"", "\"1.999\""),
            ("\"99.00\"", "99"),
        ] {
            let body = body.replace(part, wrong);
            assert!(
                matches!(told(&body), Err(Refusal::BadParameter(_))),
                "{body}"
            );
        }
    }

    #[test]
    fn other_events_need_no_more_than_a_name() {
        let other = |name: &str| Ok(Told::Other(name.to_owned()));
        assert_eq!(told(r#"{"event":"refunded"}"#), other("refunded"));
        assert_eq!(told(r#"{"event":"PAID","orderId":7}"#), other("PAID"));
    }
}
