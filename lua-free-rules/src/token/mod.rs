//! Access tokens and sessions: compact JWTs, HS256 pinned, minted and verified without I/O.
//!
//! The times are checked here against the `now` that is passed in, never by the JWT library, which
//! would read the clock itself.

mod jwt;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::keys::KeyRing;
use crate::units::{BuyerId, Generation, ItemId, Nonce, PromoId, Timestamp};
use jwt::{open, sign};

pub use jwt::TOKEN_BYTES_MAX;

/// How far clocks of edge, order server and engine may differ, in seconds.
pub const LEEWAY_S: i64 = 2;

/// The cookie that carries a session.
pub const SESSION_COOKIE: &str = "floodgate_session";

const ISSUER: &str = "floodgate";
const ACCESS_AUDIENCE: &str = "floodgate-orders";
const ACCESS_TYPE: &str = "floodgate-access+jwt";
const SESSION_AUDIENCE: &str = "floodgate-shop";
const SESSION_TYPE: &str = "floodgate-session+jwt";

/// What an access token grants: one buyer, one promo, one item, a number of units, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Who may use it.
    pub buyer: BuyerId,
    /// The token's own id.
    pub jti: Nonce,
    /// In which promo.
    pub promo: PromoId,
    /// For which item.
    pub item: ItemId,
    /// The publishing of the promo it was issued in.
    pub generation: Generation,
    /// The most units it can order.
    pub amount_max: u32,
    /// When it was issued; whole seconds.
    pub issued_at: Timestamp,
    /// When it expires; whole seconds.
    pub expires_at: Timestamp,
}

/// Who a session belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The buyer who signed in.
    pub buyer: BuyerId,
    /// The session's own id; its record in the engine is what sign-out removes.
    pub id: Nonce,
    /// When it ends; whole seconds.
    pub expires_at: Timestamp,
}

/// Why a token was not accepted: for logs and metrics. Buyers are told one thing only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Too long, or not a JWT of ours.
    #[error("malformed")]
    Malformed,
    /// Signed by a key that is not in the ring.
    #[error("unknown key")]
    UnknownKey,
    /// The signature does not match.
    #[error("bad signature")]
    BadSignature,
    /// Of another type, issuer or audience.
    #[error("for another purpose")]
    Foreign,
    /// Not valid yet.
    #[error("not valid yet")]
    Early,
    /// Expired.
    #[error("expired")]
    Expired,
}

#[derive(Serialize, Deserialize)]
struct AccessClaims<'a> {
    #[serde(borrow)]
    iss: Cow<'a, str>,
    #[serde(borrow)]
    aud: Cow<'a, str>,
    #[serde(borrow)]
    sub: Cow<'a, str>,
    jti: Nonce,
    promo: i64,
    item: i64,
    amount_max: u32,
    iat: i64,
    nbf: i64,
    exp: i64,
    r#gen: i64,
}

#[derive(Serialize, Deserialize)]
struct SessionClaims<'a> {
    #[serde(borrow)]
    iss: Cow<'a, str>,
    #[serde(borrow)]
    aud: Cow<'a, str>,
    #[serde(borrow)]
    sub: Cow<'a, str>,
    sid: Nonce,
    exp: i64,
}

impl Access {
    /// The signed token. The same grant under the same key gives the same token.
    ///
    /// # Errors
    /// If the JWT library fails; it does not with HS256.
    pub fn mint(&self, ring: &KeyRing) -> Result<String, TokenFault> {
        let claims = AccessClaims {
            iss: ISSUER.into(),
            aud: ACCESS_AUDIENCE.into(),
            sub: self.buyer.to_string().into(),
            jti: self.jti,
            promo: self.promo.0,
            item: self.item.0,
            amount_max: self.amount_max,
            iat: self.issued_at.seconds(),
            nbf: self.issued_at.seconds(),
            exp: self.expires_at.seconds(),
            r#gen: self.generation.0,
        };
        sign(ring, ACCESS_TYPE, &claims)
    }

    /// The grant in a token with a valid signature that is not early and expired at most
    /// `expired_for_ms` ago: a retry of an order may come with a token that has just expired.
    ///
    /// # Errors
    /// Says why the token is not accepted.
    pub fn verify(
        text: &str,
        ring: &KeyRing,
        now: Timestamp,
        expired_for_ms: i64,
    ) -> Result<Self, TokenFault> {
        let mut space = [0; TOKEN_BYTES_MAX];
        let claims: AccessClaims<'_> = open(text, ring, ACCESS_TYPE, &mut space)?;
        if claims.iss != ISSUER || claims.aud != ACCESS_AUDIENCE {
            return Err(TokenFault::Foreign);
        }
        if now.seconds() + LEEWAY_S < claims.nbf {
            return Err(TokenFault::Early);
        }
        let access = Self {
            buyer: claims.sub.parse().map_err(|_| TokenFault::Malformed)?,
            jti: claims.jti,
            promo: PromoId(claims.promo),
            item: ItemId(claims.item),
            generation: Generation(claims.r#gen),
            amount_max: claims.amount_max,
            issued_at: seconds(claims.iat),
            expires_at: seconds(claims.exp),
        };
        if access.is_expired(now.plus_ms(-expired_for_ms)) {
            return Err(TokenFault::Expired);
        }
        Ok(access)
    }

    /// Whether it has expired at `now`, the leeway granted.
    pub const fn is_expired(&self, now: Timestamp) -> bool {
        now.0 >= self.expires_at.plus_ms(LEEWAY_S * 1000).0
    }
}

impl Session {
    /// The signed session.
    ///
    /// # Errors
    /// If the JWT library fails; it does not with HS256.
    pub fn mint(&self, ring: &KeyRing) -> Result<String, TokenFault> {
        let claims = SessionClaims {
            iss: ISSUER.into(),
            aud: SESSION_AUDIENCE.into(),
            sub: self.buyer.to_string().into(),
            sid: self.id,
            exp: self.expires_at.seconds(),
        };
        sign(ring, SESSION_TYPE, &claims)
    }

    /// The session in a token with a valid signature that has not ended. Whether it still has a
    /// record, only the engine knows.
    ///
    /// # Errors
    /// Says why it is not accepted.
    pub fn verify(text: &str, ring: &KeyRing, now: Timestamp) -> Result<Self, TokenFault> {
        let mut space = [0; TOKEN_BYTES_MAX];
        let claims: SessionClaims<'_> = open(text, ring, SESSION_TYPE, &mut space)?;
        if claims.iss != ISSUER || claims.aud != SESSION_AUDIENCE {
            return Err(TokenFault::Foreign);
        }
        if now.seconds() >= claims.exp {
            return Err(TokenFault::Expired);
        }
        Ok(Self {
            buyer: claims.sub.parse().map_err(|_| TokenFault::Malformed)?,
            id: claims.sid,
            expires_at: seconds(claims.exp),
        })
    }
}

/// The session text in a request: `Authorization: Bearer …` if there is one, else the cookie.
pub fn session_text<'a>(
    authorization: Option<&'a str>,
    cookies: Option<&'a str>,
) -> Option<&'a str> {
    authorization
        .and_then(bearer)
        .or_else(|| cookies.and_then(|all| cookie(all, SESSION_COOKIE)))
}

/// The token in `Bearer <token>`.
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The value of the first cookie of that name in a `Cookie` header.
pub fn cookie<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.split(';').find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    })
}

const fn seconds(s: i64) -> Timestamp {
    Timestamp(s.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::tests::ring;
    use crate::keys::{Key, KeyRing};
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
    use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation};
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn access() -> Access {
        Access {
            buyer: BuyerId(5),
            jti: Nonce([9; 16]),
            promo: PromoId(7),
            item: ItemId(3),
            generation: Generation(2),
            amount_max: 2,
            issued_at: NOW,
            expires_at: NOW.plus_ms(60_000),
        }
    }

    #[test]
    fn a_token_reads_back_what_was_minted() {
        let text = access().mint(&ring()).unwrap();
        assert_eq!(Access::verify(&text, &ring(), NOW, 0), Ok(access()));
        assert_eq!(access().mint(&ring()).unwrap(), text);
        assert!(text.len() < 512);
    }

    #[test]
    fn times_are_checked_against_the_now_that_is_passed_in() {
        let text = access().mint(&ring()).unwrap();
        let at = |ms| Access::verify(&text, &ring(), NOW.plus_ms(ms), 0).map(|_| ());
        assert_eq!(at(-3_000), Err(TokenFault::Early));
        assert_eq!(at(-2_000), Ok(()));
        assert_eq!(at(61_999), Ok(()));
        assert_eq!(at(62_000), Err(TokenFault::Expired));
        let late = Access::verify(&text, &ring(), NOW.plus_ms(600_000), 600_000);
        assert_eq!(late, Ok(access()));
    }

    #[test]
    fn a_rotated_key_is_accepted_until_it_leaves_the_ring() {
        let old = KeyRing::new(vec![Key::new("k1", &[1; 32]).unwrap()], "k1").unwrap();
        let text = access().mint(&old).unwrap();
        assert!(Access::verify(&text, &ring(), NOW, 0).is_ok());
        let new = KeyRing::new(vec![Key::new("k2", &[2; 32]).unwrap()], "k2").unwrap();
        assert_eq!(
            Access::verify(&text, &new, NOW, 0),
            Err(TokenFault::UnknownKey)
        );
        let forged = KeyRing::new(vec![Key::new("k1", &[3; 32]).unwrap()], "k1").unwrap();
        let text = access().mint(&forged).unwrap();
        assert_eq!(
            Access::verify(&text, &ring(), NOW, 0),
            Err(TokenFault::BadSignature)
        );
    }

    #[test]
    fn a_session_is_no_access_token_and_none_is_unsigned() {
        let session = Session {
            buyer: BuyerId(5),
            id: Nonce([1; 16]),
            expires_at: NOW.plus_ms(1_000),
        };
        let text = session.mint(&ring()).unwrap();
        assert_eq!(Session::verify(&text, &ring(), NOW), Ok(session));
        assert_eq!(
            Session::verify(&text, &ring(), NOW.plus_ms(1_000)),
            Err(TokenFault::Expired)
        );
        assert_eq!(
            Access::verify(&text, &ring(), NOW, 0),
            Err(TokenFault::Foreign)
        );
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiZmxvb2RnYXRlLWFjY2Vzcytqd3QifQ.e30.";
        assert_eq!(
            Access::verify(none, &ring(), NOW, 0),
            Err(TokenFault::Malformed)
        );
        assert_eq!(
            Access::verify(&"a".repeat(5_000), &ring(), NOW, 0),
            Err(TokenFault::Malformed)
        );
    }

    #[test]
    fn a_session_comes_by_header_or_by_cookie() {
        let cookies = Some("a=b; floodgate_session=s1; floodgate_session=s2");
        assert_eq!(session_text(Some("bearer t"), cookies), Some("t"));
        assert_eq!(session_text(Some("Basic t"), cookies), Some("s1"));
        assert_eq!(session_text(None, Some("xfloodgate_session=s")), None);
    }

    /// What the JWT library makes of a token that is ours.
    fn by_library(text: &str) -> bool {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let keys = [("k1", [1; 32]), ("k2", [2; 32])];
        let header = jsonwebtoken::decode_header(text);
        header.is_ok_and(|header| {
            let kid = header.kid.as_deref();
            let key = keys.iter().find(|(id, _)| kid == Some(*id));
            key.is_some_and(|(_, secret)| {
                let key = DecodingKey::from_secret(secret);
                let claims = jsonwebtoken::decode::<serde_json::Value>(text, &key, &validation);
                claims.is_ok_and(|data| {
                    let claims = data.claims.to_string();
                    serde_json::from_str::<AccessClaims<'_>>(&claims).is_ok()
                })
            })
        })
    }

    #[test]
    fn what_must_be_understood_and_is_not_is_refused() {
        let minted = access().mint(&ring()).unwrap();
        let claims = minted.split('.').nth(1).unwrap();
        let signed = |header: &str| {
            let message = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header));
            let key = EncodingKey::from_secret(&[1; 32]);
            let signature =
                jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
            let text = format!("{message}.{signature}");
            Access::verify(&text, &ring(), NOW, 0)
        };
        let usual = r#"{"kid":"k1","typ":"floodgate-access+jwt","alg":"HS256""#;
        assert_eq!(signed(&format!("{usual}}}")), Ok(access()), "in any order");
        assert_eq!(signed(&format!(r#"{usual},"x":[1]}}"#)), Ok(access()));
        let crit = format!(r#"{usual},"crit":["b64"],"b64":false}}"#);
        assert_eq!(signed(&crit), Err(TokenFault::Foreign));
        let null = format!(r#"{usual},"crit":null}}"#);
        assert_eq!(signed(&null), Err(TokenFault::Foreign));
        let listed = r#"["HS256","floodgate-access+jwt","k1"]"#;
        assert_eq!(signed(listed), Err(TokenFault::Malformed));
        let twice = format!(r#"{usual},"alg":"none"}}"#);
        assert_eq!(signed(&twice), Err(TokenFault::Malformed));
        let other = usual.replace("HS256", "HS384") + "}";
        assert_eq!(signed(&other), Err(TokenFault::Malformed));
    }

    proptest! {
        #[test]
        fn the_jwt_library_takes_what_is_taken_here(
            cut in 0_usize..300,
            gone in 0_usize..3,
            added in "[A-Za-z0-9_.=-]{0,3}",
        ) {
            let mut text = access().mint(&ring()).unwrap();
            let cut = cut % text.len();
            text.replace_range(cut..(cut + gone).min(text.len()), &added);
            prop_assert_eq!(Access::verify(&text, &ring(), NOW, 0).is_ok(), by_library(&text));
        }

        #[test]
        fn no_altered_token_passes(at in 0_usize..300, byte in any::<u8>()) {
            let mut bytes = access().mint(&ring()).unwrap().into_bytes();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            if let Ok(text) = std::str::from_utf8(&bytes) {
                prop_assert!(Access::verify(text, &ring(), NOW, 0).is_err());
            }
        }

        #[test]
        fn garbage_is_refused_without_a_panic(text in ".{0,200}") {
            prop_assert!(Access::verify(&text, &ring(), NOW, 0).is_err());
        }
    }
}
