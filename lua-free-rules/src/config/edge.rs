//! `[edge]`: the front door. Fields, defaults and bounds.

use ipnet::IpNet;

use super::node::{Listener, listener, path};
use super::reader::{Found, Table};
use super::value::{Address, Size, loopback};
use crate::limit::Rate;
use crate::units::Millis;

/// Most requests a second, and most at once, that a rate may allow.
const RATE_MAX: u32 = 1_000_000;

/// The front door.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// Where buyers come in.
    pub listen: Address,
    /// Where `/live`, `/ready` and `/metrics` are answered.
    pub admin: Address,
    /// The order servers, as the edge reaches them. Empty in `run` means: where those of this
    /// process listen.
    pub upstreams: Vec<Address>,
    /// Proxies in front of the edge whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// TLS ends in front of the edge: cookies are marked Secure on a plain listener too. Needed for
    /// a plain listener that is not on loopback.
    pub behind_tls: bool,
    /// Certificate and key, to end TLS here.
    pub tls: Option<Tls>,
    /// The folder of the pages.
    pub pages: String,
    /// Threads that serve; 0 for as many as the process may use processors at once.
    pub threads: usize,
    /// Whether each of them is bound to one of the processors that the process may use.
    pub pin_threads: bool,
    /// Whether the edge's own answers go straight to the connection. Without it every request takes
    /// Pingora's way, with the same answers.
    pub fast_path: bool,
    /// Limits on one request.
    pub limits: RequestLimits,
    /// Limits on how often.
    pub rates: Rates,
    /// How long item details are kept.
    pub item_cache: ItemCache,
    /// Pictures and puzzles made in advance.
    pub puzzles: Puzzles,
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            listen: loopback(8080),
            admin: loopback(9100),
            upstreams: Vec::new(),
            trusted_proxies: Vec::new(),
            behind_tls: false,
            tls: None,
            pages: "../html".to_owned(),
            threads: 0,
            pin_threads: false,
            fast_path: true,
            limits: RequestLimits::default(),
            rates: Rates::default(),
            item_cache: ItemCache::default(),
            puzzles: Puzzles::default(),
        }
    }
}

impl Edge {
    pub(super) fn read(table: &mut Table<'_>, listeners: &mut Vec<Listener>) -> Self {
        let default = Self::default();
        let listen = listener(table, "listen", default.listen, listeners);
        let behind_tls = table.get::<bool>("behind_tls");
        check_exposure(table, listen, behind_tls);
        Self {
            listen: listen.value,
            admin: listener(table, "admin", default.admin, listeners).value,
            upstreams: upstreams(table, listen.value),
            trusted_proxies: table
                .list("trusted_proxies")
                .unwrap_or_default()
                .into_iter()
                .map(|found| found.value)
                .collect(),
            behind_tls: behind_tls.map_or(default.behind_tls, |found| found.value),
            tls: table.table("tls", Tls::read).flatten(),
            pages: path(table, "pages").unwrap_or(default.pages),
            threads: table.number("threads", default.threads, 0..=1_024),
            pin_threads: table
                .get::<bool>("pin_threads")
                .map_or(default.pin_threads, |found| found.value),
            fast_path: table
                .get::<bool>("fast_path")
                .map_or(default.fast_path, |found| found.value),
            limits: table.section("limits", RequestLimits::read),
            rates: table.section("rates", Rates::read),
            item_cache: table.section("item_cache", ItemCache::read),
            puzzles: table.section("puzzles", Puzzles::read),
        }
    }
}

/// A plain listener is for this machine, unless somebody vouches for TLS in front of it.
fn check_exposure(table: &Table<'_>, listen: Found<Address>, behind_tls: Option<Found<bool>>) {
    // What is written wrong is an error already: what it would have been is not guessed at.
    let vouches = match behind_tls {
        Some(found) => found.value,
        None => table.key_at("behind_tls").is_some(),
    };
    let ends_tls = table.key_at("tls").is_some();
    if ends_tls || vouches || listen.value.0.ip().is_loopback() {
        return;
    }
    table.error(
        listen.at,
        format!(
            "`edge.listen` = {} is open to others, without TLS: add `[edge.tls]` with \
             `certificate` and `key`, or set `behind_tls = true` if a proxy in front ends TLS, or \
             listen on 127.0.0.1",
            listen.value
        ),
    );
}

fn upstreams(table: &mut Table<'_>, own: Address) -> Vec<Address> {
    let mut upstreams: Vec<Address> = Vec::new();
    for Found { value, at } in table.list::<Address>("upstreams").unwrap_or_default() {
        if value.0.port() == 0 {
            table.error(
                at,
                format!("`{value}` names no port: write that of an order server"),
            );
        } else if value == own {
            let words =
                format!("`{value}` is the edge itself: write where an order server listens");
            table.error(at, words);
        } else if upstreams.contains(&value) {
            table.error(at, format!("`{value}` is listed twice: write each once"));
        } else {
            upstreams.push(value);
        }
    }
    upstreams
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Tls {
    fn read(table: &mut Table<'_>) -> Option<Self> {
        let certificate = path(table, "certificate");
        let key = path(table, "key");
        for (name, example) in [("certificate", "\"chain.pem\""), ("key", "\"key.pem\"")] {
            if table.key_at(name).is_none() {
                table.missing(name, example);
            }
        }
        Some(Self {
            certificate: certificate?,
            key: key?,
        })
    }
}

/// Limits on one request.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestLimits {
    /// The largest body.
    pub body_max: Size,
    /// All header fields together.
    pub headers_max: Size,
    /// How long a request's header and body may take to arrive, each.
    pub read_timeout: Millis,
    /// How long an idle connection is kept.
    pub idle_timeout: Millis,
    /// How long connecting to an order server may take.
    pub connect_timeout: Millis,
    /// How long an order server may take to answer.
    pub upstream_timeout: Millis,
    /// Requests in flight to one order server; beyond it the edge answers 503.
    pub in_flight_max: u32,
    /// Connections to the edge; further ones are closed at once.
    pub connections_max: u32,
    /// Connections of one address (IPv6: one /64), trusted proxies excepted.
    pub connections_per_address_max: u32,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            body_max: Size::kib(16),
            headers_max: Size::kib(16),
            read_timeout: Millis::seconds(10),
            idle_timeout: Millis::seconds(60),
            connect_timeout: Millis::seconds(1),
            upstream_timeout: Millis::seconds(5),
            in_flight_max: 256,
            connections_max: 10_000,
            connections_per_address_max: 1_000,
        }
    }
}

impl RequestLimits {
    fn read(table: &mut Table<'_>) -> Self {
        let default = Self::default();
        let least = Millis::new(10);
        let (minute, five_minutes) = (Millis::seconds(60), Millis::seconds(300));
        let hour = Millis::seconds(3_600);
        Self {
            body_max: table.quantity(
                "body_max",
                default.body_max,
                Size::kib(1)..=Size::kib(1_024),
            ),
            headers_max: table.quantity(
                "headers_max",
                default.headers_max,
                Size::kib(1)..=Size::kib(64),
            ),
            read_timeout: table.quantity(
                "read_timeout",
                default.read_timeout,
                least..=five_minutes,
            ),
            idle_timeout: table.quantity("idle_timeout", default.idle_timeout, least..=hour),
            connect_timeout: table.quantity(
                "connect_timeout",
                default.connect_timeout,
                least..=minute,
            ),
            upstream_timeout: table.quantity(
                "upstream_timeout",
                default.upstream_timeout,
                least..=five_minutes,
            ),
            in_flight_max: table.number("in_flight_max", default.in_flight_max, 1..=100_000),
            connections_max: table.number(
                "connections_max",
                default.connections_max,
                1..=1_000_000,
            ),
            connections_per_address_max: table.number(
                "connections_per_address_max",
                default.connections_per_address_max,
                1..=1_000_000,
            ),
        }
    }
}

/// Limits on how often. Zero lets nothing through.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// All requests of one address (IPv6: one /64).
    pub address: Rate,
    /// Requests of one signed-in buyer that ask for a challenge, a token or an order.
    pub buyer: Rate,
    /// Sign-in, registration and one-time codes of one address.
    pub accounts: Rate,
    /// How many addresses and buyers are remembered; the longest unseen are forgotten.
    pub keys_max: usize,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            address: Rate {
                per_second: 100,
                burst: 200,
            },
            buyer: Rate {
                per_second: 5,
                burst: 20,
            },
            accounts: Rate {
                per_second: 2,
                burst: 20,
            },
            keys_max: 200_000,
        }
    }
}

impl Rates {
    fn read(table: &mut Table<'_>) -> Self {
        let default = Self::default();
        Self {
            address: rate(table, "address").unwrap_or(default.address),
            buyer: rate(table, "buyer").unwrap_or(default.buyer),
            accounts: rate(table, "accounts").unwrap_or(default.accounts),
            keys_max: table.number("keys_max", default.keys_max, 1..=10_000_000),
        }
    }
}

/// The rate `key`, if it is written and good; both of its numbers belong together.
fn rate(table: &mut Table<'_>, key: &'static str) -> Option<Rate> {
    table.table(key, |table| {
        let mut number = |name: &'static str, example: &str| {
            if table.key_at(name).is_none() {
                table.missing(name, example);
            }
            let found = table.number_in(name, 0..=RATE_MAX)?;
            if found.value == 0 {
                let words = format!(
                    "`{}` is 0: zero means zero, nothing is let through",
                    table.name(name)
                );
                table.warn(found.at, words);
            }
            Some(found.value)
        };
        let (per_second, burst) = (number("per_second", "100"), number("burst", "200"));
        Some(Rate {
            per_second: per_second?,
            burst: burst?,
        })
    })?
}

/// How long item details are kept at the edge.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemCache {
    /// Served without asking for this long.
    pub fresh: Millis,
    /// Served while a refresh runs or fails for this long.
    pub stale: Millis,
    /// How many items, those that do not exist included.
    pub capacity: u64,
}

impl Default for ItemCache {
    fn default() -> Self {
        Self {
            fresh: Millis::seconds(1),
            stale: Millis::seconds(600),
            capacity: 10_000,
        }
    }
}

impl ItemCache {
    fn read(table: &mut Table<'_>) -> Self {
        let default = Self::default();
        let nothing = Millis::new(0);
        let (hour, day) = (Millis::seconds(3_600), Millis::seconds(24 * 3_600));
        Self {
            fresh: table.quantity("fresh", default.fresh, nothing..=hour),
            stale: table.quantity("stale", default.stale, nothing..=day),
            capacity: table.number("capacity", default.capacity, 1..=10_000_000),
        }
    }
}

/// Pictures and puzzles made in advance.
#[derive(Debug, Clone, PartialEq)]
pub struct Puzzles {
    /// How many of each kind are kept ready.
    pub pool: usize,
    /// How long a challenge may take.
    pub ttl: Millis,
    /// Letters in a picture.
    pub image_letters: usize,
    /// Rounds of PBKDF2 in one step of the proof of work.
    pub altcha_cost: u32,
    /// Steps of the proof of work: at least half of this, at most this.
    pub altcha_steps: u32,
}

impl Default for Puzzles {
    fn default() -> Self {
        Self {
            pool: 256,
            ttl: Millis::seconds(120),
            image_letters: 5,
            altcha_cost: 200,
            altcha_steps: 3_000,
        }
    }
}

impl Puzzles {
    fn read(table: &mut Table<'_>) -> Self {
        let default = Self::default();
        Self {
            pool: table.number("pool", default.pool, 1..=10_000),
            ttl: table.quantity(
                "ttl",
                default.ttl,
                Millis::seconds(5)..=Millis::seconds(3_600),
            ),
            image_letters: table.number("image_letters", default.image_letters, 4..=8),
            altcha_cost: table.number("altcha_cost", default.altcha_cost, 1..=10_000),
            altcha_steps: table.number("altcha_steps", default.altcha_steps, 2..=100_000),
        }
    }
}
