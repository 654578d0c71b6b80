//! `/payment/webhook/{provider}`: a provider tells that an order was paid. A provider tells again until
//! it is answered with 200; so that is the answer to whatever need not be told again, and to nothing else.
//! `/admin/refunds`: what operators are to pay back.

use lua_free_rules::fields::ID_MAX;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::Timestamp;
use serde_json::json;

use super::Call;
use super::admin::as_operator;
use super::orders::not_yet_written;
use crate::answer::Reply;
use crate::error::{BackendError, Result};
use crate::payment::{Notice, Provider, Told};

/// Most refunds on one page.
const REFUNDS_MAX: i64 = 1_000;
/// As many, unless the request says otherwise.
const REFUNDS: i64 = 100;
/// Longest reference of a payment, in bytes: a provider's name and its id of the payment.
const REFERENCE_BYTES_MAX: usize = 256;

pub async fn webhook(call: Call) -> Result<Reply> {
    let payments = &call.shop.payments;
    let name = call.path.rsplit('/').next().unwrap_or_default();
    let provider = payments.provider(name).ok_or(Refusal::NotFound)?;
    match provider.told(&call.headers, &call.body, call.now)? {
        Told::Paid(notice) => paid(&call, provider, &notice).await,
        Told::Other(event) => {
            tracing::debug!(provider = name, event, "an event that means nothing here");
            Reply::ok(&json!({ "event": event, "ignored": true }))
        }
    }
}

async fn paid(call: &Call, provider: &dyn Provider, notice: &Notice) -> Result<Reply> {
    match call.shop.payments.receive(provider, notice).await {
        Ok(payment) => Reply::ok(&json!({
            "paymentId": notice.payment,
            "orderId": notice.order,
            "payment": payment.state.name(),
            "state": payment.order.state,
        })),
        Err(BackendError::Refused(Refusal::NotFound)) => {
            // Paid before it was written: the provider is asked to tell again.
            if call.shop.engine.reservation(notice.order).await?.is_some() {
                return Err(not_yet_written().into());
            }
            let (provider, payment) = (provider.name(), &notice.payment);
            let (order, amount) = (notice.order, notice.amount.to_string());
            tracing::error!(provider, payment, %order, amount, "paid for an order that is unknown");
            Err(Refusal::NotFound.into())
        }
        Err(error) => Err(error),
    }
}

/// A page of the payments that go back, the oldest first, and where the next page begins.
pub async fn refunds(call: Call) -> Result<Reply> {
    as_operator(&call, "admin/refunds", async {
        let fields = call.query()?;
        let max = fields.optional_integer("max", 1..=REFUNDS_MAX)?;
        let max = max.unwrap_or(REFUNDS);
        let since = fields.optional_integer("since", 0..=ID_MAX)?;
        let after = fields.optional_text("after", REFERENCE_BYTES_MAX)?;
        let after = (Timestamp(since.unwrap_or(0)), after.unwrap_or_default());
        let page = u32::try_from(max).unwrap_or(u32::MAX);
        let mut refunds = call
            .shop
            .ledger
            .refunds(after, page.saturating_add(1))
            .await?;
        let is_more = refunds.len() > page as usize;
        refunds.truncate(page as usize);
        let next = refunds
            .last()
            .filter(|_| is_more)
            .map(|last| json!({ "since": last.since.0, "after": last.reference }));
        Reply::ok(&json!({ "refunds": refunds, "next": next }))
    })
    .await
}
