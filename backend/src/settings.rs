//! What an order server is started with: the node's settings with every file already read.

use std::fmt;
use std::net::SocketAddr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use lua_free_rules::config;
use lua_free_rules::keys::KeyRing;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::ledger::LedgerSettings;
use crate::payment::Webhook;

/// Everything [`crate::start`] and [`crate::start_order_servers`] need.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What this node is called among those that share the engine.
    pub node_name: String,
    /// One order server listens at each of these.
    pub listen: Vec<SocketAddr>,
    /// Where `/live`, `/ready` and `/metrics` are answered.
    pub admin: SocketAddr,
    /// The node: orders, writer, accounts and payment are read from it.
    pub node: config::Node,
    /// The ledger's database.
    pub ledger: LedgerSettings,
    /// The keys that sign sessions and access tokens.
    pub keys: KeyRing,
    /// What an operator shows.
    pub operator_token: Secret,
    /// Signs the demo provider's webhook, and keys the digests of one-time codes.
    pub webhook_secret: Secret,
    /// The payment providers beside the demo.
    pub webhooks: Vec<Webhook>,
    /// Mark cookies Secure.
    pub secure_cookies: bool,
    /// Items to seed, where the ledger does not have them.
    pub catalog: Vec<config::CatalogItem>,
    /// The sales that may be published.
    pub promos: Vec<config::Promo>,
    /// Publish those that never were, before the first request is taken.
    pub publish_first: bool,
    /// Nobody else has the engine or the ledger: whether the two belong together is looked at first.
    pub exclusive: bool,
}

/// Everything [`crate::start_writer`] needs.
#[derive(Debug, Clone)]
pub struct WriterSettings {
    /// What this node is called among those that share the engine.
    pub node_name: String,
    /// Where `/live`, `/ready` and `/metrics` are answered.
    pub admin: SocketAddr,
    /// The ledger's database.
    pub ledger: LedgerSettings,
    /// How it works.
    pub writer: config::Writer,
}

/// Bytes that are never shown.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps a secret.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Whether there is none: such a secret is refused at the start.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `shown` is this secret, in a time that does not tell where they differ.
    pub fn is(&self, shown: &[u8]) -> bool {
        // Digests have one length, so the time does not tell the secret's length either.
        let (left, right) = (Sha256::digest(&self.0), Sha256::digest(shown));
        !self.is_empty() && bool::from(left.as_slice().ct_eq(right.as_slice()))
    }

    /// The secret itself, if it is UTF-8: for who has to show it, like a database's client.
    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Eight hexadecimal digits that stand for the secret in logs.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.0)[..4])
    }

    /// An HMAC-SHA-256 under this secret, still open.
    pub(crate) fn mac(&self) -> Hmac<Sha256> {
        // HMAC takes a key of any length; the error type exists for other MACs.
        Hmac::new_from_slice(&self.0).unwrap_or_else(|_| Hmac::new(&Default::default()))
    }

    /// A secret for one purpose, from which this one cannot be found.
    pub(crate) fn derive(&self, purpose: &str) -> Self {
        let mut mac = self.mac();
        mac.update(purpose.as_bytes());
        Self(mac.finalize().into_bytes().to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_compared_and_never_shown() {
        let secret = Secret::new("correct horse");
        assert!(secret.is(b"correct horse"));
        assert!(!secret.is(b"correct hors"));
        assert!(!secret.is(b""));
        assert!(!Secret::new("").is(b""));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.fingerprint().len(), 8);
        assert!(!secret.derive("a").is(b"correct horse"));
    }
}
