//! A request as the gate sees it, whichever way it came: in a session of Pingora's, or read by the fast
//! path from the bytes on the connection.

use http::header::HeaderName;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method};
use pingora::http::RequestHeader;

/// What a request says before its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub method: &'a Method,
    /// As it was sent: nothing is decoded.
    pub path: &'a str,
    pub query: Option<&'a str>,
    /// The host in the target, where the target names one.
    pub authority: Option<&'a str>,
    /// The length of the target as it was sent.
    pub target_bytes: usize,
    pub header: Header<'a>,
}

/// The header fields, in the order in which they came.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Header<'a> {
    Map(&'a HeaderMap),
    /// As they stand in the bytes that came.
    Lines(&'a [httparse::Header<'a>]),
}

impl<'a> Request<'a> {
    /// A request that Pingora has read.
    pub fn of(header: &'a RequestHeader) -> Self {
        let parts: &Parts = header;
        Self {
            target_bytes: header.raw_path().len(),
            ..Self::from(parts)
        }
    }
}

impl<'a> From<&'a Parts> for Request<'a> {
    fn from(parts: &'a Parts) -> Self {
        let target = parts.uri.path_and_query();
        Self {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query(),
            authority: parts.uri.authority().map(Authority::as_str),
            target_bytes: target.map_or(0, |target| target.as_str().len()),
            header: Header::Map(&parts.headers),
        }
    }
}

impl<'a> Header<'a> {
    /// Every value of a field.
    pub fn all(self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let (map, lines) = match self {
            Self::Map(map) => (Some(map.get_all(name)), [].as_slice()),
            Self::Lines(lines) => (None, lines),
        };
        let in_map = map.into_iter().flatten().map(HeaderValue::as_bytes);
        let in_lines = lines.iter().filter(|line| is_named(line, name));
        in_map.chain(in_lines.map(|line| line.value))
    }

    /// A field's first value.
    pub fn first(self, name: &HeaderName) -> Option<&'a [u8]> {
        match self {
            Self::Map(map) => map.get(name).map(HeaderValue::as_bytes),
            Self::Lines(lines) => lines
                .iter()
                .find(|line| is_named(line, name))
                .map(|line| line.value),
        }
    }

    /// A field's first value, if it is plain text.
    pub fn text(self, name: &HeaderName) -> Option<&'a str> {
        plain(self.first(name)?)
    }

    /// Every value of a field that is plain text.
    pub fn texts(self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'a str> {
        self.all(name).filter_map(plain)
    }

    /// How long all fields are, with what stands between name and value and at the end.
    pub fn bytes(self) -> usize {
        let field = |name: usize, value: usize| name + value + 4;
        match self {
            Self::Map(map) => map
                .iter()
                .map(|(name, value)| field(name.as_str().len(), value.len()))
                .sum(),
            Self::Lines(lines) => lines
                .iter()
                .map(|line| field(line.name.len(), line.value.len()))
                .sum(),
        }
    }
}

impl<'a> From<&'a HeaderMap> for Header<'a> {
    fn from(map: &'a HeaderMap) -> Self {
        Self::Map(map)
    }
}

fn is_named(line: &httparse::Header<'_>, name: &HeaderName) -> bool {
    line.name.eq_ignore_ascii_case(name.as_str())
}

/// Printable ASCII and tabs; what `HeaderValue::to_str` takes.
fn plain(value: &[u8]) -> Option<&str> {
    // Without a way out before the end, many bytes are looked at at a time.
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~' | b'\t');
    let all_plain = value.iter().fold(true, |all, byte| all & is_plain(*byte));
    std::str::from_utf8(value).ok().filter(|_| all_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{ACCEPT, COOKIE, HOST};

    const LINES: [(&str, &[u8]); 4] = [
        ("Host", b"shop"),
        ("cookie", b"a=1"),
        ("COOKIE", b"b=\xff"),
        ("Cookie", b"c=3"),
    ];

    #[test]
    fn lines_and_map_say_the_same() {
        let lines = LINES.map(|(name, value)| httparse::Header { name, value });
        let map: HeaderMap = LINES
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_bytes(value).unwrap())
            })
            .collect();
        for header in [Header::Lines(&lines), Header::from(&map)] {
            assert_eq!(header.text(&HOST), Some("shop"));
            assert_eq!(header.first(&ACCEPT), None);
            assert_eq!(header.all(&COOKIE).count(), 3);
            assert_eq!(header.all(&COOKIE).next_back(), Some(b"c=3".as_slice()));
            assert_eq!(header.texts(&COOKIE).collect::<Vec<_>>(), ["a=1", "c=3"]);
            assert_eq!(header.bytes(), 8 + 4 + 3 * (6 + 3 + 4));
        }
    }
}
