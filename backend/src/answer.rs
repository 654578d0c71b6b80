//! Success and refusal as HTTP responses: one place, so that every answer has the same envelope.

use axum::body::Body;
use axum::response::Response;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use lua_free_rules::refusal::{Refusal, success_body};
use serde::Serialize;

use crate::error::{BackendError, Result};

/// What a handler answers when all went well.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    body: Vec<u8>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Reply {
    /// 200 with `data`.
    pub fn ok<T: Serialize>(data: &T) -> Result<Self> {
        let body = success_body(data)
            .map_err(|error| BackendError::Unexpected(format!("an answer in JSON: {error}")))?;
        Ok(Self {
            status: StatusCode::OK,
            body,
            headers: Vec::new(),
        })
    }

    /// 200 without data.
    pub fn done() -> Result<Self> {
        Self::ok(&serde_json::Value::Null)
    }

    /// The same, as 202: accepted, and not done yet.
    pub fn accepted(mut self) -> Self {
        self.status = StatusCode::ACCEPTED;
        self
    }

    /// The same, with one more header. A value that cannot stand in a header is left out.
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// The response.
    pub fn into_response(self) -> Response {
        let mut response = json(self.status, self.body);
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// A refusal as a response, with `Retry-After` where waiting helps.
pub fn refuse(refusal: &Refusal) -> Response {
    // Every status of the rules is a valid one.
    let status =
        StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, refusal.body());
    if let Some(seconds) = refusal.retry_after_s() {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The refusal of a method, with those that are taken.
pub fn refuse_method(allow: &str) -> Response {
    let mut response = refuse(&Refusal::Method);
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// Plain text, for the admin listener.
pub fn text(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

/// JSON that is nobody's to keep: whether it may be cached, the edge decides.
pub fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let response = refuse(&Refusal::Overloaded);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert!(
            refuse(&Refusal::SoldOut)
                .headers()
                .get(RETRY_AFTER)
                .is_none()
        );
        assert_eq!(refuse_method("GET, HEAD").headers()[ALLOW], "GET, HEAD");
    }
}
