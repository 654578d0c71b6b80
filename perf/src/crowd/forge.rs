//! Tokens that must not be accepted: signed by somebody else, or changed after they were signed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lua_free_rules::keys::{Key, KeyRing};
use lua_free_rules::token::Access;
use lua_free_rules::units::{BuyerId, Generation, ItemId, Nonce, PromoId, Timestamp};

use super::dice::Dice;

/// What a forger puts into a token.
#[derive(Debug, Clone, Copy)]
pub struct Claims {
    /// Whom it is for.
    pub buyer: i64,
    /// Which promo.
    pub promo: i64,
    /// Which item.
    pub item: i64,
    /// Now, in milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// A token with every claim right, signed with a key of the forger's own under the shop's key id.
/// Without the library's help there is only garbage to send, which must be refused as well.
pub fn forged(claims: Claims, dice: &mut Dice) -> String {
    let mut bytes = || [dice.draw().to_le_bytes(), dice.draw().to_le_bytes()].concat();
    let secret = [bytes(), bytes()].concat();
    let mut jti = [0; 16];
    jti.copy_from_slice(&bytes());
    let access = Access {
        buyer: BuyerId(claims.buyer),
        jti: Nonce(jti),
        promo: PromoId(claims.promo),
        item: ItemId(claims.item),
        generation: Generation(1),
        amount_max: 1,
        issued_at: Timestamp(claims.now_ms),
        expires_at: Timestamp(claims.now_ms).plus_ms(60_000),
    };
    let minted = Key::new("k1", &secret).and_then(|key| KeyRing::new(vec![key], "k1"));
    minted
        .ok()
        .and_then(|ring| access.mint(&ring).ok())
        .unwrap_or_else(|| "e30.e30.AA".to_owned())
}

/// A valid token, changed so that what it says or how it is signed is something else.
pub fn altered(token: &str, dice: &mut Dice) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let [head, claims, seal] = parts[..] else {
        return format!("{token}A");
    };
    match dice.below(5) {
        0 => format!("{head}.{}.{seal}", other_letter(claims, dice)),
        1 => format!("{head}.{claims}.{}", other_letter(seal, dice)),
        2 => format!("{head}.{claims}."),
        3 => format!("{}.{claims}.", unsigned_head()),
        _ => format!("{head}.{}.{seal}", raised(claims)),
    }
}

/// The same text with one letter changed. Never the last: its lowest bits may mean nothing.
fn other_letter(text: &str, dice: &mut Dice) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let end = bytes.len().saturating_sub(1);
    let at = usize::try_from(dice.below(end as u64)).unwrap_or(0);
    if let Some(letter) = bytes.get_mut(at) {
        *letter = if *letter == b'A' { b'B' } else { b'A' };
    }
    String::from_utf8(bytes).unwrap_or_default()
}

fn unsigned_head() -> String {
    URL_SAFE_NO_PAD.encode(br#"{"alg":"none","typ":"floodgate-access+jwt","kid":"k1"}"#)
}

/// The same claims for a thousand units.
fn raised(claims: &str) -> String {
    let read = URL_SAFE_NO_PAD.decode(claims).ok();
    let read = read.and_then(|json| serde_json::from_slice::<serde_json::Value>(&json).ok());
    let mut claims = read.unwrap_or_else(|| serde_json::json!({}));
    claims["amount_max"] = serde_json::json!(1_000);
    URL_SAFE_NO_PAD.encode(claims.to_string())
}

/// The buyer of a session: its `sub`, read without checking the signature, for the history.
pub fn subject(session: &str) -> Option<i64> {
    let claims = session.split('.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&json).ok()?;
    claims["sub"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lua_free_rules::token::Session;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const CLAIMS: Claims = Claims {
        buyer: 5,
        promo: 1,
        item: 1,
        now_ms: NOW.0,
    };

    fn ring() -> KeyRing {
        KeyRing::new(vec![Key::new("k1", &[7; 32]).unwrap()], "k1").unwrap()
    }

    fn real() -> String {
        Access {
            buyer: BuyerId(5),
            jti: Nonce([9; 16]),
            promo: PromoId(1),
            item: ItemId(1),
            generation: Generation(1),
            amount_max: 2,
            issued_at: NOW,
            expires_at: NOW.plus_ms(60_000),
        }
        .mint(&ring())
        .unwrap()
    }

    #[test]
    fn no_forged_or_altered_token_is_a_real_one() {
        let real = real();
        assert!(Access::verify(&real, &ring(), NOW, 0).is_ok());
        let mut seen = std::collections::HashSet::new();
        for n in 0..2_000 {
            let mut dice = Dice::new(1, n);
            for token in [altered(&real, &mut dice), forged(CLAIMS, &mut dice)] {
                assert_ne!(token, real);
                assert!(Access::verify(&token, &ring(), NOW, 0).is_err(), "{token}");
                seen.insert(token);
            }
        }
        assert!(
            seen.len() > 2_100,
            "they differ from each other, too: {}",
            seen.len()
        );
    }

    #[test]
    fn an_altered_token_says_or_is_signed_as_something_else() {
        let decoded = |token: &str| -> Vec<Option<Vec<u8>>> {
            token
                .split('.')
                .map(|part| URL_SAFE_NO_PAD.decode(part).ok())
                .collect()
        };
        let real = real();
        for n in 0..2_000 {
            let token = altered(&real, &mut Dice::new(2, n));
            assert_ne!(
                decoded(&token),
                decoded(&real),
                "a change that changes nothing: {token}"
            );
        }
    }

    #[test]
    fn odd_tokens_are_altered_without_a_panic() {
        for odd in ["", ".", "..", "a.b.c", "a", "....", "é.é.é"] {
            for n in 0..20 {
                assert_ne!(altered(odd, &mut Dice::new(3, n)), real());
            }
        }
    }

    #[test]
    fn a_session_names_its_buyer() {
        let session = Session {
            buyer: BuyerId(77),
            id: Nonce([1; 16]),
            expires_at: NOW,
        };
        assert_eq!(subject(&session.mint(&ring()).unwrap()), Some(77));
        for bad in ["", "a.b.c", "e30.e30.e30"] {
            assert_eq!(subject(bad), None);
        }
    }
}
