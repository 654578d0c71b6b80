//! `/payment/webhook/{provider}`: a provider tells that an order was paid. A provider tells again until
//! it is answered with 200; so that is the answer to whatever need not be told again, and to nothing else.

use lua_free_rules::refusal::Refusal;
use serde_json::json;

use super::Call;
use super::orders::not_yet_written;
use crate::answer::Reply;
use crate::error::{BackendError, Result};
use crate::payment::{Notice, Provider, Told};

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
