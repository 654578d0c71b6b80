//! An answer as bytes on an HTTP/1.1 connection.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::{date, spare};
use crate::answer::Answer;
use crate::call::UPSTREAM;

/// A body up to this size travels in one piece with its header.
const COPIED_MAX: usize = 16 << 10;

/// An answer on its way: what is written, and what is noted of it.
#[derive(Debug)]
pub(super) struct Message {
    pub status: u16,
    pub outcome: &'static str,
    pub body_bytes: usize,
    /// Whether the client is told that his connection goes on.
    pub keep: bool,
    /// The header, and the body if that is short.
    first: Vec<u8>,
    /// The body if it is long.
    rest: Bytes,
    /// How many bytes of `first` have been written.
    written: usize,
}

impl Message {
    /// An answer to a request of that method, made `at` that moment.
    pub fn of(answer: &Answer, method: &Method, keep: bool, at: Instant) -> Self {
        let body = answer.body_for(method);
        let mut first = spare::take();
        write_head(&mut first, answer, keep, at);
        let rest = if body.len() <= COPIED_MAX {
            first.extend_from_slice(body);
            Bytes::new()
        } else {
            body.clone()
        };
        Self {
            status: answer.status.as_u16(),
            outcome: answer.outcome,
            body_bytes: body.len(),
            keep,
            first,
            rest,
            written: 0,
        }
    }

    /// An order server's answer, as the bytes that go to the client; the last `body_bytes` are its body.
    pub fn passed_on(status: u16, bytes: Vec<u8>, body_bytes: usize, keep: bool) -> Self {
        Self {
            status,
            outcome: UPSTREAM,
            body_bytes,
            keep,
            first: bytes,
            rest: Bytes::new(),
            written: 0,
        }
    }

    /// What is to be written next; nothing if all has been.
    pub fn unwritten(&self) -> &[u8] {
        match self.first.get(self.written..) {
            Some(first) if !first.is_empty() => first,
            _ => &self.rest,
        }
    }

    /// So much of it has been written.
    pub fn wrote(&mut self, bytes: usize) {
        if self.written < self.first.len() {
            self.written += bytes;
        } else {
            let _ = self.rest.split_to(bytes.min(self.rest.len()));
        }
    }

    /// Writes what can be written at once; returns whether that is all.
    ///
    /// # Errors
    /// If the client is gone.
    pub fn write_now(&mut self, stream: &mut impl io::Write) -> io::Result<bool> {
        while !self.unwritten().is_empty() {
            match stream.write(self.unwritten()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.wrote(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Writes what is unwritten.
    ///
    /// # Errors
    /// If the client is gone, or does not take it `within` that time.
    pub async fn write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        within: Duration,
    ) -> io::Result<()> {
        let written = within_time(within, async {
            while !self.unwritten().is_empty() {
                match stream.write(self.unwritten()).await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    bytes => self.wrote(bytes),
                }
            }
            stream.flush().await
        });
        written.await
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        spare::give(std::mem::take(&mut self.first));
    }
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

fn write_head(bytes: &mut Vec<u8>, answer: &Answer, keep: bool, at: Instant) {
    let reason = answer.status.canonical_reason().unwrap_or_default();
    write_status(bytes, answer.status.as_u16(), reason);
    bytes.extend_from_slice(&answer.fields.bytes);
    if let Some(wait_s) = answer.retry_after_s {
        write_number(bytes, "Retry-After", wait_s);
    }
    if let Some(length) = answer.content_length() {
        write_number(bytes, "Content-Length", length);
    }
    write_end(bytes, keep, at);
}

/// The first line of an answer.
pub(super) fn write_status(bytes: &mut Vec<u8>, status: u16, reason: &str) {
    bytes.extend_from_slice(b"HTTP/1.1 ");
    bytes.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(reason.as_bytes());
    bytes.extend_from_slice(b"\r\n");
}

/// One line of a header.
pub(super) fn write_line(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b": ");
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
}

fn write_number(bytes: &mut Vec<u8>, name: &str, number: impl itoa::Integer) {
    write_line(bytes, name, itoa::Buffer::new().format(number).as_bytes());
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
    use http::{HeaderValue, StatusCode};
    use lua_free_rules::refusal::Refusal;

    use super::*;

    #[test]
    fn a_refusal_is_written_whole() {
        let refusal = Answer::refusal(&Refusal::Paused);
        let message = Message::of(&refusal, &Method::GET, false, Instant::now());
        let text = String::from_utf8(message.unwritten().to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\nContent-Type: "));
        assert!(head.contains("\r\nRetry-After: 5\r\nContent-Length: "));
        assert!(head.ends_with(" GMT\r\nConnection: close"));
        assert_eq!(
            (body.len(), body.as_bytes()),
            (message.body_bytes, &*refusal.body)
        );
    }

    /// Takes a little, then nothing, then a little.
    struct Slow(Vec<u8>, bool);

    impl io::Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let some = bytes.len().min(7_000);
            self.0.extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_written_in_pieces_is_what_is_written_at_once() {
        for length in [10, COPIED_MAX, COPIED_MAX + 1, 100_000] {
            let body: Bytes = (0..length).map(|n| n as u8).collect();
            let page = Answer::new(
                StatusCode::OK,
                HeaderValue::from_static("a/b"),
                body.clone(),
            );
            let mut message = Message::of(&page, &Method::GET, true, Instant::now());
            let mut slow = Slow(Vec::new(), false);
            while !message.write_now(&mut slow).unwrap() {}
            assert!(slow.0.ends_with(&body) && slow.0.starts_with(b"HTTP/1.1 200 OK\r\n"));
            let end = slow.0.windows(4).position(|four| four == b"\r\n\r\n");
            assert_eq!(end.unwrap() + 4 + length, slow.0.len());
        }
    }
}
