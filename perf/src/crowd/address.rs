//! Where the crowd goes, and the guard: a load generator may only be pointed at one's own server.

use std::net::{SocketAddr, ToSocketAddrs as _};

use super::error::CrowdError;

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What goes into `Host`.
    pub host: String,
    /// Where to connect.
    pub address: SocketAddr,
}

impl Target {
    /// Reads `http://host:port`. An address that is not loopback is refused unless the operator
    /// vouches for it.
    ///
    /// # Errors
    /// Says what is wrong with the URL, or that the guard holds.
    pub fn read(url: &str, vouched_for: bool) -> Result<Self, CrowdError> {
        let bad = |why: &str| CrowdError::Url(url.to_owned(), why.to_owned());
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some(("https", _)) => {
                return Err(bad("the crowd speaks plain HTTP: give it a plain listener"));
            }
            _ => return Err(bad("write it like http://127.0.0.1:8080")),
        };
        let host = rest.strip_suffix('/').unwrap_or(rest);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
        if host.is_empty() || !host.bytes().all(plain) {
            return Err(bad("only a host and a port, no path, no user"));
        }
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let full = if has_port {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let mut addresses = full
            .to_socket_addrs()
            .map_err(|error| bad(&error.to_string()))?;
        let address = addresses
            .next()
            .ok_or_else(|| bad("the name has no address"))?;
        // The address that was checked is the one connected to: a name cannot change in between.
        if !address.ip().is_loopback() && !vouched_for {
            return Err(CrowdError::NotLoopback(address));
        }
        Ok(Self {
            host: host.to_owned(),
            address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_let_through_and_nothing_else() {
        for url in [
            "http://127.0.0.1:8080",
            "http://127.9.9.9:1/",
            "http://[::1]:8080",
        ] {
            assert!(Target::read(url, false).is_ok(), "{url}");
        }
        for url in [
            "http://192.168.1.5:8080",
            "http://10.0.0.1",
            "http://203.0.113.7:80",
        ] {
            assert!(
                matches!(Target::read(url, false), Err(CrowdError::NotLoopback(_))),
                "{url}"
            );
            assert!(Target::read(url, true).is_ok(), "{url}");
        }
        let target = Target::read("http://127.0.0.1:8080/", false).unwrap();
        assert_eq!(
            (target.host.as_str(), target.address.port()),
            ("127.0.0.1:8080", 8080)
        );
    }

    #[test]
    fn what_is_not_such_an_address_is_refused_in_words() {
        for url in [
            "",
            "127.0.0.1:80",
            "https://127.0.0.1",
            "http://",
            "http://a b",
            "http://u@127.0.0.1",
            "http://127.0.0.1/path",
            "http://127.0.0.1:99999",
        ] {
            assert!(
                matches!(Target::read(url, true), Err(CrowdError::Url(..))),
                "{url}"
            );
        }
    }
}
