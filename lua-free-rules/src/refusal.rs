//! Every reason to say no: its code, its status, its words. The edge and the order servers both
//! answer from here, so a refusal looks the same wherever it was made.

use serde::Serialize;

/// Why a request is refused. Codes and statuses are the public contract of the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field is missing, malformed or out of range; the words say which.
    #[error("{0}")]
    BadParameter(String),
    /// Our fault. The words stay general; the detail goes to the log.
    #[error("something went wrong on our side; nothing was bought")]
    Unexpected,
    /// No such page, item, promo or order.
    #[error("there is nothing here")]
    NotFound,
    /// The path exists, the method does not.
    #[error("this address does not take that method")]
    Method,
    /// Body, header or field beyond its limit.
    #[error("the request is too large")]
    TooLarge,
    /// Neither JSON nor a form.
    #[error("send JSON or a form")]
    MediaType,
    /// No user has this number.
    #[error("no such user")]
    NoSuchUser,
    /// Number or password wrong; does not say which.
    #[error("number or password is wrong")]
    WrongLogin,
    /// No live session.
    #[error("sign in first")]
    NotSignedIn,
    /// Signed in, but not for this.
    #[error("you may not do this")]
    NotAllowed,
    /// The one-time password is wrong, used up or expired.
    #[error("the code is wrong or has expired")]
    WrongOtp,
    /// The number is registered.
    #[error("this number is already registered")]
    NumberTaken,
    /// Nothing is available now. It may come back while others let their orders expire.
    #[error("sold out")]
    SoldOut,
    /// Over a rate limit.
    #[error("too many requests; wait a moment")]
    TooManyRequests {
        /// Seconds until a request would pass.
        retry_after_s: u32,
    },
    /// Before the start, or after the end.
    #[error("the sale is not open")]
    NotOpen {
        /// Seconds until the start, when it lies ahead.
        opens_in_s: Option<u32>,
    },
    /// Wrong, used, expired or forged challenge.
    #[error("the challenge was not solved; ask for a new one")]
    ChallengeFailed,
    /// The access token is forged, expired, another's, or for something else.
    #[error("the access token is not valid")]
    TokenInvalid,
    /// The buyer already holds all the units one buyer may have.
    #[error("you already have as many as one buyer may have")]
    PerBuyerLimit,
    /// All places are taken. Places come back when tokens expire unused.
    #[error("everyone who can be let in has been let in; places may come back")]
    DoorFull,
    /// Shed under load, or an upstream is away.
    #[error("too busy right now; try again shortly")]
    Overloaded,
    /// The operator paused the sale.
    #[error("the sale is paused; try again shortly")]
    Paused,
    /// The order is in a state that does not allow this.
    #[error("the order is in another state: {state}")]
    OrderState {
        /// The state it is in.
        state: &'static str,
        /// Whether waiting helps: it is reserved, but not yet written.
        not_yet_written: bool,
    },
    /// The idempotency key came before with another body.
    #[error("this idempotency key was used with another request")]
    KeyReused,
}

impl Refusal {
    /// The public error code.
    pub const fn code(&self) -> u32 {
        match self {
            Self::BadParameter(_) => 10001,
            Self::Unexpected => 10002,
            Self::NotFound => 10003,
            Self::Method => 10004,
            Self::TooLarge => 10005,
            Self::MediaType => 10006,
            Self::NoSuchUser => 20001,
            Self::WrongLogin => 20002,
            Self::NotSignedIn => 20003,
            Self::NotAllowed => 20004,
            Self::WrongOtp => 20005,
            Self::NumberTaken => 20006,
            Self::SoldOut => 30001,
            Self::TooManyRequests { .. } => 30002,
            Self::NotOpen { .. } => 30003,
            Self::ChallengeFailed => 30004,
            Self::TokenInvalid => 30005,
            Self::PerBuyerLimit => 30006,
            Self::DoorFull => 30007,
            Self::Overloaded => 30008,
            Self::Paused => 30009,
            Self::OrderState { .. } => 30010,
            Self::KeyReused => 30011,
        }
    }

    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        match self {
            Self::BadParameter(_) => 400,
            Self::WrongLogin | Self::NotSignedIn => 401,
            Self::NotAllowed | Self::WrongOtp | Self::ChallengeFailed | Self::TokenInvalid => 403,
            Self::NotFound | Self::NoSuchUser => 404,
            Self::Method => 405,
            Self::NumberTaken
            | Self::SoldOut
            | Self::NotOpen { .. }
            | Self::PerBuyerLimit
            | Self::DoorFull
            | Self::OrderState { .. } => 409,
            Self::TooLarge => 413,
            Self::MediaType => 415,
            Self::KeyReused => 422,
            Self::TooManyRequests { .. } => 429,
            Self::Unexpected => 500,
            Self::Overloaded | Self::Paused => 503,
        }
    }

    /// Seconds after which asking again makes sense, where waiting helps.
    pub const fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::TooManyRequests { retry_after_s } => Some(*retry_after_s),
            Self::NotOpen { opens_in_s } => *opens_in_s,
            Self::Overloaded
            | Self::OrderState {
                not_yet_written: true,
                ..
            } => Some(1),
            Self::Paused | Self::DoorFull => Some(5),
            _ => None,
        }
    }

    /// A short stable name for metrics and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::BadParameter(_) => "bad_parameter",
            Self::Unexpected => "unexpected",
            Self::NotFound => "not_found",
            Self::Method => "method",
            Self::TooLarge => "too_large",
            Self::MediaType => "media_type",
            Self::NoSuchUser => "no_such_user",
            Self::WrongLogin => "wrong_login",
            Self::NotSignedIn => "not_signed_in",
            Self::NotAllowed => "not_allowed",
            Self::WrongOtp => "wrong_otp",
            Self::NumberTaken => "number_taken",
            Self::SoldOut => "sold_out",
            Self::TooManyRequests { .. } => "too_many_requests",
            Self::NotOpen { .. } => "not_open",
            Self::ChallengeFailed => "challenge_failed",
            Self::TokenInvalid => "token_invalid",
            Self::PerBuyerLimit => "per_buyer_limit",
            Self::DoorFull => "door_full",
            Self::Overloaded => "overloaded",
            Self::Paused => "paused",
            Self::OrderState { .. } => "order_state",
            Self::KeyReused => "key_reused",
        }
    }

    /// The JSON body of the answer: `{"status":"fail","data":{"errCode":…,"errMsg":"…"}}`.
    pub fn body(&self) -> Vec<u8> {
        let body = Envelope {
            status: "fail",
            data: Failure {
                code: self.code(),
                message: self.to_string(),
            },
        };
        // Two strings and a number always serialise; an empty body would still carry the status.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

/// The JSON body of a successful answer: `{"status":"success","data":…}`.
///
/// # Errors
/// If `data` cannot be written as JSON.
pub fn success_body<T: Serialize>(data: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut body = Vec::new();
    write_success(&mut body, data)?;
    Ok(body)
}

/// Writes the body of [`success_body`].
///
/// # Errors
/// If `data` cannot be written as JSON, or `out` does not take it.
pub fn write_success<T: Serialize>(
    out: impl std::io::Write,
    data: &T,
) -> Result<(), serde_json::Error> {
    let status = "success";
    serde_json::to_writer(out, &Envelope { status, data })
}

#[derive(Serialize)]
struct Envelope<T> {
    status: &'static str,
    data: T,
}

#[derive(Serialize)]
struct Failure {
    #[serde(rename = "errCode")]
    code: u32,
    #[serde(rename = "errMsg")]
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_the_contract_says() {
        let body = String::from_utf8(Refusal::SoldOut.body()).unwrap();
        assert_eq!(
            body,
            r#"{"status":"fail","data":{"errCode":30001,"errMsg":"sold out"}}"#
        );
        assert_eq!(Refusal::SoldOut.status(), 409);
        assert_eq!(Refusal::KeyReused.status(), 422);
    }

    #[test]
    fn words_from_outside_are_escaped() {
        let body = Refusal::BadParameter("\"</script>\u{0}".to_owned()).body();
        assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
    }
}
