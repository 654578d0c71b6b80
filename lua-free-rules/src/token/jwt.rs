//! Compact JWTs (RFC 7519) with HS256 and nothing else: how claims are signed, and how signed ones are opened.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::TokenFault;
use crate::keys::KeyRing;

/// Longest token accepted, in bytes; looked at before anything is decoded.
pub const TOKEN_BYTES_MAX: usize = 1024;

/// Claims as a token for that use, signed by the active key.
///
/// # Errors
/// If the JWT library fails; it does not with HS256.
pub(super) fn sign<T: Serialize>(
    ring: &KeyRing,
    kind: &str,
    claims: &T,
) -> Result<String, TokenFault> {
    let key = ring.active();
    let mut header = Header::new(Algorithm::HS256);
    header.typ = Some(kind.to_owned());
    header.kid = Some(key.id().to_owned());
    jsonwebtoken::encode(&header, claims, &key.encoding).map_err(|_| TokenFault::Malformed)
}

/// The claims of a token that is signed by a key of the ring, for that use.
///
/// The JWT library would read header and claims twice each, and key its HMAC anew each time: for what nearly
/// every request brings, that is most of its cost. What is done here instead is held against it by a test.
///
/// # Errors
/// Says why the token is not accepted.
pub(super) fn open<'a, T: Deserialize<'a>>(
    text: &str,
    ring: &KeyRing,
    kind: &str,
    space: &'a mut Space,
) -> Result<T, TokenFault> {
    if text.len() > TOKEN_BYTES_MAX {
        return Err(TokenFault::Malformed);
    }
    let (message, signature) = text.rsplit_once('.').ok_or(TokenFault::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(TokenFault::Malformed)?;
    let header = decoded(header, space)?;
    if !header.starts_with(b"{") {
        return Err(TokenFault::Malformed);
    }
    let header: Opened<'_> = serde_json::from_slice(header).map_err(|_| TokenFault::Malformed)?;
    if header.alg != "HS256" {
        return Err(TokenFault::Malformed);
    }
    // What must be understood and is not (RFC 7515, section 4.1.11) makes it another's.
    if header.typ.as_deref() != Some(kind) || header.crit {
        return Err(TokenFault::Foreign);
    }
    let key = header.kid.as_deref().and_then(|id| ring.find(id));
    let key = key.ok_or(TokenFault::UnknownKey)?;
    let signature = decoded(signature, space)?;
    if !key.signed(message.as_bytes(), signature) {
        return Err(TokenFault::BadSignature);
    }
    let claims = decoded(claims, space)?;
    serde_json::from_slice(claims).map_err(|_| TokenFault::Malformed)
}

/// What a token's header says.
#[derive(Deserialize)]
struct Opened<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    typ: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

/// Whatever it is.
fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Room for a part of a token.
type Space = [u8; TOKEN_BYTES_MAX];

fn decoded<'a>(part: &str, space: &'a mut Space) -> Result<&'a [u8], TokenFault> {
    let length = URL_SAFE_NO_PAD.decode_slice(part, space);
    let length = length.map_err(|_| TokenFault::Malformed)?;
    space.get(..length).ok_or(TokenFault::Malformed)
}
