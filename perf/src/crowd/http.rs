//! One HTTP/1.1 connection, as a client: writes a request, reads its answer, stays open. Written by
//! hand because the generator shares the machine with what it measures: an exchange here costs a few
//! microseconds. Everything that is read is bounded; an answer that breaks the protocol is a fault,
//! and its connection is not used again.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Largest body of an answer, in bytes: 5,000 sessions fit.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most headers in an answer.
const HEADERS_MAX: usize = 64;
/// Longest line that opens a chunk, in bytes.
const CHUNK_LINE_BYTES_MAX: usize = 256;

/// A request. Bodies are JSON.
#[derive(Debug, Clone)]
pub struct Request {
    method: &'static str,
    path: String,
    bearer: Option<std::sync::Arc<str>>,
    key: Option<String>,
    body: Option<String>,
}

impl Request {
    /// `GET path`.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: "GET",
            path: path.into(),
            bearer: None,
            key: None,
            body: None,
        }
    }

    /// `POST path` with a JSON body.
    pub fn post(path: impl Into<String>, body: &serde_json::Value) -> Self {
        let body = Some(body.to_string());
        Self {
            method: "POST",
            path: path.into(),
            bearer: None,
            key: None,
            body,
        }
    }

    /// With `Authorization: Bearer …`.
    pub fn bearer(mut self, token: &std::sync::Arc<str>) -> Self {
        self.bearer = Some(token.clone());
        self
    }

    /// With an `Idempotency-Key`.
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// The bytes to send to `host`.
    pub fn encode(&self, host: &str) -> Vec<u8> {
        let mut text = String::with_capacity(512 + self.body.as_ref().map_or(0, String::len));
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "{} {} HTTP/1.1\r\nHost: {host}\r\n",
            self.method, self.path
        );
        if let Some(token) = &self.bearer {
            let _ = write!(text, "Authorization: Bearer {token}\r\n");
        }
        if let Some(key) = &self.key {
            let _ = write!(text, "Idempotency-Key: {key}\r\n");
        }
        if let Some(body) = &self.body {
            let length = body.len();
            let _ = write!(
                text,
                "Content-Type: application/json\r\nContent-Length: {length}\r\n"
            );
        }
        text.push_str("\r\n");
        text.push_str(self.body.as_deref().unwrap_or_default());
        text.into_bytes()
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// `Retry-After`, where it is a number of seconds.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer. Whether the request took effect is then unknown.
#[derive(Debug, thiserror::Error)]
pub enum HttpFault {
    /// The connection could not be made.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The connection broke.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    /// It was closed before, or in the middle of, an answer.
    #[error("closed without a whole answer")]
    Closed,
    /// The answer is not HTTP/1.1.
    #[error("not an answer: {0}")]
    Malformed(&'static str),
    /// The answer is larger than anything the shop says.
    #[error("the answer is too large")]
    TooLarge,
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

struct Head {
    status: u16,
    retry_after: Option<Duration>,
    framing: Framing,
    stays_open: bool,
}

/// A connection and what was read from it ahead.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    read: Vec<u8>,
    stays_open: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Over a stream just opened.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            read: Vec::with_capacity(1024),
            stays_open: true,
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn send(&mut self, request: &[u8]) -> Result<(), HttpFault> {
        self.stream.write_all(request).await?;
        Ok(self.stream.flush().await?)
    }

    /// Reads the answer. If this is dropped half-way, so must the connection be.
    ///
    /// # Errors
    /// If there is none, or none that can be read.
    pub async fn receive(&mut self) -> Result<Response, HttpFault> {
        let head = loop {
            let head = self.head().await?;
            match head.status {
                100 | 102..=199 => {} // an interim answer: the real one follows
                101 => return Err(HttpFault::Malformed("nobody asked for another protocol")),
                _ => break head,
            }
        };
        let body = match head.framing {
            Framing::Length(length) => self.exactly(length).await?,
            Framing::Chunked => self.chunks().await?,
            Framing::UntilClose => self.rest().await?,
        };
        // Bytes that nobody asked for would be read as the next answer.
        self.stays_open =
            head.stays_open && head.framing != Framing::UntilClose && self.read.is_empty();
        Ok(Response {
            status: head.status,
            retry_after: head.retry_after,
            body,
        })
    }

    /// Whether another request may be sent: the last answer said so, and the server has neither
    /// closed nor said anything since.
    pub async fn is_usable(&mut self) -> bool {
        if !self.stays_open || !self.read.is_empty() {
            return false;
        }
        let mut byte = [0_u8; 1];
        let mut at = tokio::io::ReadBuf::new(&mut byte);
        std::future::poll_fn(|context| {
            let quiet = std::pin::Pin::new(&mut self.stream).poll_read(context, &mut at);
            std::task::Poll::Ready(quiet.is_pending())
        })
        .await
    }

    async fn head(&mut self) -> Result<Head, HttpFault> {
        loop {
            match read_head(&self.read)? {
                Some((head, length)) if length <= HEAD_BYTES_MAX => {
                    self.read.drain(..length);
                    return Ok(head);
                }
                None if self.read.len() <= HEAD_BYTES_MAX => {}
                _ => return Err(HttpFault::TooLarge),
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> Result<Vec<u8>, HttpFault> {
        if length > BODY_BYTES_MAX {
            return Err(HttpFault::TooLarge);
        }
        while self.read.len() < length {
            self.more().await?;
        }
        let rest = self.read.split_off(length);
        Ok(std::mem::replace(&mut self.read, rest))
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, HttpFault> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let digits = line
                .split(|b| *b == b';')
                .next()
                .unwrap_or_default()
                .trim_ascii();
            let length = std::str::from_utf8(digits)
                .ok()
                .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|digits| usize::from_str_radix(digits, 16).ok())
                .ok_or(HttpFault::Malformed("chunk length"))?;
            if length == 0 {
                break;
            }
            if length > BODY_BYTES_MAX - body.len() {
                return Err(HttpFault::TooLarge);
            }
            body.extend(self.exactly(length).await?);
            if !self.line().await?.is_empty() {
                return Err(HttpFault::Malformed("chunk end"));
            }
        }
        // Trailers: read over, no more of them than headers.
        for _ in 0..=HEADERS_MAX {
            if self.line().await?.is_empty() {
                return Ok(body);
            }
        }
        Err(HttpFault::TooLarge)
    }

    async fn line(&mut self) -> Result<Vec<u8>, HttpFault> {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.exactly(end).await?;
                self.read.drain(..2);
                return Ok(line);
            }
            if self.read.len() > CHUNK_LINE_BYTES_MAX {
                return Err(HttpFault::TooLarge);
            }
            self.more().await?;
        }
    }

    async fn rest(&mut self) -> Result<Vec<u8>, HttpFault> {
        loop {
            match self.more().await {
                Ok(()) if self.read.len() > BODY_BYTES_MAX => return Err(HttpFault::TooLarge),
                Ok(()) => {}
                Err(HttpFault::Closed) => return Ok(std::mem::take(&mut self.read)),
                Err(fault) => return Err(fault),
            }
        }
    }

    async fn more(&mut self) -> Result<(), HttpFault> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(HttpFault::Closed),
            _ => Ok(()),
        }
    }
}

/// The head at the front of `read` and its length, once it is whole.
fn read_head(read: &[u8]) -> Result<Option<(Head, usize)>, HttpFault> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    let length = match parsed.parse(read) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(HttpFault::Malformed("head")),
    };
    let status = parsed.code.ok_or(HttpFault::Malformed("status"))?;
    let values = |name: &'static str| {
        let named = parsed
            .headers
            .iter()
            .filter(move |h| h.name.eq_ignore_ascii_case(name));
        named
            .filter_map(|header| std::str::from_utf8(header.value).ok())
            .map(str::trim)
    };
    let says = |name, word: &str| {
        values(name)
            .flat_map(|v| v.split(','))
            .any(|v| v.trim().eq_ignore_ascii_case(word))
    };
    let mut lengths = values("content-length").map(|value| {
        let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        value
            .parse::<usize>()
            .ok()
            .filter(|_| plain)
            .ok_or(HttpFault::Malformed("length"))
    });
    let framing = if matches!(status, 100..=199 | 204 | 304) {
        Framing::Length(0)
    } else if says("transfer-encoding", "chunked") {
        Framing::Chunked
    } else if let Some(first) = lengths.next().transpose()? {
        for other in lengths {
            if other? != first {
                return Err(HttpFault::Malformed("two lengths"));
            }
        }
        Framing::Length(first)
    } else {
        Framing::UntilClose
    };
    let stays_open = parsed.version == Some(1) && !says("connection", "close");
    let retry_after = values("retry-after")
        .next()
        .and_then(|value| value.parse().ok());
    let retry_after = retry_after.map(Duration::from_secs);
    Ok(Some((
        Head {
            status,
            retry_after,
            framing,
            stays_open,
        },
        length,
    )))
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
