//! Who asks: the client's address, believed only as far as trusted proxies vouch for it, and the
//! session in the request.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};
use ipnet::IpNet;
use lua_free_rules::keys::KeyRing;
use lua_free_rules::token::{self, Session};
use lua_free_rules::units::Timestamp;
use pingora::protocols::SocketDigest;

use crate::request::Header;

/// The header in which proxies tell whose request they pass on.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The cookie that carries a challenge for buyers without scripts.
pub(crate) const CHALLENGE_COOKIE: &str = "floodgate_challenge";

/// The other end of a connection.
pub(crate) fn peer(socket: Option<&SocketDigest>) -> Option<SocketAddr> {
    socket?.peer_addr()?.as_inet().copied()
}

/// The client's address: the peer's, unless that is a trusted proxy; then the rightmost address in
/// `X-Forwarded-For` that is not one. What stands left of it was written by the client and proves
/// nothing.
pub(crate) fn address(peer: IpAddr, header: Header<'_>, trusted: &[IpNet]) -> IpAddr {
    let vouched = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut client = peer.to_canonical();
    // Most clients come straight: their fields need not be looked through.
    if !vouched(client) {
        return client;
    }
    for hop in header
        .all(&FORWARDED_FOR)
        .rev()
        .flat_map(|value| value.rsplit(|byte| *byte == b','))
    {
        if !vouched(client) {
            break;
        }
        let Some(address) = parse(hop) else { break };
        client = address;
    }
    client
}

fn parse(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// The session in the request, if it is validly signed and has not ended. Whether it still has a
/// record, the engine says.
pub(crate) fn session(header: Header<'_>, ring: &KeyRing, now: Timestamp) -> Option<Session> {
    let cookies = cookies(header);
    let authorization = header.text(&AUTHORIZATION);
    let text = token::session_text(authorization, cookies.as_deref())?;
    Session::verify(text, ring, now).ok()
}

/// The challenge in the request's cookie.
pub(crate) fn challenge_cookie(header: Header<'_>) -> Option<String> {
    let cookies = cookies(header)?;
    let challenge = token::cookie(&cookies, CHALLENGE_COOKIE)?;
    (!challenge.is_empty()).then(|| challenge.to_owned())
}

/// All cookies as one field: HTTP/2 clients may send each in a field of its own.
pub(crate) fn cookies(header: Header<'_>) -> Option<Cow<'_, str>> {
    let mut fields = header.texts(&COOKIE);
    let first = fields.next()?;
    Some(fields.fold(Cow::Borrowed(first), |all, more| {
        Cow::Owned(format!("{all}; {more}"))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};

    fn seen(peer: &str, forwarded: &[&'static str]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(value));
        }
        address(peer.parse().unwrap(), Header::from(&headers), &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(seen("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(seen("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(
            seen("10.0.0.1", &["1.2.3.4, 198.51.100.1, 10.0.0.2"]),
            "198.51.100.1"
        );
        assert_eq!(
            seen("fd00::1", &["1.2.3.4", "2001:db8::7, 10.9.9.9"]),
            "2001:db8::7"
        );
    }

    #[test]
    fn cookies_in_several_fields_are_read_as_one() {
        let mut headers = HeaderMap::new();
        assert_eq!(cookies(Header::from(&headers)), None);
        for field in ["a=1", "floodgate_challenge=c"] {
            headers.append(COOKIE, HeaderValue::from_static(field));
        }
        let header = Header::from(&headers);
        assert_eq!(cookies(header).unwrap(), "a=1; floodgate_challenge=c");
        assert_eq!(challenge_cookie(header).unwrap(), "c");
    }

    #[test]
    fn what_is_malformed_ends_the_chain() {
        assert_eq!(seen("10.0.0.1", &["1.2.3.4, nonsense"]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["1.2.3.4, x, 10.0.0.3"]), "10.0.0.3");
        assert_eq!(seen("10.0.0.1", &[""]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["10.0.0.5, 10.0.0.4"]), "10.0.0.5");
    }
}
