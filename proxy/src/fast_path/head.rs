//! Which requests the fast path takes on: those that can be read in one way only. Everything else is left
//! to Pingora, unread and undecided: another version, an unusual method or target, lines that end oddly,
//! a body that is framed twice or chunked, an upgrade, a client that waits for a go-ahead.

use std::mem::MaybeUninit;

use http::Method;
use httparse::{Header as Line, Status};

use crate::request::{Header, Request};

/// Most header lines of a request that is taken on, and of an answer to it.
const LINES_MAX: usize = 48;

static GET: Method = Method::GET;
static HEAD: Method = Method::HEAD;
static POST: Method = Method::POST;

/// Where header lines are laid out.
pub(super) type Space<'a> = [MaybeUninit<Line<'a>>; LINES_MAX];

/// Room for the header lines of one message.
pub(super) const fn space<'a>() -> Space<'a> {
    [const { MaybeUninit::uninit() }; LINES_MAX]
}

/// What the bytes that have come so far are.
#[derive(Debug)]
pub(super) enum Reading<'a> {
    /// The header may not be whole yet.
    Partial,
    /// It is, and can be read in one way only; of its body, which has so many bytes, some are missing.
    Behind(usize),
    /// Not for the fast path.
    Unusual,
    Plain(Plain<'a>),
}

/// A request that can be read in one way only.
#[derive(Debug)]
pub(super) struct Plain<'a> {
    pub request: Request<'a>,
    pub method: &'static Method,
    pub body: &'a [u8],
    /// How many bytes it has, the body included. What follows is the next request.
    pub bytes: usize,
    /// Whether the client wants to keep the connection.
    pub keep: bool,
}

/// Reads the first request in `bytes`.
pub(super) fn read<'a>(bytes: &'a [u8], space: &'a mut Space<'a>) -> Reading<'a> {
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, space) {
        Ok(Status::Complete(length)) => plain(bytes, length, parsed).unwrap_or(Reading::Unusual),
        Ok(Status::Partial) => Reading::Partial,
        Err(_) => Reading::Unusual,
    }
}

fn plain<'a>(
    bytes: &'a [u8],
    length: usize,
    parsed: httparse::Request<'a, 'a>,
) -> Option<Reading<'a>> {
    let (method, target) = (parsed.method?, parsed.path?);
    let (head, rest) = bytes.split_at_checked(length)?;
    let lines: &'a [Line<'a>] = parsed.headers;
    let (path, query) = match memchr::memchr(b'?', target.as_bytes()) {
        Some(at) => (target.get(..at)?, target.get(at + 1..)),
        None => (target, None),
    };
    if !begins_with_line(head, method, target)
        || !ends_lines_alike(head)
        || !is_normal_path(path)
        || !query.is_none_or(is_normal_query)
    {
        return None;
    }
    let method: &'static Method = match method {
        "GET" => &GET,
        "HEAD" => &HEAD,
        "POST" => &POST,
        _ => return None,
    };
    let terms = Terms::of(lines)?;
    let body_bytes = match terms.content_length {
        Some(length) if *method == POST => length,
        None if *method != POST => 0,
        _ => return None,
    };
    let Some(body) = rest.get(..body_bytes) else {
        return Some(Reading::Behind(body_bytes));
    };
    Some(Reading::Plain(Plain {
        request: Request {
            method,
            path,
            query,
            authority: None,
            target_bytes: target.len(),
            header: Header::Lines(lines),
        },
        method,
        body,
        bytes: length + body_bytes,
        keep: terms.keep,
    }))
}

/// Whether the first line is `METHOD target HTTP/1.1`, with nothing before it and one space between.
fn begins_with_line(head: &[u8], method: &str, target: &str) -> bool {
    let rest = head
        .strip_prefix(method.as_bytes())
        .and_then(|rest| rest.strip_prefix(b" "))
        .and_then(|rest| rest.strip_prefix(target.as_bytes()));
    rest.is_some_and(|rest| rest.starts_with(b" HTTP/1.1\r\n"))
}

/// Whether every line ends in CRLF, and neither half of it stands alone.
pub(super) fn ends_lines_alike(head: &[u8]) -> bool {
    let mut halves = memchr::memchr2_iter(b'\r', b'\n', head);
    while let Some(first) = halves.next() {
        if head.get(first..first + 2) != Some(b"\r\n") || halves.next() != Some(first + 1) {
            return false;
        }
    }
    true
}

/// Whether it is an absolute path without empty, `.` or `..` segments, in characters that need no second look:
/// there are no escapes.
fn is_normal_path(path: &str) -> bool {
    let mut before = 0;
    let is_normal = path.bytes().all(|byte| {
        let is_normal = match byte {
            b'/' | b'.' => before != b'/',
            _ => is(UNRESERVED, byte),
        };
        before = byte;
        is_normal
    });
    path.starts_with('/') && is_normal
}

fn is_normal_query(query: &str) -> bool {
    query.bytes().all(|byte| is(IN_QUERY, byte))
}

/// Letters, digits and some marks.
const UNRESERVED: u8 = 1;
/// What may stand in a query.
const IN_QUERY: u8 = 2;

/// What each byte is.
static KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            kinds[byte as usize] = UNRESERVED | IN_QUERY;
        }
        byte += 1;
    }
    let others = b"./%&=+,;:@!$'()*?";
    let mut at = 0;
    while at < others.len() {
        kinds[others[at] as usize] |= IN_QUERY;
        at += 1;
    }
    kinds
};

const fn is(kind: u8, byte: u8) -> bool {
    KINDS[byte as usize] & kind != 0
}

/// What the header says of the message and the connection.
struct Terms {
    content_length: Option<usize>,
    keep: bool,
}

impl Terms {
    /// `None` if it says anything twice, or what the fast path does not do.
    fn of(lines: &[Line<'_>]) -> Option<Self> {
        let (mut host, mut connection, mut content_length) = (None, None, None);
        for line in lines {
            let is = |name: &str| line.name.eq_ignore_ascii_case(name);
            match line.name.len() {
                4 if is("host") => once(&mut host, usual_host(line.value)?)?,
                10 if is("connection") => once(&mut connection, keeps(line.value)?)?,
                14 if is("content-length") => once(&mut content_length, length(line.value)?)?,
                6 if is("expect") => return None,
                7 if is("upgrade") || is("trailer") => return None,
                14 if is("http2-settings") => return None,
                16 if is("proxy-connection") => return None,
                17 if is("transfer-encoding") => return None,
                _ => {}
            }
        }
        host.map(|()| Self {
            content_length,
            keep: connection.unwrap_or(true),
        })
    }
}

fn usual_host(value: &[u8]) -> Option<()> {
    (!value.is_empty() && !value.contains(&b'@')).then_some(())
}

/// Sets what has not been set yet.
pub(super) fn once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

/// Whether a field says that the connection goes on; `None` if it says anything else.
pub(super) fn keeps(connection: &[u8]) -> Option<bool> {
    if connection.eq_ignore_ascii_case(b"keep-alive") {
        Some(true)
    } else if connection.eq_ignore_ascii_case(b"close") {
        Some(false)
    } else {
        None
    }
}

/// A length as it is usually written: digits, none too many, no zero in front.
pub(super) fn length(value: &[u8]) -> Option<usize> {
    let is_usual = match value {
        [_] => true,
        [first, ..] => *first != b'0' && value.len() <= 6,
        [] => false,
    };
    if !is_usual || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(bytes: impl AsRef<[u8]>) -> &'static str {
        match read(bytes.as_ref(), &mut space()) {
            Reading::Partial => "partial",
            Reading::Behind(_) => "behind",
            Reading::Unusual => "unusual",
            Reading::Plain(_) => "plain",
        }
    }

    #[test]
    fn a_plain_request_is_read_to_its_last_byte() {
        let bytes = b"POST /order/create?a=%20&b HTTP/1.1\r\nHOST: shop\r\ncontent-length: 3\r\n\
            connection: Close\r\nX: y \r\n\r\n{1}GET /";
        let mut space = space();
        let Reading::Plain(plain) = read(bytes, &mut space) else {
            panic!("unusual");
        };
        assert_eq!(
            (plain.request.path, plain.request.query),
            ("/order/create", Some("a=%20&b"))
        );
        assert_eq!((plain.body, plain.keep), (b"{1}".as_slice(), false));
        assert_eq!(&bytes[plain.bytes..], b"GET /");
        assert_eq!(plain.request.target_bytes, 21);
    }

    #[test]
    fn until_it_is_whole_it_is_partial() {
        let bytes = b"GET /item/get?id=1 HTTP/1.1\r\nHost: shop\r\n\r\n";
        for length in 0..bytes.len() {
            assert_eq!(kind(&bytes[..length]), "partial", "{length}");
        }
        assert_eq!(kind(bytes), "plain");
    }

    #[test]
    fn odd_first_lines_are_left_alone() {
        for line in [
            "get / HTTP/1.1",
            "PUT / HTTP/1.1",
            "GET / HTTP/1.0",
            "GET / HTTP/2.0",
            "GET / http/1.1",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "\r\nGET / HTTP/1.1",
            " GET / HTTP/1.1",
            "GET http://shop/ HTTP/1.1",
            "GET shop HTTP/1.1",
            "GET * HTTP/1.1",
            "GET // HTTP/1.1",
            "GET //evil/ HTTP/1.1",
            "GET /a/../b HTTP/1.1",
            "GET /. HTTP/1.1",
            "GET /%2e%2e/a HTTP/1.1",
            "GET /a\\b HTTP/1.1",
            "GET /#a HTTP/1.1",
            "GET /?a#b HTTP/1.1",
            "GET /?a=\"b\" HTTP/1.1",
            "GET /\u{e9} HTTP/1.1",
            "POST / HTTP/1.1",
        ] {
            assert_eq!(
                kind(format!("{line}\r\nHost: shop\r\n\r\n")),
                "unusual",
                "{line}"
            );
        }
    }

    #[test]
    fn odd_lines_and_framing_are_left_alone() {
        for lines in [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host: \r\n",
            "Host: a@b\r\n",
            "Host: a\nX: y\r\n",
            "Host: a\r\n X: y\r\n",
            "Host : a\r\n",
            "Host: a\r\nX: \0\r\n",
            "Host: a\r\nX: a\rb\r\n",
            "Host: a\r\nContent-Length: 0\r\n",
            "Host: a\r\nTransfer-Encoding: chunked\r\n",
            "Host: a\r\ntransfer-encoding: identity\r\n",
            "Host: a\r\nConnection: keep-alive, upgrade\r\n",
            "Host: a\r\nConnection: close\r\nConnection: keep-alive\r\n",
            "Host: a\r\nUpgrade: h2c\r\n",
            "Host: a\r\nExpect: 100-continue\r\n",
            "Host: a\r\nTrailer: x\r\n",
        ] {
            assert_eq!(
                kind(format!("GET / HTTP/1.1\r\n{lines}\r\n")),
                "unusual",
                "{lines:?}"
            );
        }
        assert_eq!(kind("GET / HTTP/1.1\nHost: a\n\n"), "unusual");
        assert_eq!(kind("GET / HTTP/1.1\r\nHost: a\r\n\n"), "unusual");
        let many = "X: y\r\n".repeat(LINES_MAX);
        assert_eq!(
            kind(format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
            "unusual"
        );
    }

    #[test]
    fn odd_lengths_are_left_alone() {
        for (lines, expected) in [
            ("Content-Length: 2\r\n", "plain"),
            ("Content-Length: 0\r\n", "plain"),
            ("Content-Length: 3\r\n", "behind"),
            ("Content-Length: +2\r\n", "unusual"),
            ("Content-Length: -2\r\n", "unusual"),
            ("Content-Length: 02\r\n", "unusual"),
            ("Content-Length: 2,2\r\n", "unusual"),
            ("Content-Length: 0x2\r\n", "unusual"),
            ("Content-Length:\r\n", "unusual"),
            ("Content-Length: 2\r\nContent-Length: 2\r\n", "unusual"),
            ("Content-Length: 99999999999999999999\r\n", "unusual"),
            (
                "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
                "unusual",
            ),
        ] {
            let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n{{}}");
            assert_eq!(kind(bytes), expected, "{lines}");
        }
    }
}
