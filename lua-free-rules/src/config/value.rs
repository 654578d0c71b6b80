//! What may stand behind `=`: text, numbers, addresses, sizes, times. Each says what it expects.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use toml::de::DeValue;
use toml::value::Offset;

use super::source::shown;
use crate::units::{Millis, Money, Timestamp};

/// A value of one kind.
pub(super) trait Leaf: Sized {
    /// What it is, with an example: "… must be *a length of time like "15m"*".
    const EXPECTED: &'static str;
    /// Longest text it is read from.
    const CHARS_MAX: usize = 100;

    /// Reads it. `None` if something of another type stands there.
    fn from_toml(value: &DeValue<'_>) -> Option<Result<Self, String>>;
}

/// A value that has a least and a most.
pub(super) trait Quantity: Leaf + Copy + PartialOrd {
    /// As people write it.
    fn show(self) -> String;
}

impl Leaf for String {
    const EXPECTED: &'static str = "text in quotes";
    const CHARS_MAX: usize = 4_000;

    fn from_toml(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        Some(Ok(value.as_str()?.to_owned()))
    }
}

impl Leaf for bool {
    const EXPECTED: &'static str = "true or false, without quotes";

    fn from_toml(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        value.as_bool().map(Ok)
    }
}

impl Leaf for i64 {
    const EXPECTED: &'static str = "a whole number without quotes";

    fn from_toml(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        let digits = value.as_integer()?;
        Some(
            Self::from_str_radix(digits.as_str(), digits.radix()).map_err(|_| {
                format!(
                    "`{}` is too large a number: the largest is {}",
                    shown(digits.as_str()),
                    Self::MAX
                )
            }),
        )
    }
}

/// Makes a leaf of what is read from text by `TryFrom<String>`.
macro_rules! text_leaf {
    ($type:ty, $expected:literal) => {
        impl Leaf for $type {
            const EXPECTED: &'static str = $expected;

            fn from_toml(value: &DeValue<'_>) -> Option<Result<Self, String>> {
                Some(Self::try_from(value.as_str()?.to_owned()))
            }
        }
    };
}
pub(super) use text_leaf;

text_leaf!(Millis, "a length of time in quotes, like \"15m\"");
text_leaf!(Money, "a price in quotes, like \"99.00\"");
text_leaf!(Address, "an address in quotes, like \"127.0.0.1:8080\"");
text_leaf!(Size, "a size in quotes, like \"16KiB\"");

impl Quantity for Millis {
    fn show(self) -> String {
        let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let whole = |&(_, unit_ms): &(&str, i64)| self.ms() > 0 && self.ms() % unit_ms == 0;
        match units.into_iter().find(whole) {
            Some((unit, unit_ms)) => format!("{}{unit}", self.ms() / unit_ms),
            None if self.ms() == 0 => "0s".to_owned(),
            None => format!("{}ms", self.ms()),
        }
    }
}

impl Quantity for Size {
    fn show(self) -> String {
        self.to_string()
    }
}

impl Leaf for IpNet {
    const EXPECTED: &'static str = "a network in quotes, like \"10.0.0.0/8\"";

    fn from_toml(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        let text = value.as_str()?;
        Some(text.parse().map_err(|_| match text.parse::<IpAddr>() {
            Ok(one) => format!("`{text}` is one address: write \"{}\"", Self::from(one)),
            Err(_) => format!("`{text}` is not a network: write one like \"10.0.0.0/8\""),
        }))
    }
}

impl Leaf for Timestamp {
    const EXPECTED: &'static str = "a date and time without quotes, like 2026-12-01T10:00:00Z";

    fn from_toml(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        let written = value.as_datetime()?;
        let (Some(date), Some(time)) = (written.date, written.time) else {
            return Some(Err(format!(
                "`{written}` is not a moment: write date, time and offset, like \
                 2026-12-01T10:00:00Z"
            )));
        };
        let Some(offset) = written.offset else {
            return Some(Err(format!(
                "`{written}` is a local time, which differs from place to place: add `Z` for UTC \
                 or an offset like `+02:00`"
            )));
        };
        let offset_minutes = match offset {
            Offset::Z => 0,
            Offset::Custom { minutes } => i64::from(minutes),
        };
        let number = |n: u8| i8::try_from(n).unwrap_or(-1);
        let moment = jiff::civil::DateTime::new(
            i16::try_from(date.year).unwrap_or(-1),
            number(date.month),
            number(date.day),
            number(time.hour),
            number(time.minute),
            number(time.second.unwrap_or(0)),
            i32::try_from(time.nanosecond.unwrap_or(0)).unwrap_or(-1),
        )
        .and_then(|civil| jiff::tz::Offset::UTC.to_timestamp(civil));
        Some(match moment {
            Ok(utc) => Ok(Self(utc.as_millisecond()).plus_ms(-60_000 * offset_minutes)),
            Err(_) => Err(format!(
                "`{written}` is not on the calendar: check day and time"
            )),
        })
    }
}

/// A socket address, `127.0.0.1:8080` or `[::1]:8080`; port 0 lets the system choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl Address {
    /// Whether both cannot be listened on at once. Port 0 is another one each time.
    pub(super) fn collides_with(self, other: Self) -> bool {
        let every = |address: Self| address.0.ip().is_unspecified();
        self.0.port() != 0
            && self.0.port() == other.0.port()
            && (self.0.ip() == other.0.ip() || every(self) || every(other))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!("`{text}` is not an address: write an IP and a port, like \"127.0.0.1:8080\"")
        })
    }
}

/// A number of bytes, as people write it: `16KiB`, `1MiB`, `512B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub usize);

impl Size {
    pub(super) const fn kib(kib: usize) -> Self {
        Self(kib << 10)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes > 0 && bytes % (1 << 20) == 0 => write!(f, "{}MiB", bytes >> 20),
            bytes if bytes > 0 && bytes % (1 << 10) == 0 => write!(f, "{}KiB", bytes >> 10),
            bytes => write!(f, "{bytes}B"),
        }
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("B", 1)];
        units
            .into_iter()
            .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?.trim_end(), bytes)))
            .and_then(|(number, bytes)| number.parse::<usize>().ok()?.checked_mul(bytes))
            .map(Self)
            .ok_or_else(|| {
                format!("`{text}` is not a size: write one like \"512B\", \"16KiB\" or \"1MiB\"")
            })
    }
}

/// An address of this machine, for defaults.
pub(super) const fn loopback(port: u16) -> Address {
    Address(SocketAddr::V4(std::net::SocketAddrV4::new(
        std::net::Ipv4Addr::LOCALHOST,
        port,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_shown_as_they_can_be_written() {
        for (ms, text) in [
            (0, "0s"),
            (250, "250ms"),
            (90_000, "90s"),
            (900_000, "15m"),
            (604_800_000, "168h"),
        ] {
            assert_eq!(Millis::new(ms).show(), text);
            assert_eq!(Millis::try_from(text.to_owned()).unwrap(), Millis::new(ms));
        }
        for (bytes, text) in [
            (0, "0B"),
            (1_000, "1000B"),
            (1 << 14, "16KiB"),
            (1 << 20, "1MiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
            assert_eq!(Size::try_from(text.to_owned()).unwrap(), Size(bytes));
        }
    }

    #[test]
    fn addresses_collide_where_one_listener_would_shut_out_the_other() {
        let address = |text: &str| Address::try_from(text.to_owned()).unwrap();
        let collide = |one, other| address(one).collides_with(address(other));
        assert!(collide("127.0.0.1:80", "127.0.0.1:80"));
        assert!(collide("0.0.0.0:80", "127.0.0.1:80"));
        assert!(!collide("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!collide("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!collide("127.0.0.1:0", "127.0.0.1:0"));
    }

    #[test]
    fn a_moment_is_read_with_its_offset() {
        let read = |text: &str| {
            let value = DeValue::parse(text).unwrap();
            Timestamp::from_toml(value.get_ref()).unwrap()
        };
        assert_eq!(read("1970-01-01T00:00:01Z"), Ok(Timestamp(1_000)));
        assert_eq!(read("1970-01-01T02:00:00+02:00"), Ok(Timestamp(0)));
        assert_eq!(
            read("1970-01-01 00:00:00.5-00:30"),
            Ok(Timestamp(1_800_500))
        );
        assert!(read("1970-01-01T00:00:00").is_err());
        assert!(read("1970-01-01").is_err());
        assert!(read("10:00:00").is_err());
    }
}
