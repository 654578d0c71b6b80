//! What buyers show: sessions and access tokens, signed with the key that all servers of a run share.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::{Clock as _, SystemClock};
use lua_free_rules::keys::{Key, KeyRing};
use lua_free_rules::token::{Access, SESSION_COOKIE, Session};
use lua_free_rules::units::{BuyerId, Generation, ItemId, Nonce, PromoId, Timestamp};

use super::Failure;
use super::work;

/// The id of the key.
const KEY: &str = "k1";
/// How long everything lasts: longer than any run.
const LASTS_MS: i64 = 6 * 3_600_000;

/// The key, drawn for one run.
#[derive(Debug, Clone)]
pub struct Secret {
    /// With which tokens are signed and verified.
    pub ring: KeyRing,
    /// The secret in base64, as its file holds it.
    pub text: String,
}

impl Secret {
    /// Draws one.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn draw() -> Result<Self, Failure> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self {
            ring: KeyRing::new(vec![Key::new(KEY, &bytes)?], KEY)?,
            text: STANDARD.encode(bytes),
        })
    }
}

/// What one buyer has in hand.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The session, as its cookie carries it.
    pub session: String,
    /// The access token.
    pub token: String,
    /// The idempotency key of his order.
    pub key: String,
}

impl Credentials {
    /// Signs both.
    ///
    /// # Errors
    /// If the JWT library fails; it does not with HS256.
    pub fn sign(ring: &KeyRing, session: &Session, access: &Access) -> Result<Self, Failure> {
        Ok(Self {
            session: session.mint(ring)?,
            token: access.mint(ring)?,
            key: access.jti.to_string(),
        })
    }

    /// The same buyer, whose token was signed with another key.
    ///
    /// # Errors
    /// If the JWT library fails; it does not with HS256.
    pub fn forged(&self, ring: &KeyRing, forger: &KeyRing) -> Result<Self, Failure> {
        let now = SystemClock.now();
        let access = Access::verify(&self.token, ring, now, 0)?;
        Ok(Self {
            token: access.mint(forger)?,
            ..self.clone()
        })
    }

    /// A request for an order of one unit.
    pub fn order(&self) -> String {
        let body = format!(
            r#"{{"promoId":1,"itemId":1,"amount":1,"token":"{}"}}"#,
            self.token
        );
        let cookie = self.cookie();
        let headers = [("Cookie", &*cookie), ("Idempotency-Key", &*self.key)];
        work::order(&headers, &body)
    }

    /// A request for an access token.
    pub fn ask_for_token(&self) -> String {
        let body = r#"{"promoId":1,"itemId":1}"#;
        let headers = [("Cookie", &*self.cookie())];
        work::request("POST", "/order/generatetoken", &headers, body)
    }

    fn cookie(&self) -> String {
        format!("{SESSION_COOKIE}={}", self.session)
    }
}

/// Buyers whose signatures are right, and of whom no engine has heard.
///
/// # Errors
/// If the JWT library fails; it does not with HS256.
pub fn made_up(ring: &KeyRing, buyers: usize) -> Result<Vec<Credentials>, Failure> {
    let now = SystemClock.now();
    let expires_at = now.plus_ms(LASTS_MS);
    let buyer = |number: usize| {
        let id = Nonce((number as u128 + 1).to_be_bytes());
        let buyer = BuyerId(i64::try_from(number)? + 1);
        let session = Session {
            buyer,
            id,
            expires_at,
        };
        Credentials::sign(ring, &session, &access(buyer, id, now, expires_at))
    };
    (0..buyers).map(buyer).collect()
}

const fn access(buyer: BuyerId, jti: Nonce, issued_at: Timestamp, expires_at: Timestamp) -> Access {
    Access {
        buyer,
        jti,
        promo: PromoId(1),
        item: ItemId(1),
        generation: Generation(1),
        amount_max: 1,
        issued_at,
        expires_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_token_differs_in_its_signature_alone() {
        let (secret, forger) = (Secret::draw().unwrap(), Secret::draw().unwrap());
        let buyers = made_up(&secret.ring, 2).unwrap();
        assert_ne!(buyers[0].session, buyers[1].session);
        let forged = buyers[0].forged(&secret.ring, &forger.ring).unwrap();
        let signed = |token: &str| token.rsplit_once('.').unwrap().0.to_owned();
        assert_eq!(signed(&forged.token), signed(&buyers[0].token));
        let now = SystemClock.now();
        assert!(Access::verify(&buyers[0].token, &secret.ring, now, 0).is_ok());
        assert!(Access::verify(&forged.token, &secret.ring, now, 0).is_err());
        assert!(forged.order().contains(&forged.token));
    }
}
