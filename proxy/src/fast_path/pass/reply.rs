//! Which answers of an order server are taken: those that can be read in one way only, and are short enough to
//! be held. Everything else is left to Pingora: another version, lines that end oddly, a body in chunks, up to
//! the end of the connection or of two lengths, an answer in advance, one that has no body.

use std::time::Instant;

use httparse::{Header as Line, Status};

use super::super::wire::Message;
use super::super::{head, spare, wire};
use crate::forward;
use crate::sold_out;

/// A longer header is not taken.
const HEAD_MAX: usize = 8 << 10;
/// Nor is a longer body.
const BODY_MAX: usize = 64 << 10;

/// What the bytes that have come so far are.
#[derive(Debug)]
pub(super) enum Reading<'a> {
    /// More has to come.
    Partial,
    /// Not to be taken.
    Unusual,
    Whole(Reply<'a>),
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    status: u16,
    reason: &'a str,
    lines: &'a [Line<'a>],
    body: &'a [u8],
    /// Whether the order server takes another request on this connection.
    pub keeps: bool,
}

/// Reads what has come.
pub(super) fn read<'a>(bytes: &'a [u8], space: &'a mut head::Space<'a>) -> Reading<'a> {
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, bytes, space) {
        Ok(Status::Complete(length)) => whole(bytes, length, parsed).unwrap_or(Reading::Unusual),
        Ok(Status::Partial) if bytes.len() < HEAD_MAX => Reading::Partial,
        Ok(Status::Partial) | Err(_) => Reading::Unusual,
    }
}

fn whole<'a>(
    bytes: &'a [u8],
    length: usize,
    parsed: httparse::Response<'a, 'a>,
) -> Option<Reading<'a>> {
    let (status, reason) = (parsed.code?, parsed.reason?);
    let (head, rest) = bytes.split_at_checked(length)?;
    let lines: &'a [Line<'a>] = parsed.headers;
    if !head.starts_with(b"HTTP/1.1 ") || !head::ends_lines_alike(head) || !has_body(status) {
        return None;
    }
    let (body_bytes, keeps) = terms(lines)?;
    let Some(body) = rest.get(..body_bytes) else {
        return Some(Reading::Partial);
    };
    Some(Reading::Whole(Reply {
        status,
        reason,
        lines,
        body,
        keeps: keeps && rest.len() == body_bytes,
    }))
}

fn has_body(status: u16) -> bool {
    matches!(status, 200..=599) && !matches!(status, 204 | 304)
}

/// The length of the body, and whether the connection goes on.
fn terms(lines: &[Line<'_>]) -> Option<(usize, bool)> {
    let (mut length, mut keeps) = (None, None);
    for line in lines {
        let is = |name: &str| line.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            head::once(&mut length, head::length(line.value)?)?;
        } else if is("connection") {
            head::once(&mut keeps, head::keeps(line.value)?)?;
        } else if is("transfer-encoding") || is("upgrade") || is("trailer") {
            return None;
        }
    }
    let length = length.filter(|length| *length <= BODY_MAX)?;
    Some((length, keeps.unwrap_or(true)))
}

impl Reply<'_> {
    /// What the order server tells the edge.
    pub fn signals(&self) -> impl Iterator<Item = &[u8]> {
        let ours = self.lines.iter().filter(|line| is_signal(line.name));
        ours.map(|line| line.value)
    }

    /// The answer for the client, who may or may not `keep` his connection.
    pub fn for_client(&self, keep: bool) -> Message {
        let mut bytes = spare::take();
        wire::write_status(&mut bytes, self.status, self.reason);
        for line in self.lines {
            let is_date = line.name.eq_ignore_ascii_case("date");
            if !is_date && !is_signal(line.name) && !forward::is_hop_by_hop(line.name) {
                wire::write_line(&mut bytes, line.name, line.value);
            }
        }
        wire::write_end(&mut bytes, keep, Instant::now());
        bytes.extend_from_slice(self.body);
        Message::passed_on(self.status, bytes, self.body.len(), keep)
    }
}

fn is_signal(name: &str) -> bool {
    name.eq_ignore_ascii_case(sold_out::HEADER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use head::space;

    fn kind(bytes: impl AsRef<[u8]>) -> &'static str {
        match read(bytes.as_ref(), &mut space()) {
            Reading::Partial => "partial",
            Reading::Unusual => "unusual",
            Reading::Whole(reply) if reply.keeps => "whole",
            Reading::Whole(_) => "last",
        }
    }

    #[test]
    fn an_answer_is_passed_on_without_what_is_between_the_two() {
        let bytes =
            b"HTTP/1.1 202 Accepted\r\nFloodgate-Sold-Out: 7;1;3;1\r\nX-A: 1\r\nDate: never\r\n\
            Keep-Alive: timeout=5\r\nConnection: keep-alive\r\ncontent-length: 2\r\n\r\n{}";
        for length in 0..bytes.len() {
            assert_eq!(kind(&bytes[..length]), "partial", "{length}");
        }
        let mut space = space();
        let Reading::Whole(reply) = read(bytes, &mut space) else {
            panic!("not whole");
        };
        assert_eq!(reply.signals().collect::<Vec<_>>(), [b"7;1;3;1"]);
        let message = reply.for_client(true);
        let text = String::from_utf8(message.unwritten().to_vec()).unwrap();
        let text = text.split("Date: ").collect::<Vec<_>>();
        assert_eq!(
            text[0],
            "HTTP/1.1 202 Accepted\r\nX-A: 1\r\ncontent-length: 2\r\n"
        );
        assert!(text[1].ends_with(" GMT\r\nConnection: keep-alive\r\n\r\n{}"));
        assert_eq!((message.status, message.body_bytes), (202, 2));
    }

    #[test]
    fn a_connection_goes_on_only_where_that_is_certain() {
        let answer = |more: &str| format!("HTTP/1.1 200 OK\r\n{more}Content-Length: 2\r\n\r\n{{}}");
        assert_eq!(kind(answer("")), "whole");
        assert_eq!(kind(answer("Connection: close\r\n")), "last");
        assert_eq!(kind(answer("") + "H"), "last");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_left_alone() {
        for bytes in [
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: identity\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: upgrade\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nUpgrade: h2c\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
        ] {
            assert_eq!(kind(bytes), "unusual", "{bytes:?}");
        }
        assert_eq!(
            kind(format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(HEAD_MAX))),
            "unusual"
        );
    }
}
