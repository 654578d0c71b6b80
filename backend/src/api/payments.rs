//! `/payment/webhook/{provider}`: a provider tells that an order was paid.

use lua_free_rules::refusal::Refusal;
use serde_json::json;

use super::Call;
use super::orders::not_yet_written;
use crate::answer::Reply;
use crate::error::{BackendError, Result};

pub async fn webhook(call: Call) -> Result<Reply> {
    let payments = &call.shop.payments;
    let name = call.path.rsplit('/').next().unwrap_or_default();
    let provider = payments.provider(name).ok_or(Refusal::NotFound)?;
    let notice = provider.notice(&call.headers, &call.body)?;
    match payments.receive(provider.as_ref(), &notice).await {
        Ok(payment) => Reply::ok(&json!({
            "paymentId": notice.payment,
            "orderId": notice.order,
            "payment": payment.state.name(),
            "state": payment.order.state,
        })),
        Err(BackendError::Refused(Refusal::NotFound)) => {
            // Paid before it was written: the provider is asked to tell again.
            match call.shop.engine.reservation(notice.order).await? {
                Some(_) => Err(not_yet_written().into()),
                None => Err(Refusal::NotFound.into()),
            }
        }
        Err(error) => Err(error),
    }
}
