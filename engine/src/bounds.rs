//! The bounds of texts that every home keeps.

use lua_free_rules::purchase::KEY_BYTES_MAX;
use lua_free_rules::refusal::Refusal;

use crate::Reserve;

/// Longest digest of a request, and longest id of a payment, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// Refuses a request whose key or digest is beyond its bound.
pub(crate) fn check_request(request: &Reserve) -> Result<(), Refusal> {
    check("the idempotency key", &request.key, KEY_BYTES_MAX)?;
    check("the digest of the request", &request.body, TEXT_BYTES_MAX)
}

/// Refuses a payment whose id is beyond its bound.
pub(crate) fn check_payment(payment: &str) -> Result<(), Refusal> {
    check("the payment's id", payment, TEXT_BYTES_MAX)
}

fn check(what: &str, text: &str, bytes_max: usize) -> Result<(), Refusal> {
    if text.len() <= bytes_max {
        return Ok(());
    }
    Err(Refusal::BadParameter(format!(
        "{what} is longer than {bytes_max} bytes"
    )))
}
