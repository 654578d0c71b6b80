//! Money, time, and the ids that travel between the rooms: small types that cannot be mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

/// A moment, in milliseconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This moment `ms` milliseconds later; saturates at the ends of time.
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; negative if this one came first.
    pub const fn ms_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// RFC 3339 in UTC, with whole seconds where there is no fraction.
    pub fn to_rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0)
            .map_or_else(|_| self.0.to_string(), |t| t.to_string())
    }
}

/// A length of time in milliseconds, never negative. Written as people write it: `90s`, `15m`, `1h 30m`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Millis(u64);

impl Millis {
    /// `ms` milliseconds.
    pub const fn new(ms: u64) -> Self {
        Self(ms)
    }

    /// `s` seconds.
    pub const fn seconds(s: u64) -> Self {
        Self(s.saturating_mul(1000))
    }

    /// As a signed number for arithmetic with [`Timestamp`]; saturates.
    pub fn ms(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// As the standard library's duration.
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl TryFrom<String> for Millis {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let hint = || {
            format!(
                "`{text}` is not a length of time: write one like \"90s\", \"15m\" or \"1h 30m\""
            )
        };
        // As it is written below: longer than the library counts.
        if let Some(ms) = text.strip_suffix("ms").and_then(|ms| ms.parse().ok()) {
            return Ok(Self(ms));
        }
        let span: jiff::SignedDuration = text.parse().map_err(|_| hint())?;
        u64::try_from(span.as_millis())
            .map(Self)
            .map_err(|_| hint())
    }
}

impl From<Millis> for String {
    fn from(value: Millis) -> Self {
        format!("{}ms", value.0)
    }
}

/// An amount of money in minor units (cents). Outside it is a decimal string with two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Money(i64);

impl Money {
    /// The largest amount accepted: with a thousand units an order total still fits.
    pub const MAX_MINOR: i64 = 1_000_000_000_000;

    /// `minor` minor units, if it is between zero and [`Money::MAX_MINOR`].
    pub fn from_minor(minor: i64) -> Option<Self> {
        (0..=Self::MAX_MINOR)
            .contains(&minor)
            .then_some(Self(minor))
    }

    /// Minor units.
    pub const fn minor(self) -> i64 {
        self.0
    }

    /// The price of `amount` units; saturates.
    pub fn times(self, amount: u32) -> Self {
        Self(self.0.saturating_mul(i64::from(amount)))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl FromStr for Money {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint = || format!("`{text}` is not a price: write one like \"99.00\"");
        let (whole, cents) = text.split_once('.').unwrap_or((text, "00"));
        let digits =
            |s: &str| !s.is_empty() && s.len() <= 12 && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(cents) || cents.len() > 2 {
            return Err(hint());
        }
        let whole: i64 = whole.parse().map_err(|_| hint())?;
        let scale = if cents.len() == 1 { 10 } else { 1 };
        let cents: i64 = cents.parse().map_err(|_| hint())?;
        whole
            .checked_mul(100)
            .and_then(|minor| minor.checked_add(cents * scale))
            .and_then(Self::from_minor)
            .ok_or_else(hint)
    }
}

impl TryFrom<String> for Money {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Straight into what is being written: answers from memory allocate nothing.
impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

number_id!(
    /// An item of the catalogue.
    ItemId
);
number_id!(
    /// A promo: a sale of one item.
    PromoId
);
number_id!(
    /// A registered buyer.
    BuyerId
);

/// Says which publishing of a promo something belongs to; raised by publish and by rebuild.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub i64);

/// Counts the changes between sold out and available; never goes back.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SoldEpoch(pub i64);

/// The number of a change of a promo's available stock: 1, 2, 3 … without a gap in a generation.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sequence(pub i64);

/// The number of a reservation in its promo and generation. A late payment reserves again, under a
/// new number for the same order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ReservationNumber(pub i64);

/// An order: promo, generation and the number of its first reservation, written `7-1-42`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrderId {
    /// The promo it was bought in.
    pub promo: PromoId,
    /// The publishing of that promo.
    pub generation: Generation,
    /// Its first reservation.
    pub number: ReservationNumber,
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.promo, self.generation.0, self.number.0)
    }
}

impl FromStr for OrderId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // One spelling only: what is parsed must print as it was written.
        let part = |s: Option<&str>| {
            s.filter(|s| s.len() <= 18 && s.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|s| s.parse::<i64>().ok())
        };
        let mut parts = text.split('-');
        let read = (
            part(parts.next()),
            part(parts.next()),
            part(parts.next()),
            parts.next(),
        );
        let (Some(promo), Some(generation), Some(number), None) = read else {
            return Err("not an order id".to_owned());
        };
        let id = Self {
            promo: PromoId(promo),
            generation: Generation(generation),
            number: ReservationNumber(number),
        };
        if id.to_string() == text {
            Ok(id)
        } else {
            Err("not an order id".to_owned())
        }
    }
}

impl TryFrom<String> for OrderId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<OrderId> for String {
    fn from(value: OrderId) -> Self {
        value.to_string()
    }
}

/// 128 bits drawn by chance, written as 22 characters of URL-safe base64: token ids, session ids,
/// challenge ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce(pub [u8; 16]);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use base64::Engine as _;
        let mut text = [0_u8; 22];
        let written = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .encode_slice(self.0, &mut text)
            .map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..written]).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Nonce {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        use base64::Engine as _;
        let mut bytes = [0_u8; 16];
        if text.len() != 22 {
            return Err("not an id".to_owned());
        }
        match base64::engine::general_purpose::URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(16) => Ok(Self(bytes)),
            _ => Err("not an id".to_owned()),
        }
    }
}

impl TryFrom<String> for Nonce {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Nonce> for String {
    fn from(value: Nonce) -> Self {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_reads_what_it_writes() {
        for (text, minor) in [
            ("0", 0),
            ("0.5", 50),
            ("99.00", 9900),
            ("1234567.89", 123_456_789),
        ] {
            assert_eq!(text.parse::<Money>().unwrap().minor(), minor);
        }
        assert_eq!("99.5".parse::<Money>().unwrap().to_string(), "99.50");
        for bad in ["", "-1", "1.234", "1.", ".5", "1e3", "99999999999999", "١"] {
            assert!(bad.parse::<Money>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_order_id_has_one_spelling() {
        let id: OrderId = "7-1-42".parse().unwrap();
        assert_eq!(id.to_string(), "7-1-42");
        for bad in [
            "", "7-1", "7-1-42-0", "07-1-42", "+7-1-42", "7--42", "7-1-4 2",
        ] {
            assert!(bad.parse::<OrderId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_length_of_time_is_written_as_people_write_it() {
        for (text, ms) in [
            ("90s", 90_000),
            ("15m", 900_000),
            ("1h 30m", 5_400_000),
            ("250ms", 250),
        ] {
            assert_eq!(Millis::try_from(text.to_owned()).unwrap().ms(), ms);
        }
        for bad in ["", "15", "-5s", "soon"] {
            assert!(Millis::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_nonce_reads_what_it_writes() {
        let id = Nonce([7; 16]);
        assert_eq!(id.to_string().parse::<Nonce>().unwrap(), id);
        assert!("short".parse::<Nonce>().is_err());
    }

    #[test]
    fn a_moment_prints_as_rfc_3339() {
        assert_eq!(Timestamp(0).to_rfc3339(), "1970-01-01T00:00:00Z");
    }
}
