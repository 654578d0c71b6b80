//! Users, and the one-time codes that prove a number is theirs.

use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{BuyerId, Timestamp};
use sqlx::{Row as _, Sqlite, Transaction};
use subtle::ConstantTimeEq as _;

use super::Ledger;
use crate::error::Result;

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
        let mut tx = self.begin().await?;
        let recent = sqlx::query(
            "SELECT count(*) AS asked, min(asked_at) AS oldest FROM otps \
             WHERE tel = ? AND asked_at > ?",
        )
        .bind(otp.tel)
        .bind(now.plus_ms(-HOUR_MS).0)
        .fetch_one(&mut *tx)
        .await?;
        let asked: i64 = recent.try_get("asked")?;
        if asked >= i64::from(otp.per_hour) {
            let oldest: Option<i64> = recent.try_get("oldest")?;
            let wait_ms = Timestamp(oldest.unwrap_or(now.0))
                .plus_ms(HOUR_MS)
                .ms_since(now);
            let retry_after_s = u32::try_from(wait_ms.saturating_add(999) / 1_000).unwrap_or(3_600);
            return Err(Refusal::TooManyRequests { retry_after_s }.into());
        }
        sqlx::query(
            "INSERT INTO otps (tel, digest, asked_at, expires_at, attempts_left) \
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(otp.tel)
        .bind(&otp.digest[..])
        .bind(now.0)
        .bind(now.plus_ms(otp.ttl_ms).0)
        .bind(otp.attempts)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Looks at a code without using it up. A wrong one costs an attempt.
    ///
    /// # Errors
    /// [`Refusal::WrongOtp`].
    pub async fn check_otp(&self, tel: &str, digest: &[u8; 32], now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        let verdict = judge_otp(&mut tx, tel, digest, now).await?;
        tx.commit().await?;
        verdict.map(drop).map_err(Into::into)
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
        let mut tx = self.begin().await?;
        let code = match judge_otp(&mut tx, user.tel, digest, now).await? {
            Ok(code) => code,
            Err(refusal) => {
                // The attempt counts.
                tx.commit().await?;
                return Err(refusal.into());
            }
        };
        sqlx::query("UPDATE otps SET attempts_left = 0 WHERE id = ?")
            .bind(code)
            .execute(&mut *tx)
            .await?;
        let row = sqlx::query(
            "INSERT INTO users (tel, name, password_hash, gender, age, created_at) \
             VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (tel) DO NOTHING RETURNING id",
        )
        .bind(user.tel)
        .bind(user.name)
        .bind(user.password_hash)
        .bind(user.gender)
        .bind(user.age)
        .bind(now.0)
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(Refusal::NumberTaken)?;
        let id = BuyerId(row.try_get("id")?);
        tx.commit().await?;
        Ok(User {
            id,
            tel: user.tel.to_owned(),
            name: user.name.to_owned(),
            gender: user.gender,
            age: user.age,
        })
    }

    /// The user of that id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn user(&self, id: BuyerId) -> Result<Option<User>> {
        let row = sqlx::query("SELECT id, tel, name, gender, age FROM users WHERE id = ?")
            .bind(id.0)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(read_user).transpose()
    }

    /// The user of that number, with the hash of his password.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn user_by_tel(&self, tel: &str) -> Result<Option<(User, String)>> {
        let row = sqlx::query(
            "SELECT id, tel, name, gender, age, password_hash FROM users WHERE tel = ?",
        )
        .bind(tel)
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| Ok((read_user(&row)?, row.try_get("password_hash")?)))
            .transpose()
    }

    /// Forgets codes that neither are good nor count for the rate. Returns how many.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn purge_otps(&self, now: Timestamp) -> Result<u64> {
        let done = sqlx::query("DELETE FROM otps WHERE asked_at <= ? AND expires_at <= ?")
            .bind(now.plus_ms(-HOUR_MS).0)
            .bind(now.0)
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected())
    }
}

/// The row of a code that is good, or a refusal. A wrong guess costs an attempt.
async fn judge_otp(
    tx: &mut Transaction<'static, Sqlite>,
    tel: &str,
    digest: &[u8; 32],
    now: Timestamp,
) -> Result<std::result::Result<i64, Refusal>> {
    let newest = sqlx::query(
        "SELECT id, digest, expires_at, attempts_left FROM otps WHERE tel = ? \
         ORDER BY id DESC LIMIT 1",
    )
    .bind(tel)
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = newest else {
        return Ok(Err(Refusal::WrongOtp));
    };
    let (id, expires_at): (i64, i64) = (row.try_get("id")?, row.try_get("expires_at")?);
    let attempts_left: i64 = row.try_get("attempts_left")?;
    let stored: Vec<u8> = row.try_get("digest")?;
    if now.0 >= expires_at || attempts_left <= 0 {
        return Ok(Err(Refusal::WrongOtp));
    }
    if bool::from(stored.as_slice().ct_eq(&digest[..])) {
        return Ok(Ok(id));
    }
    sqlx::query("UPDATE otps SET attempts_left = attempts_left - 1 WHERE id = ?")
        .bind(id)
        .execute(&mut **tx)
        .await?;
    Ok(Err(Refusal::WrongOtp))
}

fn read_user(row: &sqlx::sqlite::SqliteRow) -> Result<User> {
    Ok(User {
        id: BuyerId(row.try_get("id")?),
        tel: row.try_get("tel")?,
        name: row.try_get("name")?,
        gender: row.try_get("gender")?,
        age: row.try_get("age")?,
    })
}
