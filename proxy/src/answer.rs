//! What the edge says by itself: a value (status, headers, body), made here and sent here, so that a
//! faster front can send the same one without a proxy session.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use lua_free_rules::refusal::{Refusal, success_body};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use serde::Serialize;

/// The outcome, in metrics and log, of an answer that grants what was asked.
pub(crate) const OK: &str = "ok";

/// An answer that needs no order server.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// For metrics and log: [`OK`], or the name of the refusal.
    pub outcome: &'static str,
}

impl Answer {
    /// A body of any kind; how long it may be kept is up to the caller.
    pub fn new(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Self {
        Self {
            status,
            headers: vec![
                (CONTENT_TYPE, content_type),
                (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            ],
            body,
            outcome: OK,
        }
    }

    /// `{"status":"success","data":…}`.
    pub fn success<T: Serialize>(data: &T) -> Self {
        match success_body(data) {
            Ok(body) => Self::json(StatusCode::OK, body),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written as JSON");
                Self::refusal(&Refusal::Unexpected)
            }
        }
    }

    /// `{"status":"fail","data":{…}}`, with `Retry-After` where waiting helps.
    pub fn refusal(refusal: &Refusal) -> Self {
        let status =
            StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = Self::json(status, refusal.body());
        answer.outcome = refusal.name();
        match refusal.retry_after_s() {
            Some(wait_s) => answer.with(RETRY_AFTER, HeaderValue::from(wait_s)),
            None => answer,
        }
    }

    /// The refusal of a method, with those that are taken.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::refusal(&Refusal::Method).with(ALLOW, HeaderValue::from_static(allow))
    }

    /// One more header field.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn json(status: StatusCode, body: Vec<u8>) -> Self {
        let kind = HeaderValue::from_static("application/json");
        Self::new(status, kind, body.into())
            .with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }
}

/// Sends an answer and leaves the connection open for the next request. (Pingora's `respond_error`
/// closes it.) `Date` and `Connection` are added by the session.
pub(crate) async fn send(session: &mut Session, answer: &Answer) -> Result<()> {
    let mut header = ResponseHeader::build(answer.status, Some(answer.headers.len() + 3))?;
    for (name, value) in &answer.headers {
        header.append_header(name, value)?;
    }
    if answer.status != StatusCode::NOT_MODIFIED {
        header.insert_header(CONTENT_LENGTH, answer.body.len())?;
    }
    let bodiless = answer.body.is_empty() || session.req_header().method == Method::HEAD;
    session
        .write_response_header(Box::new(header), bodiless)
        .await?;
    if bodiless {
        return Ok(());
    }
    session
        .write_response_body(Some(answer.body.clone()), true)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let answer = Answer::refusal(&Refusal::TooManyRequests { retry_after_s: 7 });
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(
            answer
                .headers
                .contains(&(RETRY_AFTER, HeaderValue::from(7)))
        );
        assert_eq!(answer.outcome, "too_many_requests");
        assert!(answer.body.starts_with(br#"{"status":"fail""#));
        let sold_out = Answer::refusal(&Refusal::SoldOut);
        assert!(sold_out.headers.iter().all(|(name, _)| name != RETRY_AFTER));
    }
}
