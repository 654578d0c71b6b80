//! `[accounts]`: registration and sign-in. Fields, defaults and bounds.

use toml::de::DeValue;

use super::node::none_of;
use super::reader::{Found, Table};
use super::value::Leaf;
use crate::units::Millis;

/// Registration and sign-in.
#[derive(Debug, Clone, PartialEq)]
pub struct Accounts {
    /// How one-time codes reach their owner.
    pub otp_delivery: OtpDelivery,
    /// Where `webhook` delivery posts `{"tel":…,"code":…}`.
    pub otp_webhook: Option<String>,
    /// How long a code is good.
    pub otp_ttl: Millis,
    /// Wrong guesses after which a code is void.
    pub otp_attempts: u32,
    /// Codes one number may ask for in an hour.
    pub otp_per_hour: u32,
    /// How long a session lasts.
    pub session_ttl: Millis,
    /// Password hashes computed at once.
    pub hash_concurrency: usize,
    /// Whether an operator can make signed-in test accounts: for crowds, never for real buyers.
    pub test_accounts: bool,
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            otp_delivery: OtpDelivery::Log,
            otp_webhook: None,
            otp_ttl: Millis::seconds(300),
            otp_attempts: 5,
            otp_per_hour: 5,
            session_ttl: Millis::seconds(12 * 3_600),
            hash_concurrency: 2,
            test_accounts: false,
        }
    }
}

impl Accounts {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let default = Self::default();
        let delivery = table.get::<OtpDelivery>("otp_delivery");
        let webhook = table.get::<String>("otp_webhook");
        check_delivery(table, delivery, webhook.as_ref());
        let (hour, month) = (Millis::seconds(3_600), Millis::seconds(30 * 24 * 3_600));
        Self {
            otp_delivery: delivery.map_or(default.otp_delivery, |found| found.value),
            otp_webhook: webhook.map(|found| found.value),
            otp_ttl: table.quantity("otp_ttl", default.otp_ttl, Millis::seconds(10)..=hour),
            otp_attempts: table.number("otp_attempts", default.otp_attempts, 1..=100),
            otp_per_hour: table.number("otp_per_hour", default.otp_per_hour, 1..=1_000),
            session_ttl: table.quantity(
                "session_ttl",
                default.session_ttl,
                Millis::seconds(60)..=month,
            ),
            hash_concurrency: table.number("hash_concurrency", default.hash_concurrency, 1..=64),
            test_accounts: table.or("test_accounts", default.test_accounts),
        }
    }
}

/// Delivery by webhook and its address belong together.
fn check_delivery(
    table: &Table<'_>,
    delivery: Option<Found<OtpDelivery>>,
    webhook: Option<&Found<String>>,
) {
    let is_webhook = delivery.is_some_and(|found| found.value == OtpDelivery::Webhook);
    if let Some(delivery) = delivery.filter(|_| is_webhook)
        && table.key_at("otp_webhook").is_none()
    {
        table.error(
            delivery.at,
            "`accounts.otp_delivery` is \"webhook\", but `otp_webhook` is missing: write where to \
             post, like `otp_webhook = \"http://127.0.0.1:9090/code\"`",
        );
    }
    let Some(webhook) = webhook else { return };
    if !is_web_address(&webhook.value) {
        // What stands there may hold a password: it is not repeated.
        table.error(
            webhook.at,
            "`accounts.otp_webhook` is not a plain web address: write one like \
             \"http://127.0.0.1:9090/code\", without a name and password in it; what leaves the \
             machine goes through a TLS proxy beside it",
        );
    }
    let delivery_is_wrong = delivery.is_none() && table.key_at("otp_delivery").is_some();
    if !is_webhook && !delivery_is_wrong {
        table.error(
            webhook.at,
            "`accounts.otp_webhook` is never used: set `otp_delivery = \"webhook\"`, or remove it",
        );
    }
}

fn is_web_address(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|uri| {
        let named = uri.host().is_some_and(|host| !host.is_empty());
        let open = uri
            .authority()
            .is_some_and(|all| !all.as_str().contains('@'));
        uri.scheme_str() == Some("http") && named && open
    })
}

/// How one-time codes reach their owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtpDelivery {
    /// In the answer itself: for trying things out.
    Echo,
    /// In the log of the order server.
    Log,
    /// By a POST to a service of yours.
    Webhook,
}

impl Leaf for OtpDelivery {
    const EXPECTED: &'static str = "one of \"echo\", \"log\", \"webhook\", in quotes";

    fn from_toml(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        Some(match value.as_str()? {
            "echo" => Ok(Self::Echo),
            "log" => Ok(Self::Log),
            "webhook" => Ok(Self::Webhook),
            other => Err(none_of(
                other,
                "a way to deliver codes",
                &["echo", "log", "webhook"],
            )),
        })
    }
}
