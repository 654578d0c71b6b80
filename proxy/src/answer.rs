//! What the edge says by itself: a value (status, header fields, body), made in one place and sent in two
//! ways, by a session of Pingora's (here) or straight to the connection (`fast_path`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::{Deref, Range};
use std::sync::{Arc, LazyLock};

use arc_swap::Guard;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use lua_free_rules::refusal::{Refusal, write_success};
use lua_free_rules::units::Timestamp;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use serde::Serialize;

/// The outcome, in metrics and log, of an answer that grants what was asked.
pub(crate) const OK: &str = "ok";

/// Room for usual answers in JSON.
const JSON_ROOM: usize = 4 << 10;

/// An answer that needs no order server.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub fields: Fields,
    /// `Retry-After`, beside the fields.
    pub retry_after_s: Option<u32>,
    pub body: Bytes,
    /// For metrics and log: [`OK`], or the name of the refusal.
    pub outcome: &'static str,
}

/// An answer that stays right for a while.
#[derive(Debug)]
pub(crate) struct Lasting {
    pub answer: Answer,
    /// The number of the word on the promos that it was made of.
    pub of: u64,
    /// As long as no promo starts or ends.
    pub during: Range<Timestamp>,
}

impl Lasting {
    /// One that is right at no time.
    pub fn never() -> Self {
        Self {
            answer: Answer::refusal(&Refusal::Unexpected),
            of: 0,
            during: Timestamp(0)..Timestamp(0),
        }
    }
}

/// An answer that was made for one request, or one that is kept for many. What is kept is not copied: threads
/// that share it would count each other's copies.
#[derive(Debug)]
pub(crate) enum OwnOrKept<'a> {
    Own(Answer),
    Kept(&'a Answer),
    Lasting(Guard<Arc<Lasting>>),
}

impl Deref for OwnOrKept<'_> {
    type Target = Answer;

    fn deref(&self) -> &Answer {
        match self {
            Self::Own(answer) => answer,
            Self::Kept(answer) => answer,
            Self::Lasting(lasting) => &lasting.answer,
        }
    }
}

/// Header fields that answers share: copying them copies nothing.
#[derive(Debug, Clone)]
pub(crate) enum Fields {
    /// Of all that is answered in JSON.
    Json,
    Own(Arc<Lines>),
}

/// Header fields, and the same as lines on an HTTP/1.1 connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines {
    pub list: Vec<(HeaderName, HeaderValue)>,
    pub bytes: Vec<u8>,
}

static JSON: LazyLock<Lines> = LazyLock::new(|| {
    Lines::of(HeaderValue::from_static("application/json"))
        .with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
});

impl Lines {
    /// What every answer has.
    fn of(content_type: HeaderValue) -> Self {
        Self::default()
            .with(CONTENT_TYPE, content_type)
            .with(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.bytes.extend(titled(&name));
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
        self.list.push((name, value));
        self
    }
}

/// A name as it is usually written: `Content-Type`.
fn titled(name: &HeaderName) -> impl Iterator<Item = u8> {
    let mut starts = true;
    name.as_str().bytes().map(move |byte| {
        let titled = if starts {
            byte.to_ascii_uppercase()
        } else {
            byte
        };
        starts = byte == b'-';
        titled
    })
}

impl Deref for Fields {
    type Target = Lines;

    fn deref(&self) -> &Lines {
        match self {
            Self::Json => &JSON,
            Self::Own(lines) => lines,
        }
    }
}

impl Answer {
    /// A body of any kind; how long it may be kept is up to the caller.
    pub fn new(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Self {
        let fields = Fields::Own(Arc::new(Lines::of(content_type)));
        Self::of(status, fields, body)
    }

    /// `{"status":"success","data":…}`.
    pub fn success<T: Serialize>(data: &T) -> Self {
        match json(data) {
            Ok(body) => Self::of(StatusCode::OK, Fields::Json, body),
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
        Self {
            retry_after_s: refusal.retry_after_s(),
            outcome: refusal.name(),
            ..Self::of(status, Fields::Json, words_of(refusal))
        }
    }

    /// The refusal of a method, with those that are taken.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::refusal(&Refusal::Method).with(ALLOW, HeaderValue::from_static(allow))
    }

    /// One more header field.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        let lines = Lines::clone(&self.fields).with(name, value);
        self.fields = Fields::Own(Arc::new(lines));
        self
    }

    /// The same without a body, as the word that the client has it already.
    pub fn unchanged(&self) -> Self {
        let fields = self.fields.list.iter().cloned();
        let kept = fields.filter(|(name, _)| *name != CONTENT_TYPE);
        let lines = kept.fold(Lines::default(), |lines, (name, value)| {
            lines.with(name, value)
        });
        Self {
            status: StatusCode::NOT_MODIFIED,
            fields: Fields::Own(Arc::new(lines)),
            body: Bytes::new(),
            ..self.clone()
        }
    }

    /// What is sent after the header, if the method was `method`.
    pub fn body_for(&self, method: &Method) -> &Bytes {
        static NONE: Bytes = Bytes::new();
        if *method == Method::HEAD {
            &NONE
        } else {
            &self.body
        }
    }

    /// `Content-Length`, where the answer has one: what the body has, or, for `HEAD`, would have.
    pub fn content_length(&self) -> Option<usize> {
        (self.status != StatusCode::NOT_MODIFIED).then_some(self.body.len())
    }

    fn of(status: StatusCode, fields: Fields, body: Bytes) -> Self {
        Self {
            status,
            fields,
            retry_after_s: None,
            body,
            outcome: OK,
        }
    }
}

/// `{"status":"success","data":…}`, in room that is used again once the bodies in it have been sent.
fn json<T: Serialize>(data: &T) -> serde_json::Result<Bytes> {
    thread_local! {
        static ROOM: RefCell<BytesMut> = RefCell::default();
    }
    ROOM.with_borrow_mut(|room| {
        room.clear();
        room.reserve(JSON_ROOM);
        let written = write_success((&mut *room).writer(), data);
        let body = room.split().freeze();
        written.map(|()| body)
    })
}

/// The body of a refusal. Those that say the same each time are written once by each thread.
fn words_of(refusal: &Refusal) -> Bytes {
    thread_local! {
        static WRITTEN: RefCell<HashMap<u32, Bytes>> = RefCell::default();
    }
    if let Refusal::BadParameter(_) | Refusal::OrderState { .. } = refusal {
        return refusal.body().into();
    }
    WRITTEN.with_borrow_mut(|written| {
        let body = written.entry(refusal.code());
        body.or_insert_with(|| refusal.body().into()).clone()
    })
}

/// Sends an answer and leaves the connection open for the next request. (Pingora's `respond_error`
/// closes it.) `Date` and `Connection` are added by the session.
pub(crate) async fn send(session: &mut Session, answer: &Answer) -> Result<()> {
    let mut header = ResponseHeader::build(answer.status, Some(answer.fields.list.len() + 4))?;
    for (name, value) in &answer.fields.list {
        header.append_header(name, value)?;
    }
    if let Some(wait_s) = answer.retry_after_s {
        header.insert_header(RETRY_AFTER, wait_s)?;
    }
    if let Some(length) = answer.content_length() {
        header.insert_header(CONTENT_LENGTH, length)?;
    }
    let body = answer.body_for(&session.req_header().method).clone();
    session
        .write_response_header(Box::new(header), body.is_empty())
        .await?;
    if body.is_empty() {
        return Ok(());
    }
    session.write_response_body(Some(body), true).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let answer = Answer::refusal(&Refusal::TooManyRequests { retry_after_s: 7 });
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.retry_after_s, Some(7));
        assert_eq!(answer.outcome, "too_many_requests");
        assert!(answer.body.starts_with(br#"{"status":"fail""#));
        let sold_out = Answer::refusal(&Refusal::SoldOut);
        assert_eq!(sold_out.retry_after_s, None);
        for words in ["`a` is missing", "`b` is missing"] {
            let refusal = Refusal::BadParameter(words.to_owned());
            assert_eq!(Answer::refusal(&refusal).body, refusal.body());
        }
    }

    #[test]
    fn lines_are_the_fields() {
        let answer = Answer::method_not_allowed("POST");
        let lines = String::from_utf8(answer.fields.bytes.clone()).unwrap();
        assert_eq!(
            lines,
            "Content-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
             Cache-Control: no-store\r\nAllow: POST\r\n"
        );
        assert_eq!(answer.fields.list.len(), lines.lines().count());
    }
}
