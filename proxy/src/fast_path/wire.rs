//! An answer as bytes on an HTTP/1.1 connection.

use std::future::poll_fn;
use std::io::{self, Write as _};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::Method;
use pingora::protocols::Stream;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::{date, spare};
use crate::answer::Answer;

/// A body up to this size travels in one piece with its header.
const COPIED_MAX: usize = 16 << 10;

/// Sends an answer to a request of that method, made `at` that moment; returns how many bytes of its body were
/// sent.
///
/// # Errors
/// If the client is gone, or does not take it `within` that time.
pub(super) async fn send(
    stream: &mut Stream,
    answer: &Answer,
    method: &Method,
    (keep, at): (bool, Instant),
    within: Duration,
) -> io::Result<usize> {
    let body = answer.body_for(method);
    let mut first = spare::take();
    write_head(&mut first, answer, keep, at)?;
    let rest = if body.len() <= COPIED_MAX {
        first.extend_from_slice(body);
        [].as_slice()
    } else {
        body
    };
    let written = write(stream, &first, rest, within).await;
    spare::give(first);
    written.map(|()| body.len())
}

/// Writes all of `first` and `rest`.
///
/// # Errors
/// If the client is gone, or does not take it `within` that time.
pub(super) async fn write(
    stream: &mut Stream,
    first: &[u8],
    rest: &[u8],
    within: Duration,
) -> io::Result<()> {
    let written = within_time(within, async {
        stream.write_all(first).await?;
        stream.write_all(rest).await?;
        stream.flush().await
    });
    written.await
}

/// What can be written at once needs no timer.
async fn within_time(
    within: Duration,
    write: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let mut write = pin!(write);
    match poll_fn(|context| Poll::Ready(write.as_mut().poll(context))).await {
        Poll::Ready(written) => written,
        Poll::Pending => timeout(within, write)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
    }
}

pub(super) fn write_head(
    bytes: &mut Vec<u8>,
    answer: &Answer,
    keep: bool,
    at: Instant,
) -> io::Result<()> {
    let reason = answer.status.canonical_reason().unwrap_or_default();
    write_status(bytes, answer.status.as_u16(), reason)?;
    bytes.extend_from_slice(&answer.fields.bytes);
    if let Some(wait_s) = answer.retry_after_s {
        write!(bytes, "Retry-After: {wait_s}\r\n")?;
    }
    if let Some(length) = answer.content_length() {
        write!(bytes, "Content-Length: {length}\r\n")?;
    }
    write_end(bytes, keep, at);
    Ok(())
}

/// The first line of an answer.
pub(super) fn write_status(bytes: &mut Vec<u8>, status: u16, reason: &str) -> io::Result<()> {
    write!(bytes, "HTTP/1.1 {status} ")?;
    bytes.extend_from_slice(reason.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    Ok(())
}

/// One line of a header.
pub(super) fn write_line(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b": ");
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
}

/// The moment, whether the connection goes on, and the end of the header.
pub(super) fn write_end(bytes: &mut Vec<u8>, keep: bool, at: Instant) {
    bytes.extend_from_slice(b"Date: ");
    date::write(bytes, at);
    bytes.extend_from_slice(if keep {
        b"\r\nConnection: keep-alive\r\n\r\n".as_slice()
    } else {
        b"\r\nConnection: close\r\n\r\n"
    });
}

#[cfg(test)]
mod tests {
    use lua_free_rules::refusal::Refusal;

    use super::*;

    #[test]
    fn a_refusal_is_written_whole() {
        let mut bytes = Vec::new();
        write_head(
            &mut bytes,
            &Answer::refusal(&Refusal::Paused),
            false,
            Instant::now(),
        )
        .unwrap();
        let head = String::from_utf8(bytes).unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\nContent-Type: "));
        assert!(head.contains("\r\nRetry-After: 5\r\nContent-Length: "));
        assert!(head.ends_with(" GMT\r\nConnection: close\r\n\r\n"));
    }
}
