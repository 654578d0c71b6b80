//! The ring of signing keys: one signs, several are accepted, so that keys can be rotated.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::EncodingKey;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// The fewest bytes a secret may have: as many as the digest it keys.
pub const SECRET_BYTES_MIN: usize = 32;

/// Words in secrets that were written down to be replaced.
const SAMPLE_WORDS: [&str; 6] = [
    "sample",
    "example",
    "changeme",
    "change-me",
    "change_me",
    "your-",
];

/// Whether a secret was made up to show how one looks, or typed without a thought: it says so itself, is
/// one piece over and over, or counts up or down. What was drawn by chance never is.
pub fn is_sample(secret: &[u8]) -> bool {
    let is_repeated = |period: usize| secret[period..] == secret[..secret.len() - period];
    let mut steps = secret.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    let first = steps.next();
    let counts = steps.all(|step| Some(step) == first);
    let text = String::from_utf8_lossy(secret).to_ascii_lowercase();
    counts
        || (1..=secret.len() / 2).any(is_repeated)
        || SAMPLE_WORDS.iter().any(|word| text.contains(word))
}

/// What a key is used for. Each use has a key of its own, so that a value made for one can never
/// pass for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Challenge,
    Answer,
}

/// One signing key. Its secret is never shown.
#[derive(Clone)]
pub struct Key {
    id: String,
    pub(crate) encoding: EncodingKey,
    /// Keyed once, since every request with a token needs it.
    signature: Hmac<Sha256>,
    challenge: [u8; 32],
    answer: [u8; 32],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A key or a ring was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Too short to be safe.
    #[error("key `{0}` has fewer than {SECRET_BYTES_MIN} bytes: make one with `floodgate keygen`")]
    Short(String),
    /// An id that cannot stand in a token's header.
    #[error("`{0}` is not a key id: use 1 to 32 letters, digits, `-` or `_`")]
    BadId(String),
    /// The same id twice.
    #[error("key id `{0}` appears twice")]
    Twice(String),
    /// The active key is not in the ring.
    #[error("the active key `{0}` is not among the keys")]
    NoActive(String),
}

impl Key {
    /// A key named `id`.
    ///
    /// # Errors
    /// If the id is malformed or the secret too short.
    pub fn new(id: &str, secret: &[u8]) -> Result<Self, KeyError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if id.is_empty() || id.len() > 32 || !id.bytes().all(plain) {
            return Err(KeyError::BadId(id.to_owned()));
        }
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::Short(id.to_owned()));
        }
        let derived = |label: &[u8]| -> [u8; 32] {
            let mut mac = new_mac(secret);
            mac.update(label);
            mac.finalize().into_bytes().into()
        };
        Ok(Self {
            id: id.to_owned(),
            // Tokens are signed with the secret itself, so that any backend can verify them with
            // the shared key; the other uses have derived keys.
            encoding: EncodingKey::from_secret(secret),
            signature: new_mac(secret),
            challenge: derived(b"floodgate challenge v1"),
            answer: derived(b"floodgate answer v1"),
        })
    }

    /// The key's id, the `kid` of the tokens it signs.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether `signature` is the HMAC-SHA-256 over `message` under the secret itself (RFC 7518, section 3.2).
    /// Takes as long whether it is or not.
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let mac = self.signature.clone().chain_update(message);
        mac.verify_slice(signature).is_ok()
    }

    /// HMAC-SHA-256 over `parts`, each with its length in front, under the key for `purpose`.
    pub(crate) fn mac(&self, purpose: Purpose, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = new_mac(match purpose {
            Purpose::Challenge => &self.challenge,
            Purpose::Answer => &self.answer,
        });
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

fn new_mac(secret: &[u8]) -> Hmac<Sha256> {
    // HMAC takes a key of any length; the error type exists for other MACs.
    Hmac::new_from_slice(secret).unwrap_or_else(|_| Hmac::new(&Default::default()))
}

/// Whether two digests are equal, in a time that does not tell where they differ.
pub(crate) fn same(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// The keys that are accepted, and the one that signs.
#[derive(Debug, Clone)]
pub struct KeyRing {
    keys: Vec<Key>,
    active: usize,
}

impl KeyRing {
    /// A ring of `keys` in which the one named `active` signs.
    ///
    /// # Errors
    /// If an id appears twice or the active key is missing.
    pub fn new(keys: Vec<Key>, active: &str) -> Result<Self, KeyError> {
        for (at, key) in keys.iter().enumerate() {
            if keys[..at].iter().any(|other| other.id == key.id) {
                return Err(KeyError::Twice(key.id.clone()));
            }
        }
        let active = keys
            .iter()
            .position(|key| key.id == active)
            .ok_or_else(|| KeyError::NoActive(active.to_owned()))?;
        Ok(Self { keys, active })
    }

    /// The key that signs.
    pub fn active(&self) -> &Key {
        // `active` was found in `keys`, and neither changes.
        &self.keys[self.active]
    }

    /// The accepted key of that id.
    pub fn find(&self, id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn ring() -> KeyRing {
        KeyRing::new(
            vec![
                Key::new("k1", &[1; 32]).unwrap(),
                Key::new("k2", &[2; 32]).unwrap(),
            ],
            "k2",
        )
        .unwrap()
    }

    #[test]
    fn a_ring_refuses_what_would_be_unsafe() {
        assert!(matches!(Key::new("k", &[0; 31]), Err(KeyError::Short(_))));
        assert!(matches!(Key::new("a b", &[0; 32]), Err(KeyError::BadId(_))));
        let key = Key::new("k", &[0; 32]).unwrap();
        assert!(matches!(
            KeyRing::new(vec![key.clone(), key.clone()], "k"),
            Err(KeyError::Twice(_))
        ));
        assert!(matches!(
            KeyRing::new(vec![key], "other"),
            Err(KeyError::NoActive(_))
        ));
    }

    #[test]
    fn a_sample_is_told_from_a_secret() {
        for sample in [
            &[7_u8; 32][..],
            &(0..32).collect::<Vec<u8>>(),
            &(0..32).rev().collect::<Vec<u8>>(),
            b"0123456789abcdef0123456789abcdef",
            b"this-is-a-sample-key-for-the-docs",
            b"ChangeMe-now-or-anyone-can-come-in",
            b"your-256-bit-secret",
        ] {
            assert!(is_sample(sample), "{}", String::from_utf8_lossy(sample));
        }
        let drawn: Vec<u8> = (0..32_u32).map(|n| (n * n * 37 % 251) as u8).collect();
        for secret in [
            &drawn[..],
            b"q8wVdV3xJmE0o2yT5hZrCw==",
            b"an operator's token",
        ] {
            assert!(!is_sample(secret), "{}", String::from_utf8_lossy(secret));
        }
    }

    #[test]
    fn a_key_does_not_print_its_secret() {
        assert_eq!(
            format!("{:?}", Key::new("k", &[7; 32]).unwrap()),
            r#"Key { id: "k", .. }"#
        );
    }
}
