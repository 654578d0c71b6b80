//! `/user/…`: one-time codes, registration, sign-in and sign-out.

use http::header::SET_COOKIE;
use lua_free_rules::fields::Fields;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::{SESSION_COOKIE, Session};
use lua_free_rules::units::{Nonce, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::Call;
use crate::accounts::{mask, random, read_tel};
use crate::answer::Reply;
use crate::error::{BackendError, Result};
use crate::ledger::{NewUser, Otp, User};

const NAME_BYTES_MAX: usize = 100;
const PASSWORD_BYTES_MIN: usize = 8;
const PASSWORD_BYTES_MAX: usize = 128;
const TEL_BYTES_MAX: usize = 21;

#[derive(Serialize)]
struct UserAnswer {
    id: i64,
    name: String,
    tel: String,
    gender: Option<i64>,
    age: Option<i64>,
}

impl From<User> for UserAnswer {
    fn from(user: User) -> Self {
        Self {
            id: user.id.0,
            name: user.name,
            tel: mask(&user.tel),
            gender: user.gender,
            age: user.age,
        }
    }
}

pub async fn get_otp(call: Call) -> Result<Reply> {
    let fields = call.fields()?;
    let tel = tel(&fields)?;
    let accounts = &call.shop.accounts;
    let code = accounts.draw_code()?;
    let otp = Otp {
        tel,
        digest: accounts.digest(tel, &code),
        ttl_ms: accounts.settings.otp_ttl.ms(),
        attempts: accounts.settings.otp_attempts,
        per_hour: accounts.settings.otp_per_hour,
    };
    call.shop.ledger.store_otp(&otp, call.now).await?;
    let told = accounts.deliver(tel, &code).await?;
    Reply::ok(&told.map_or(Value::Null, |otp| json!({ "otp": otp })))
}

pub async fn register(call: Call) -> Result<Reply> {
    let fields = call.fields()?;
    let tel = tel(&fields)?;
    let code = fields.text("otpCode", 16)?;
    let name = fields.text("name", NAME_BYTES_MAX)?;
    let password = password(&fields)?;
    let gender = fields.optional_integer("gender", 0..=2)?;
    let age = fields.optional_integer("age", 0..=150)?;
    let (accounts, ledger) = (&call.shop.accounts, &call.shop.ledger);
    let digest = accounts.digest(tel, code);
    // A hash is dear: it is computed only for those who know the code.
    ledger.check_otp(tel, &digest, call.now).await?;
    let password_hash = accounts.hash(password).await?;
    let user = NewUser {
        tel,
        name,
        password_hash: &password_hash,
        gender,
        age,
    };
    let user = ledger.register(&user, &digest, call.now).await?;
    Reply::ok(&UserAnswer::from(user))
}

pub async fn login(call: Call) -> Result<Reply> {
    let fields = call.fields()?;
    let tel = tel(&fields)?;
    let password = fields.text("password", PASSWORD_BYTES_MAX)?;
    let shop = &call.shop;
    let (user, stored) = shop.ledger.user_by_tel(tel).await?.unzip();
    let right = shop.accounts.verify(password, stored).await?;
    let user = user.filter(|_| right).ok_or(Refusal::WrongLogin)?;
    let ttl_s = (shop.accounts.settings.session_ttl.ms() / 1_000).max(1);
    let session = Session {
        buyer: user.id,
        id: Nonce(random()?),
        expires_at: Timestamp(
            call.now
                .seconds()
                .saturating_add(ttl_s)
                .saturating_mul(1_000),
        ),
    };
    let token = session
        .mint(&shop.keys)
        .map_err(|fault| BackendError::Unexpected(format!("a session: {fault}")))?;
    shop.engine.sign_in(session).await?;
    let cookie = cookie(&token, ttl_s, shop.secure_cookies);
    let answer = json!({
        "user": UserAnswer::from(user),
        "token": token,
        "expiresAt": session.expires_at,
    });
    Ok(Reply::ok(&answer)?.header(SET_COOKIE, &cookie))
}

pub async fn logout(call: Call) -> Result<Reply> {
    call.shop.engine.sign_out(call.session()?).await?;
    let cookie = cookie("", 0, call.shop.secure_cookies);
    Ok(Reply::done()?.header(SET_COOKIE, &cookie))
}

pub async fn get(call: Call) -> Result<Reply> {
    let session = call.live_session().await?;
    let user = call.shop.ledger.user(session.buyer).await?;
    Reply::ok(&UserAnswer::from(user.ok_or(Refusal::NoSuchUser)?))
}

fn tel(fields: &Fields) -> Result<&str> {
    Ok(read_tel(fields.text("tel", TEL_BYTES_MAX)?)?)
}

fn password(fields: &Fields) -> Result<&str> {
    let password = fields.text("password", PASSWORD_BYTES_MAX)?;
    if password.len() < PASSWORD_BYTES_MIN {
        let words = format!("`password` must have at least {PASSWORD_BYTES_MIN} characters");
        return Err(Refusal::BadParameter(words).into());
    }
    Ok(password)
}

fn cookie(token: &str, max_age_s: i64, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{SESSION_COOKIE}={token}; HttpOnly; SameSite=Lax; Path=/; Max-Age={max_age_s}{secure}")
}
