//! Users, and the one-time codes that prove a number is theirs.

use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{BuyerId, Timestamp};
use subtle::ConstantTimeEq as _;

use super::Ledger;
use super::codes::is_duplicate;
use super::connection::Tx;
use super::retry::retried;
use super::values::Row;
use crate::error::{BackendError, Result};

const HOUR_MS: i64 = 3_600_000;

/// A registered user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The buyer's id.
    pub id: BuyerId,
    /// The phone number, whole.
    pub tel: String,
    /// The name.
    pub name: String,
    /// 0 to 2, if it was told.
    pub gender: Option<i64>,
    /// In years, if it was told.
    pub age: Option<i64>,
}

/// Someone who registers.
#[derive(Debug)]
pub struct NewUser<'a> {
    /// The phone number.
    pub tel: &'a str,
    /// The name.
    pub name: &'a str,
    /// The password's hash, as a PHC string.
    pub password_hash: &'a str,
    /// 0 to 2, if it is told.
    pub gender: Option<i64>,
    /// In years, if it is told.
    pub age: Option<i64>,
}

/// A one-time code that was asked for.
#[derive(Debug)]
pub struct Otp<'a> {
    /// For which number.
    pub tel: &'a str,
    /// The keyed digest of number and code.
    pub digest: [u8; 32],
    /// How long it is good.
    pub ttl_ms: i64,
    /// Wrong guesses after which it is void.
    pub attempts: u32,
    /// Codes the number may ask for in an hour.
    pub per_hour: u32,
}

impl Ledger {
    /// Stores a code; it replaces earlier ones of the number.
    ///
    /// # Errors
    /// [`Refusal::TooManyRequests`] if the number has asked too often.
    pub async fn store_otp(&self, otp: &Otp<'_>, now: Timestamp) -> Result<()> {
        retried(|| async {
            let mut tx = self.begin().await?;
            // Those that a number asks for at the same time come one after the other: they wait for its
            // last code here, or meet the key of the first one.
            last_otp(&mut tx, otp.tel).await?;
            let recent = tx
                .query(
                    "SELECT count(CASE WHEN asked_at > ? THEN 1 END) AS asked, \
                     min(CASE WHEN asked_at > ? THEN asked_at END) AS oldest, \
                     coalesce(max(nth), 0) + 1 AS next FROM otps WHERE tel = ?",
                )
                .bind(now.plus_ms(-HOUR_MS).0)
                .bind(now.plus_ms(-HOUR_MS).0)
                .bind(otp.tel)
                .fetch_one()
                .await?;
            if recent.get::<i64>("asked")? >= i64::from(otp.per_hour) {
                return Err(asked_too_often(recent.get("oldest")?, now).into());
            }
            tx.query(
                "INSERT INTO otps (tel, nth, digest, asked_at, expires_at, attempts_left) \
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(otp.tel)
            .bind(recent.get::<i64>("next")?)
            .bind(&otp.digest[..])
            .bind(now.0)
            .bind(now.plus_ms(otp.ttl_ms).0)
            .bind(otp.attempts)
            .execute()
            .await?;
            tx.commit().await
        })
        .await
    }

    /// Looks at a code without using it up. A wrong one costs an attempt.
    ///
    /// # Errors
    /// [`Refusal::WrongOtp`].
    pub async fn check_otp(&self, tel: &str, digest: &[u8; 32], now: Timestamp) -> Result<()> {
        retried(|| async {
            let mut tx = self.begin().await?;
            let verdict = judge_otp(&mut tx, tel, digest, now).await?;
            tx.commit().await?;
            verdict.map(drop).map_err(Into::into)
        })
        .await
    }

    /// Registers a user and uses the code up, in one transaction.
    ///
    /// # Errors
    /// [`Refusal::WrongOtp`], [`Refusal::NumberTaken`].
    pub async fn register(
        &self,
        user: &NewUser<'_>,
        digest: &[u8; 32],
        now: Timestamp,
    ) -> Result<User> {
        retried(|| async {
            let mut tx = self.begin().await?;
            let nth = match judge_otp(&mut tx, user.tel, digest, now).await? {
                Ok(nth) => nth,
                Err(refusal) => {
                    // The attempt counts.
                    tx.commit().await?;
                    return Err(refusal.into());
                }
            };
            tx.query("UPDATE otps SET attempts_left = 0 WHERE tel = ? AND nth = ?")
                .bind(user.tel)
                .bind(nth)
                .execute()
                .await?;
            let id = insert_user(&mut tx, user, now).await?;
            tx.commit().await?;
            Ok(User {
                id,
                tel: user.tel.to_owned(),
                name: user.name.to_owned(),
                gender: user.gender,
                age: user.age,
            })
        })
        .await
    }

    /// The user of that id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn user(&self, id: BuyerId) -> Result<Option<User>> {
        let row = self
            .read("SELECT id, tel, name, gender, age FROM users WHERE id = ?")
            .await?
            .bind(id.0)
            .fetch_optional()
            .await?;
        row.as_ref().map(read_user).transpose()
    }

    /// The user of that number, with the hash of his password.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn user_by_tel(&self, tel: &str) -> Result<Option<(User, String)>> {
        let row = self
            .read("SELECT id, tel, name, gender, age, password_hash FROM users WHERE tel = ?")
            .await?
            .bind(tel)
            .fetch_optional()
            .await?;
        row.map(|row| Ok((read_user(&row)?, row.get("password_hash")?)))
            .transpose()
    }

    /// Forgets codes that neither are good nor count for the rate. Returns how many.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn purge_otps(&self, now: Timestamp) -> Result<u64> {
        let done = self
            .write("DELETE FROM otps WHERE asked_at <= ? AND expires_at <= ?")
            .await?
            .bind(now.plus_ms(-HOUR_MS).0)
            .bind(now.0)
            .execute()
            .await?;
        Ok(done.rows)
    }
}

async fn insert_user(tx: &mut Tx, user: &NewUser<'_>, now: Timestamp) -> Result<BuyerId> {
    let inserted = tx
        .query(
            "INSERT INTO users (tel, name, password_hash, gender, age, created_at) \
             VALUES (?, ?, ?, ?, ?, ?) {returning_id}",
        )
        .bind(user.tel)
        .bind(user.name)
        .bind(user.password_hash)
        .bind(user.gender)
        .bind(user.age)
        .bind(now.0)
        .insert()
        .await;
    match inserted {
        Err(BackendError::Database(error)) if is_duplicate(&error) => {
            Err(Refusal::NumberTaken.into())
        }
        inserted => inserted.map(BuyerId),
    }
}

fn asked_too_often(oldest: Option<i64>, now: Timestamp) -> Refusal {
    let wait_ms = Timestamp(oldest.unwrap_or(now.0))
        .plus_ms(HOUR_MS)
        .ms_since(now);
    let retry_after_s = u32::try_from(wait_ms.saturating_add(999) / 1_000).unwrap_or(3_600);
    Refusal::TooManyRequests { retry_after_s }
}

/// The last code of a number, locked.
async fn last_otp(tx: &mut Tx, tel: &str) -> Result<Option<Row>> {
    tx.query(
        "SELECT nth, digest, expires_at, attempts_left FROM otps WHERE tel = ? \
         ORDER BY nth DESC LIMIT 1 {lock}",
    )
    .bind(tel)
    .fetch_optional()
    .await
}

/// Which code of the number is good, or a refusal. A wrong guess costs an attempt.
async fn judge_otp(
    tx: &mut Tx,
    tel: &str,
    digest: &[u8; 32],
    now: Timestamp,
) -> Result<std::result::Result<i64, Refusal>> {
    let Some(row) = last_otp(tx, tel).await? else {
        return Ok(Err(Refusal::WrongOtp));
    };
    let (nth, expires_at): (i64, i64) = (row.get("nth")?, row.get("expires_at")?);
    let attempts_left: i64 = row.get("attempts_left")?;
    let stored: Vec<u8> = row.get("digest")?;
    if now.0 >= expires_at || attempts_left <= 0 {
        return Ok(Err(Refusal::WrongOtp));
    }
    if bool::from(stored.as_slice().ct_eq(&digest[..])) {
        return Ok(Ok(nth));
    }
    tx.query("UPDATE otps SET attempts_left = attempts_left - 1 WHERE tel = ? AND nth = ?")
        .bind(tel)
        .bind(nth)
        .execute()
        .await?;
    Ok(Err(Refusal::WrongOtp))
}

fn read_user(row: &Row) -> Result<User> {
    Ok(User {
        id: BuyerId(row.get("id")?),
        tel: row.get("tel")?,
        name: row.get("name")?,
        gender: row.get("gender")?,
        age: row.get("age")?,
    })
}
