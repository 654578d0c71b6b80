//! `floodgate.toml`: the nodes of a deployment. Every key has a default but those that cannot have
//! one; paths are relative to the folder of the file, `data_dir` included.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::limit::Rate;
use crate::units::Millis;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Where state lies: `engine.db`, `ledger.db`, generated keys.
    pub data_dir: String,
    /// Where the state lives that nodes share.
    pub engine: EngineKind,
    /// Where orders are written.
    pub database: Database,
    /// The longest that stopping may take: work in flight is finished, then what is left is dropped.
    pub grace: Millis,
    /// The front door.
    pub edge: Edge,
    /// The order servers.
    pub orders: OrderServers,
    /// The order writer and the expiry sweeper.
    pub writer: Writer,
    /// Registration and sign-in.
    pub accounts: Accounts,
    /// Payment.
    pub payment: Payment,
    /// Signing keys.
    pub keys: Keys,
    /// Who may publish.
    pub operator: Operator,
}

/// The homes of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// SQLite in this process: one machine.
    Embedded,
}

/// The ledger's database as a URL: `sqlite:ledger.db`, its path relative to `data_dir`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Database(String);

impl Database {
    /// The path of the SQLite file, relative to `data_dir` unless absolute.
    pub fn sqlite_path(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Database {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() && !path.starts_with("//") => Ok(Self(path.to_owned())),
            _ => Err(format!(
                "`{text}` is not a database: write \"sqlite:ledger.db\""
            )),
        }
    }
}

/// A socket address, `127.0.0.1:8080` or `[::1]:8080`; port 0 lets the system choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address(pub SocketAddr);

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!("`{text}` is not an address: write an IP and a port, like \"127.0.0.1:8080\"")
        })
    }
}

/// A number of bytes, as people write it: `16KiB`, `1MiB`, `512B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub usize);

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

/// The front door.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
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
    /// Threads that serve; 0 for one per core.
    pub threads: usize,
    /// Limits on one request.
    pub limits: RequestLimits,
    /// Limits on how often.
    pub rates: Rates,
    /// How long item details are kept.
    pub item_cache: ItemCache,
    /// Pictures and puzzles made in advance.
    pub puzzles: Puzzles,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// Limits on one request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
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
}

/// Limits on how often.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
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

/// How long item details are kept at the edge.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ItemCache {
    /// Served without asking for this long.
    pub fresh: Millis,
    /// Served while a refresh runs or fails for this long.
    pub stale: Millis,
    /// How many items, those that do not exist included.
    pub capacity: u64,
}

/// Pictures and puzzles made in advance.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
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

/// The order servers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OrderServers {
    /// Where each of them listens; for the edge only, never for the public.
    pub listen: Vec<Address>,
    /// Where `/live`, `/ready` and `/metrics` are answered.
    pub admin: Address,
    /// Orders in the making at once, in one order server.
    pub in_flight_max: usize,
    /// Orders that may wait for their turn; beyond it they are shed with 503.
    pub waiting_max: usize,
    /// Reservations that may wait for the ledger; beyond it new ones get 503.
    pub stream_max: u64,
    /// How long after its token's expiry an order may be submitted again.
    pub resubmit_for: Millis,
}

/// The order writer and the expiry sweeper.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Writer {
    /// Events in one transaction.
    pub batch_max: usize,
    /// How often unpaid orders are looked for.
    pub sweep_every: Millis,
}

/// Registration and sign-in.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Accounts {
    /// How one-time codes reach their owner.
    pub otp_delivery: OtpDelivery,
    /// Where `webhook` delivery posts `{"tel":…,"code":…}`.
    pub otp_webhook: Option<String>,
    /// How long a code is good.
    pub otp_ttl: Millis,
    /// Wrong guesses after which a code is void.
    pub otp_attempts: u32,
    /// Codes one number may ask for in an hour.
    pub otp_per_hour: u32,
    /// How long a session lasts.
    pub session_ttl: Millis,
    /// Password hashes computed at once.
    pub hash_concurrency: usize,
}

/// How one-time codes reach their owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OtpDelivery {
    /// In the answer itself: for trying things out.
    Echo,
    /// In the log of the order server.
    Log,
    /// By a POST to a service of yours.
    Webhook,
}

/// Payment.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Payment {
    /// Whether the demo provider's button works: it pays without money.
    pub demo: bool,
    /// File with the secret that signs the demo provider's webhook; generated by `run` if missing.
    pub webhook_secret_file: Option<String>,
}

/// Signing keys. Without any, `run` generates one in `data_dir`.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// The id of the key that signs.
    pub active: Option<String>,
    /// All that are accepted.
    pub accepted: Vec<KeyFile>,
}

/// One key: its secret in base64, in a file or in an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// Its id.
    pub id: String,
    /// The file.
    pub file: Option<String>,
    /// The environment variable.
    pub env: Option<String>,
}

/// Who may publish: the bearer of one token. Without a setting `run` generates one in `data_dir`.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Operator {
    /// File with the token.
    pub token_file: Option<String>,
    /// Environment variable with the token.
    pub token_env: Option<String>,
}

const fn loopback(port: u16) -> Address {
    Address(SocketAddr::V4(std::net::SocketAddrV4::new(
        std::net::Ipv4Addr::LOCALHOST,
        port,
    )))
}

impl Default for Node {
    fn default() -> Self {
        Self {
            data_dir: "../data".to_owned(),
            engine: EngineKind::Embedded,
            database: Database("ledger.db".to_owned()),
            grace: Millis::seconds(20),
            edge: Edge::default(),
            orders: OrderServers::default(),
            writer: Writer::default(),
            accounts: Accounts::default(),
            payment: Payment::default(),
            keys: Keys::default(),
            operator: Operator::default(),
        }
    }
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
            limits: RequestLimits::default(),
            rates: Rates::default(),
            item_cache: ItemCache::default(),
            puzzles: Puzzles::default(),
        }
    }
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            body_max: Size(16 << 10),
            headers_max: Size(16 << 10),
            read_timeout: Millis::seconds(10),
            idle_timeout: Millis::seconds(60),
            connect_timeout: Millis::seconds(1),
            upstream_timeout: Millis::seconds(5),
            in_flight_max: 256,
        }
    }
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

impl Default for ItemCache {
    fn default() -> Self {
        Self {
            fresh: Millis::seconds(1),
            stale: Millis::seconds(600),
            capacity: 10_000,
        }
    }
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

impl Default for OrderServers {
    fn default() -> Self {
        Self {
            listen: vec![loopback(8101), loopback(8102)],
            admin: loopback(9101),
            in_flight_max: 64,
            waiting_max: 256,
            stream_max: 100_000,
            resubmit_for: Millis::seconds(600),
        }
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            batch_max: 500,
            sweep_every: Millis::seconds(1),
        }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            otp_delivery: OtpDelivery::Log,
            otp_webhook: None,
            otp_ttl: Millis::seconds(300),
            otp_attempts: 5,
            otp_per_hour: 5,
            session_ttl: Millis::seconds(12 * 3600),
            hash_concurrency: 2,
        }
    }
}

impl Default for Payment {
    fn default() -> Self {
        Self {
            demo: true,
            webhook_secret_file: None,
        }
    }
}
