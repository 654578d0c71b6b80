//! An order as an order server gets it: what the client sent, but for what is between him and the edge only,
//! and with who he is.

use http::header::COOKIE;

use super::super::{spare, wire};
use crate::call::Call;
use crate::client::{self, FORWARDED_FOR};
use crate::edge::Edge;
use crate::forward::{self, FORWARDED_PROTO};
use crate::request::{Header, Request};

/// The bytes to send.
pub(in super::super) fn write(
    edge: &Edge,
    call: &Call,
    request: &Request<'_>,
    lines: &[httparse::Header<'_>],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = spare::take();
    bytes.extend_from_slice(request.method.as_str().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(request.path.as_bytes());
    if let Some(query) = request.query {
        bytes.push(b'?');
        bytes.extend_from_slice(query.as_bytes());
    }
    bytes.extend_from_slice(b" HTTP/1.1\r\n");
    for line in lines {
        if forward::passes(line.name) && !is_written_anew(line.name) {
            wire::write_line(&mut bytes, line.name, line.value);
        }
    }
    if let Some(cookies) = client::cookies(Header::Lines(lines)) {
        wire::write_line(&mut bytes, COOKIE.as_str(), cookies.as_bytes());
    }
    let client = call.client.to_string();
    wire::write_line(&mut bytes, FORWARDED_FOR.as_str(), client.as_bytes());
    let scheme = forward::scheme(edge);
    wire::write_line(&mut bytes, FORWARDED_PROTO, scheme.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

fn is_written_anew(name: &str) -> bool {
    [COOKIE.as_str(), FORWARDED_FOR.as_str(), FORWARDED_PROTO]
        .iter()
        .any(|written| name.eq_ignore_ascii_case(written))
}
