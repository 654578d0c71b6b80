//! The signature of a webhook's call: `floodgate-signature: t=<unix seconds>,v1=<hex>`, where `<hex>` is
//! the HMAC-SHA-256 of `<t>.<body>` under a secret that only the provider and the shop know.
//!
//! It is the scheme that well-known payment providers publish for their own webhooks. The time stands
//! under the signature, so a call that was overheard cannot be told again later; the body is signed as it
//! came, byte for byte, before anyone reads it. While a secret is being changed, a provider may sign with
//! both (several `v1`), and the shop accepts both: neither side has to change over at one moment. What the
//! header holds beside `t` and `v1` is for other versions of the scheme and proves nothing.

use hmac::Mac as _;
use http::HeaderMap;
use lua_free_rules::units::{Millis, Timestamp};

use crate::settings::Secret;

/// The header.
pub const HEADER: &str = "floodgate-signature";
/// Longest header that is looked at, in bytes.
const HEADER_BYTES_MAX: usize = 1_024;
/// Most signatures in one header. With two secrets that bounds the work to 16 HMACs.
const SIGNATURES_MAX: usize = 8;
/// Most digits of a time: far beyond any moment that will be.
const TIME_DIGITS_MAX: usize = 12;
const DIGEST_BYTES: usize = 32;

/// Why a call is not believed. For the log: the caller is told nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// No header, or more than one.
    #[error("there must be one header `floodgate-signature`")]
    Absent,
    /// Not of the form above, or longer than it needs to be.
    #[error("the header is malformed")]
    Malformed,
    /// Signed too long ago, or in the future.
    #[error("it is signed for another time, {0} s from ours")]
    OtherTime(i64),
    /// No signature is of this body under a secret of the provider.
    #[error("no signature fits")]
    Forged,
}

/// Whether `body` was signed under one of `secrets`, at most `tolerance` before or after `now`.
pub fn verify(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Secret],
    tolerance: Millis,
    now: Timestamp,
) -> Result<(), Unsigned> {
    let mut written = headers.get_all(HEADER).iter();
    let (Some(header), None) = (written.next(), written.next()) else {
        return Err(Unsigned::Absent);
    };
    let claim = Claim::read(header.as_bytes()).ok_or(Unsigned::Malformed)?;
    let away_ms = claim.at.ms_since(now);
    if away_ms.abs() > tolerance.ms() {
        return Err(Unsigned::OtherTime(away_ms / 1_000));
    }
    let fits = |secret: &Secret| {
        let mut mac = secret.mac();
        mac.update(claim.time);
        mac.update(b".");
        mac.update(body);
        // In a time that does not tell where they differ.
        let fits = |digest: &[u8; DIGEST_BYTES]| mac.clone().verify_slice(digest).is_ok();
        claim.digests.iter().any(fits)
    };
    if secrets.iter().any(fits) {
        Ok(())
    } else {
        Err(Unsigned::Forged)
    }
}

/// What a header claims.
struct Claim<'h> {
    /// The time as it is written, which is how it was signed.
    time: &'h [u8],
    at: Timestamp,
    digests: Vec<[u8; DIGEST_BYTES]>,
}

impl<'h> Claim<'h> {
    fn read(header: &'h [u8]) -> Option<Self> {
        if header.len() > HEADER_BYTES_MAX {
            return None;
        }
        let (mut time, mut digests) = (None, Vec::new());
        for part in header.split(|byte| *byte == b',') {
            let part = part.trim_ascii();
            let equals = part.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (&part[..equals], &part[equals + 1..]);
            match key {
                b"t" if time.is_some() => return None,
                b"t" => time = Some((value, seconds(value)?)),
                b"v1" if digests.len() == SIGNATURES_MAX => return None,
                b"v1" => digests.push(digest(value)?),
                _ => {}
            }
        }
        let (time, at) = time?;
        (!digests.is_empty()).then_some(Self { time, at, digests })
    }
}

fn seconds(digits: &[u8]) -> Option<Timestamp> {
    let is_short = (1..=TIME_DIGITS_MAX).contains(&digits.len());
    if !is_short || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds: i64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(Timestamp(seconds * 1_000))
}

fn digest(hex: &[u8]) -> Option<[u8; DIGEST_BYTES]> {
    if hex.len() != 2 * DIGEST_BYTES {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut digest = [0; DIGEST_BYTES];
    for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::hex;

    const NOW: Timestamp = Timestamp(1_800_000_000_500);
    const BODY: &[u8] = br#"{"event":"paid"}"#;

    /// `v1=…` of `time.body` under `secret`.
    fn v1(secret: &str, time: &str, body: &[u8]) -> String {
        let mut mac = Secret::new(secret).mac();
        mac.update(format!("{time}.").as_bytes());
        mac.update(body);
        format!("v1={}", hex(&mac.finalize().into_bytes()))
    }

    fn signed(secret: &str, time: &str) -> String {
        format!("t={time},{}", v1(secret, time, BODY))
    }

    fn verdict(header: &str) -> Result<(), Unsigned> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, header.parse().unwrap());
        let secrets = [Secret::new("now"), Secret::new("before")];
        verify(&headers, BODY, &secrets, Millis::seconds(300), NOW)
    }

    #[test]
    fn a_known_answer() {
        // echo -n '1800000000.{"event":"paid"}' | openssl dgst -sha256 -hmac now
        let known = "a744114b8d924b8c59aae2dd55b526ec87ccdb4e7ad9f7a8a61c691c26683475";
        assert_eq!(v1("now", "1800000000", BODY), format!("v1={known}"));
        assert_eq!(verdict(&format!("t=1800000000,v1={known}")), Ok(()));
        let shouted = known.to_uppercase();
        assert_eq!(verdict(&format!("t=1800000000,v1={shouted}")), Ok(()));
    }

    #[test]
    fn both_secrets_count_and_no_other() {
        let time = "1800000000";
        assert_eq!(verdict(&signed("now", time)), Ok(()));
        assert_eq!(verdict(&signed("before", time)), Ok(()));
        assert_eq!(verdict(&signed("guessed", time)), Err(Unsigned::Forged));
        assert_eq!(verdict(&signed("", time)), Err(Unsigned::Forged));
        // Signed with two, of which the shop knows one; and what other versions add.
        let both = format!(
            "t={time}, {}, {}, v0=x",
            v1("next", time, BODY),
            v1("now", time, BODY)
        );
        assert_eq!(verdict(&both), Ok(()));
        let other_body = format!("t={time},{}", v1("now", time, b"{}"));
        assert_eq!(verdict(&other_body), Err(Unsigned::Forged));
        // The time is signed too, as it is written.
        let moved = format!("t=1800000001,{}", v1("now", time, BODY));
        assert_eq!(verdict(&moved), Err(Unsigned::Forged));
        let respelt = format!("t=01800000000,{}", v1("now", time, BODY));
        assert_eq!(verdict(&respelt), Err(Unsigned::Forged));
    }

    #[test]
    fn the_window_has_two_sides() {
        for (time, verdict_then) in [
            ("1799999700", Err(Unsigned::OtherTime(-300))),
            ("1799999701", Ok(())),
            ("1800000300", Ok(())),
            ("1800000301", Err(Unsigned::OtherTime(300))),
            ("0", Err(Unsigned::OtherTime(-1_800_000_000))),
            ("999999999999", Err(Unsigned::OtherTime(998_199_999_998))),
        ] {
            assert_eq!(verdict(&signed("now", time)), verdict_then, "{time}");
        }
    }

    #[test]
    fn what_is_malformed_is_refused_whole() {
        let good = signed("now", "1800000000");
        let one = v1("now", "1800000000", BODY);
        let many = format!("{good}{}", format!(",{one}").repeat(SIGNATURES_MAX - 1));
        assert_eq!(verdict(&many), Ok(()));
        for header in [
            String::new(),
            "t=1800000000".to_owned(),
            one.clone(),
            format!("{many},{one}"),
            format!("{good},t=1800000000"),
            format!("{good},"),
            format!("{good},v1"),
            format!("{good},v1="),
            format!("{good},v1=zz"),
            format!("{good}0"),
            format!("{good},v0={}", "x".repeat(HEADER_BYTES_MAX)),
            format!("t=,{one}"),
            format!("t=+1800000000,{one}"),
            format!("t=-1800000000,{one}"),
            format!("t=1800000000000,{one}"),
            format!("t=1.8e9,{one}"),
            one.replace("v1=", "sha256="),
        ] {
            assert_eq!(verdict(&header), Err(Unsigned::Malformed), "{header}");
        }
    }

    #[test]
    fn there_is_one_header() {
        let check = |headers: &HeaderMap| {
            verify(
                headers,
                BODY,
                &[Secret::new("now")],
                Millis::seconds(300),
                NOW,
            )
        };
        let mut headers = HeaderMap::new();
        assert_eq!(check(&headers), Err(Unsigned::Absent));
        for expected in [Ok(()), Err(Unsigned::Absent)] {
            let header = signed("now", "1800000000").parse().unwrap();
            headers.append(HEADER, header);
            assert_eq!(check(&headers), expected);
        }
    }
}
