//! A request to create an order, as it is written: read once at the edge and once more at the order
//! server, by the same rules.

use crate::fields::Fields;
use crate::refusal::Refusal;
use crate::token::TOKEN_BYTES_MAX;
use crate::units::{ItemId, PromoId};

/// Most units one request may ask for.
pub const AMOUNT_MAX: i64 = 1_000;
/// Longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purchase {
    /// The item.
    pub item: ItemId,
    /// The promo.
    pub promo: PromoId,
    /// How many units; 1 if the field is missing.
    pub amount: u32,
    /// The access token.
    pub token: String,
    /// The `Idempotency-Key` header, if there is one.
    pub key: Option<String>,
}

impl Purchase {
    /// Reads it from the request's fields and its `Idempotency-Key` header.
    ///
    /// # Errors
    /// [`Refusal::BadParameter`] naming the field; [`Refusal::TokenInvalid`] for a token that is
    /// missing or too long.
    pub fn read(fields: &Fields, key: Option<&[u8]>) -> Result<Self, Refusal> {
        let amount = fields
            .optional_integer("amount", 1..=AMOUNT_MAX)?
            .unwrap_or(1);
        let purchase = Self {
            item: ItemId(fields.id("itemId")?),
            promo: PromoId(fields.id("promoId")?),
            amount: u32::try_from(amount).unwrap_or(1),
            token: fields
                .text("token", TOKEN_BYTES_MAX)
                .map_err(|_| Refusal::TokenInvalid)?
                .to_owned(),
            key: key.map(read_key).transpose()?,
        };
        Ok(purchase)
    }

    /// Stands for what is asked, to tell a retry from another request under the same key.
    pub fn digest(&self) -> String {
        format!("{}:{}:{}", self.item, self.promo, self.amount)
    }
}

fn read_key(key: &[u8]) -> Result<String, Refusal> {
    let plain =
        !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(key)
        .ok()
        .filter(|_| plain)
        .map(str::to_owned)
        .ok_or_else(|| {
            Refusal::BadParameter(format!(
                "`Idempotency-Key` must be 1 to {KEY_BYTES_MAX} visible ASCII characters"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, key: Option<&[u8]>) -> Result<Purchase, Refusal> {
        Purchase::read(
            &Fields::from_body(Some("application/json"), json.as_bytes()).unwrap(),
            key,
        )
    }

    #[test]
    fn a_purchase_is_read_whole_or_refused() {
        let good = read(r#"{"itemId":1,"promoId":"2","token":"t"}"#, Some(b"k-1")).unwrap();
        assert_eq!((good.amount, good.digest().as_str()), (1, "1:2:1"));
        assert_eq!(
            read(r#"{"itemId":1,"promoId":2}"#, None),
            Err(Refusal::TokenInvalid)
        );
        for amount in ["0", "-1", "1001", "1.5", "\"x\""] {
            let json = format!(r#"{{"itemId":1,"promoId":2,"token":"t","amount":{amount}}}"#);
            assert!(
                matches!(read(&json, None), Err(Refusal::BadParameter(_))),
                "{amount}"
            );
        }
        for key in [&b""[..], b"a b", b"\xff", &[b'k'; 129]] {
            assert!(read(r#"{"itemId":1,"promoId":2,"token":"t"}"#, Some(key)).is_err());
        }
    }
}
