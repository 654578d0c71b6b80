//! `engine` and the keys that belong to it: where the state lives that nodes share.

use std::fmt;

use toml::de::DeValue;

use super::payment::SecretSource;
use super::reader::{Found, Table};
use super::source::shown;
use super::value::Leaf;

/// Most replicas that may be waited for.
const REPLICAS_MAX: u32 = 10;
/// Longest prefix of keys, in characters.
const PREFIX_CHARS_MAX: usize = 32;
/// Longest host or user name, in characters.
const HOST_CHARS_MAX: usize = 253;
/// The port of a Redis that names none.
const REDIS_PORT: u16 = 6379;
/// How an engine on Redis is written.
const EXAMPLE: &str = "redis://127.0.0.1:6379";

/// Where the state lives that nodes share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Its home.
    pub kind: EngineKind,
    /// Where the password of Redis is.
    pub password: Option<SecretSource>,
    /// How many replicas of Redis must have confirmed a step before it is answered.
    pub replicas: u32,
    /// What the keys in Redis begin with.
    pub prefix: String,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            kind: EngineKind::Embedded,
            password: None,
            replicas: 0,
            prefix: "floodgate".to_owned(),
        }
    }
}

impl Engine {
    /// The engine, and whether it is as it was meant: one that is written wrong may have been meant to be
    /// another.
    pub(super) fn read(table: &mut Table<'_>) -> (Self, bool) {
        let default = Self::default();
        let kind = table.get::<EngineKind>("engine");
        let password = SecretSource::read(table, "engine_password_file", "engine_password_env");
        let replicas = table.number_in("engine_replicas", 0..=REPLICAS_MAX);
        let engine = Self {
            password,
            replicas: replicas.map_or(default.replicas, |found| found.value),
            prefix: prefix(table).unwrap_or(default.prefix),
            kind: kind
                .as_ref()
                .map_or(default.kind, |kind| kind.value.clone()),
        };
        let is_known = kind.is_some() || table.key_at("engine").is_none();
        if is_known {
            engine.check_use(table, replicas);
        }
        (engine, is_known)
    }

    /// Whether processes share it.
    pub const fn is_shared(&self) -> bool {
        !matches!(self.kind, EngineKind::Embedded)
    }

    /// Notes what only Redis has a use for, if the engine is another one.
    fn check_use(&self, table: &Table<'_>, replicas: Option<Found<u32>>) {
        if self.is_shared() {
            return;
        }
        let written = |key| table.key_at(key).map(|at| (key, at));
        let unused = [
            written("engine_password_file"),
            written("engine_password_env"),
            replicas
                .filter(|found| found.value > 0)
                .map(|found| ("engine_replicas", found.at)),
        ];
        for (key, at) in unused.into_iter().flatten() {
            table.error(
                at,
                format!(
                    "`{key}` is never used: set `engine = \"{EXAMPLE}\"` with the address of your \
                     Redis, or remove it"
                ),
            );
        }
    }
}

fn prefix(table: &mut Table<'_>) -> Option<String> {
    let Found { value, at } = table.get::<String>("engine_prefix")?;
    let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if !value.is_empty() && value.len() <= PREFIX_CHARS_MAX && value.chars().all(fits) {
        return Some(value);
    }
    table.error(
        at,
        format!(
            "`{}` is no prefix for keys: use 1 to {PREFIX_CHARS_MAX} letters, digits, `-` or `_`",
            shown(&value)
        ),
    );
    None
}

/// The homes of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineKind {
    /// SQLite in this process: one machine.
    Embedded,
    /// Redis: any number of processes, on any number of machines.
    Redis(RedisAddress),
}

impl Leaf for EngineKind {
    const EXPECTED: &'static str =
        "an engine in quotes: \"embedded\", or a Redis like \"redis://127.0.0.1:6379\"";
    const CHARS_MAX: usize = 400;

    fn from_toml(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        let text = value.as_str()?;
        Some(match text.split_once("://") {
            None if text == "embedded" => Ok(Self::Embedded),
            Some(("redis", rest)) => RedisAddress::read(rest).map(Self::Redis),
            // The rest may hold a password: only the scheme is repeated.
            Some((scheme, _)) => Err(format!(
                "`{}` is not an engine of this version: write \"embedded\", or a Redis like \
                 \"{EXAMPLE}\"",
                shown(scheme)
            )),
            None => Err(format!(
                "this is not an engine: write \"embedded\", or a Redis like \"{EXAMPLE}\""
            )),
        })
    }
}

/// Where a Redis is. It is shown as a URL; a password is never part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisAddress {
    /// Who signs in; Redis' default user if nobody is named.
    pub user: Option<String>,
    /// Name or address; an IPv6 address stands in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Which of its databases.
    pub database: u16,
}

impl RedisAddress {
    /// What stands behind `redis://`. The text may hold a password: no message repeats it.
    fn read(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("this is not the address of a Redis: write one like \"{EXAMPLE}/0\"");
        // A password may have an `@` in it, a host never has.
        let (account, place) = match text.rsplit_once('@') {
            Some((account, place)) => (Some(account), place),
            None => (None, text),
        };
        if account.is_some_and(|account| account.contains(':')) {
            return Err(
                "there is a password in this address: take it out, and name the file or the \
                 variable it is in, under `engine_password_file` or `engine_password_env`"
                    .to_owned(),
            );
        }
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        let (host, port) = match authority.rfind(':') {
            // The colons of an IPv6 address stand within its brackets.
            Some(colon) if !authority[colon..].contains(']') => {
                (&authority[..colon], Some(&authority[colon + 1..]))
            }
            _ => (authority, None),
        };
        let is_good = is_host(host) && account.is_none_or(is_plain);
        let port = port.map_or(Some(REDIS_PORT), |port| {
            number(port).filter(|port| *port > 0)
        });
        let database = match database {
            "" => Some(0),
            written => number(written),
        };
        match (port, database) {
            (Some(port), Some(database)) if is_good => Ok(Self {
                user: account.map(str::to_owned),
                host: host.to_owned(),
                port,
                database,
            }),
            _ => Err(wrong()),
        }
    }
}

fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

fn is_plain(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !text.is_empty() && text.len() <= HOST_CHARS_MAX && text.bytes().all(fits)
}

fn is_host(text: &str) -> bool {
    let within = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match within {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_plain(text),
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{}:{}/{}", self.host, self.port, self.database)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<EngineKind, String> {
        let quoted = format!("\"{text}\"");
        let value = DeValue::parse(&quoted).unwrap();
        EngineKind::from_toml(value.get_ref()).unwrap()
    }

    #[test]
    fn an_address_is_shown_whole() {
        for (written, shown) in [
            ("redis://shop", "redis://shop:6379/0"),
            ("redis://10.0.0.7:6380/", "redis://10.0.0.7:6380/0"),
            ("redis://[fd00::7]:6380/3", "redis://[fd00::7]:6380/3"),
            ("redis://[fd00::7]", "redis://[fd00::7]:6379/0"),
            (
                "redis://gate@db-1.shop.example:1/15",
                "redis://gate@db-1.shop.example:1/15",
            ),
        ] {
            let Ok(EngineKind::Redis(address)) = read(written) else {
                panic!("{written} was refused");
            };
            assert_eq!(address.to_string(), shown);
        }
    }

    #[test]
    fn what_is_refused_repeats_no_password() {
        for written in [
            "redis://:hunter2@shop:6379",
            "redis://gate:hunter2@shop:6379/0",
            "redis://gate:hun@ter2@shop",
            "redis://gate:hunter2@",
            "rediss://gate:hunter2@shop:6379",
            "redis://hunter2 x@shop",
            "redis://shop:hunter2",
            "redis://shop:6379/hunter2",
            "redis://shop:0/hunter2",
            "redis://shop:6379/0?password=hunter2",
            "redis:hunter2@shop",
            "hunter2",
        ] {
            let problem = read(written).unwrap_err();
            assert!(!problem.contains("hunter2"), "{written}: {problem}");
            assert!(!problem.contains("ter2"), "{written}: {problem}");
        }
        for written in [
            "redis://",
            "redis://:6379",
            "redis://a b",
            "redis://[::zz]:1",
            "redis://h:+1",
        ] {
            assert!(read(written).is_err(), "{written}");
        }
    }
}
