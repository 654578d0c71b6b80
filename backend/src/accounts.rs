//! Accounts: passwords as argon2id off the async threads, one-time codes and their delivery.

use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use hmac::Mac as _;
use lua_free_rules::config::{self, OtpDelivery};
use lua_free_rules::refusal::Refusal;
use serde_json::json;

use crate::bounded::Bounded;
use crate::error::{BackendError, Result};
use crate::settings::Secret;

/// Sign-ins and registrations that may wait for a turn to hash; beyond it they get 503.
const HASHES_WAITING_MAX: usize = 64;
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// Passwords and one-time codes of a process.
#[derive(Clone)]
pub struct Accounts {
    /// The settings they follow.
    pub settings: config::Accounts,
    otp_secret: Secret,
    hashing: Bounded,
    /// The hash of a password that nobody has: what unknown numbers are compared with.
    nobody: Arc<str>,
    webhook: reqwest::Client,
}

impl Accounts {
    /// Accounts under these settings; `secret` keys the digests of one-time codes.
    pub fn new(settings: &config::Accounts, secret: &Secret) -> Result<Self> {
        let webhook = reqwest::Client::builder()
            .timeout(WEBHOOK_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| BackendError::Unexpected(format!("HTTP client: {error}")))?;
        Ok(Self {
            settings: settings.clone(),
            otp_secret: secret.derive("floodgate one-time codes v1"),
            hashing: Bounded::new(settings.hash_concurrency, HASHES_WAITING_MAX),
            nobody: hash(b"nobody has this password")?.into(),
            webhook,
        })
    }

    /// The hash of a password, as a PHC string.
    pub async fn hash(&self, password: &str) -> Result<String> {
        let password = password.to_owned();
        self.off_thread(move || hash(password.as_bytes())).await
    }

    /// Whether `password` belongs to `stored`. Without a stored hash it never does, and takes as
    /// long to say so.
    pub async fn verify(&self, password: &str, stored: Option<String>) -> Result<bool> {
        let (password, nobody) = (password.to_owned(), Arc::clone(&self.nobody));
        self.off_thread(move || {
            let known = stored.is_some();
            let stored = stored.as_deref().unwrap_or(&nobody);
            let hash = PasswordHash::new(stored)
                .map_err(|error| BackendError::Unexpected(format!("a stored hash: {error}")))?;
            let right = Argon2::default().verify_password(password.as_bytes(), &hash);
            Ok(known && right.is_ok())
        })
        .await
    }

    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.hashing.turn().await?;
        tokio::task::spawn_blocking(move || {
            // Held until the work is done, also when the request is given up meanwhile.
            let _turn = turn;
            work()
        })
        .await
        .map_err(|error| BackendError::Unexpected(format!("hashing: {error}")))?
    }

    /// A code of six digits, drawn by chance.
    pub fn draw_code(&self) -> Result<String> {
        Ok(format!("{:06}", u64::from_le_bytes(random()?) % 1_000_000))
    }

    /// What the ledger keeps of a code: without the secret, a million guesses do not find it.
    pub fn digest(&self, tel: &str, code: &str) -> [u8; 32] {
        let mut mac = self.otp_secret.mac();
        mac.update(tel.as_bytes());
        mac.update(&[0]);
        mac.update(code.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// Hands a code to its owner. Returns what the answer says: the code itself with `echo`.
    pub async fn deliver(&self, tel: &str, code: &str) -> Result<Option<String>> {
        match (self.settings.otp_delivery, &self.settings.otp_webhook) {
            (OtpDelivery::Echo, _) => return Ok(Some(code.to_owned())),
            (OtpDelivery::Webhook, Some(url)) => self.post(url, tel, code).await?,
            // The one place where a code is logged: this delivery was chosen for it.
            _ => tracing::info!(tel = mask(tel), code, "one-time code"),
        }
        Ok(None)
    }

    async fn post(&self, url: &str, tel: &str, code: &str) -> Result<()> {
        let sent = self
            .webhook
            .post(url)
            .json(&json!({ "tel": tel, "code": code }))
            .send()
            .await
            .and_then(reqwest::Response::error_for_status);
        sent.map(drop).map_err(|error| {
            let error = error.without_url();
            tracing::error!(tel = mask(tel), %error, "the one-time code was not delivered");
            Refusal::Overloaded.into()
        })
    }
}

fn hash(password: &[u8]) -> Result<String> {
    let salt: [u8; 16] = random()?;
    Argon2::default()
        .hash_password_with_salt(password, &salt)
        .map(|hash: argon2::password_hash::phc::PasswordHash| hash.to_string())
        .map_err(|error| BackendError::Unexpected(format!("hashing: {error}")))
}

/// Bytes drawn by chance.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| BackendError::Unexpected(format!("randomness: {error}")))?;
    Ok(bytes)
}

/// A phone number as it may be shown: its beginning, where it is long enough, and its end.
pub fn mask(tel: &str) -> String {
    let digits: Vec<char> = tel.chars().collect();
    let (head, tail) = if digits.len() >= 9 { (3, 3) } else { (0, 2) };
    digits
        .iter()
        .enumerate()
        .map(|(at, digit)| {
            let shown = at < head || at + tail >= digits.len();
            if shown { *digit } else { '*' }
        })
        .collect()
}

/// A phone number: 5 to 20 digits, with or without a `+` in front.
pub fn read_tel(tel: &str) -> std::result::Result<&str, Refusal> {
    let digits = tel.strip_prefix('+').unwrap_or(tel);
    if (5..=20).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(tel)
    } else {
        Err(Refusal::BadParameter(
            "`tel` must be 5 to 20 digits, with or without a + in front".to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_masked() {
        assert_eq!(mask("+4915112345678"), "+49********678");
        assert_eq!(mask("12345"), "***45");
        assert_eq!(mask(""), "");
    }

    #[test]
    fn a_number_is_digits() {
        for good in ["12345", "+4915112345678", "01234567890123456789"] {
            assert_eq!(read_tel(good), Ok(good));
        }
        for bad in [
            "",
            "+",
            "1234",
            "++12345",
            "12 345",
            "١٢٣٤٥",
            "012345678901234567890",
        ] {
            assert!(read_tel(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_password_belongs_to_its_hash_and_to_no_other() {
        let accounts =
            Accounts::new(&config::Node::default().accounts, &Secret::new("secret")).unwrap();
        let stored = accounts.hash("correct horse").await.unwrap();
        assert!(stored.starts_with("$argon2id$"));
        let verify = |password, stored| accounts.verify(password, stored);
        assert!(verify("correct horse", Some(stored.clone())).await.unwrap());
        assert!(!verify("wrong horse", Some(stored)).await.unwrap());
        assert!(!verify("nobody has this password", None).await.unwrap());
    }

    #[tokio::test]
    async fn a_webhook_is_told_number_and_code() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = config::Node::default().accounts;
        settings.otp_delivery = OtpDelivery::Webhook;
        settings.otp_webhook = Some(format!("http://{}/otp", listener.local_addr().unwrap()));
        let accounts = Accounts::new(&settings, &Secret::new("secret")).unwrap();
        let (told, asked) = tokio::join!(accounts.deliver("12345", "654321"), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"}") {
                stream.read_buf(&mut asked).await.unwrap();
            }
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        assert_eq!(told.unwrap(), None);
        assert!(
            asked.starts_with("POST /otp") && asked.contains("654321"),
            "{asked}"
        );
        drop(listener);
        let away = accounts.deliver("12345", "654321").await;
        assert!(matches!(
            away,
            Err(BackendError::Refused(Refusal::Overloaded))
        ));
    }

    #[test]
    fn a_code_has_six_digits_and_a_digest_of_its_number() {
        let accounts =
            Accounts::new(&config::Node::default().accounts, &Secret::new("secret")).unwrap();
        let code = accounts.draw_code().unwrap();
        assert!(code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit()));
        assert_ne!(accounts.digest("1", "23"), accounts.digest("12", "3"));
    }
}
