//! `floodgate.toml`: the nodes of a deployment. Every key has a default but those that cannot have
//! one; paths are relative to the folder of the file, `data_dir` included.

use toml::de::DeValue;

use super::reader::{Found, Table};
use super::source::shown;
use super::value::Leaf;
use super::{
    Accounts, Address, Database, DatabasePassword, Edge, Keys, Operator, OrderServers, Payment,
    Writer,
};
use crate::units::Millis;

/// Longest path or name, in characters.
const TEXT_CHARS_MAX: usize = 1_000;

/// The whole file.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where state lies: `engine.db`, `ledger.db`, generated keys.
    pub data_dir: String,
    /// Where the state lives that nodes share.
    pub engine: EngineKind,
    /// Where orders are written.
    pub database: Database,
    /// The password of the database's user.
    pub database_password: DatabasePassword,
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

impl Default for Node {
    fn default() -> Self {
        Self {
            data_dir: "../data".to_owned(),
            engine: EngineKind::Embedded,
            database: Database::Sqlite("ledger.db".to_owned()),
            database_password: DatabasePassword::default(),
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

impl Node {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let default = Self::default();
        let mut listeners = Vec::new();
        let database = table.or("database", default.database);
        let node = Self {
            data_dir: path(table, "data_dir").unwrap_or(default.data_dir),
            engine: table.or("engine", default.engine),
            database_password: DatabasePassword::read(table, &database),
            database,
            grace: table.quantity(
                "grace",
                default.grace,
                Millis::new(0)..=Millis::seconds(300),
            ),
            edge: table.section("edge", |table| Edge::read(table, &mut listeners)),
            orders: table.section("orders", |table| OrderServers::read(table, &mut listeners)),
            writer: table.section("writer", Writer::read),
            accounts: table.section("accounts", Accounts::read),
            payment: table.section("payment", Payment::read),
            keys: table.section("keys", Keys::read),
            operator: table.section("operator", Operator::read),
        };
        check_listeners(table, &listeners);
        node.warn_of_exposure(table);
        node
    }

    /// Warns of what is open to others and hardly meant to be.
    fn warn_of_exposure(&self, table: &Table<'_>) {
        let warn = |keys: &[&'static str], words: &str| {
            table.warn(table.value_at(keys).unwrap_or(table.start()), words);
        };
        let open = |address: &Address| !address.0.ip().is_loopback();
        if self.orders.listen.iter().any(open) {
            warn(
                &["orders", "listen"],
                "`orders.listen` is not on loopback: whoever reaches an order server walks around the \
                 edge; let only edges reach it",
            );
        }
        for (keys, address) in [
            (["edge", "admin"], &self.edge.admin),
            (["orders", "admin"], &self.orders.admin),
        ] {
            if open(address) {
                let words = format!(
                    "`{}` is not on loopback: metrics and readiness are told to whoever reaches it",
                    keys.join(".")
                );
                warn(&keys, &words);
            }
        }
        if self.edge.behind_tls && self.edge.trusted_proxies.is_empty() {
            warn(
                &["edge", "behind_tls"],
                "`edge.behind_tls` without `trusted_proxies`: all buyers seem to come from the proxy's \
                 address and share one rate; name the proxy's network",
            );
        }
        if !open(&self.edge.listen) && !self.edge.behind_tls {
            return;
        }
        if self.accounts.test_accounts {
            warn(
                &["accounts", "test_accounts"],
                "`accounts.test_accounts` is true in a shop that is open to others: whoever has the \
                 operator's token makes buyers at will; remove it for real buyers",
            );
        }
        if self.accounts.otp_delivery == super::OtpDelivery::Echo {
            warn(
                &["accounts", "otp_delivery"],
                "`accounts.otp_delivery` is \"echo\" in a shop that is open to others: whoever asks for \
                 a number's code is told it; use \"webhook\" for real buyers",
            );
        }
    }
}

/// An address that will be listened on, and where it was written.
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) address: Address,
    pub(super) at: Option<usize>,
}

/// The address `key`, or its default, which then stands where its table does. Adds it to the
/// listeners.
pub(super) fn listener(
    table: &mut Table<'_>,
    key: &'static str,
    default: Address,
    listeners: &mut Vec<Listener>,
) -> Found<Address> {
    let written = table.get::<Address>(key);
    let found = written.unwrap_or(Found {
        value: default,
        at: table.start(),
    });
    // One that is written wrong stands for nothing: it cannot collide.
    if written.is_some() || table.key_at(key).is_none() {
        listeners.push(Listener {
            name: table.name(key),
            address: found.value,
            at: written.map(|written| written.at),
        });
    }
    found
}

fn check_listeners(table: &Table<'_>, listeners: &[Listener]) {
    for (n, later) in listeners.iter().enumerate() {
        let twin = |earlier: &&Listener| later.address.collides_with(earlier.address);
        let Some(earlier) = listeners[..n].iter().find(twin) else {
            continue;
        };
        // The one that is written is the one to change.
        let (written, other) = match (later.at, earlier.at) {
            (None, Some(_)) => (earlier, later),
            _ => (later, earlier),
        };
        let by_default = if other.at.is_none() {
            ", its default"
        } else {
            ""
        };
        table.error(
            written.at.unwrap_or(table.start()),
            format!(
                "`{}` = {} takes the port of `{}` ({}{by_default}): give each listener its own",
                written.name, written.address, other.name, other.address
            ),
        );
    }
}

/// The path `key`, if it is written and good.
pub(super) fn path(table: &mut Table<'_>, key: &'static str) -> Option<String> {
    filled(table, key, "the path of a file or folder")
}

/// The text `key`, which must not be empty, if it is written and good.
pub(super) fn filled(table: &mut Table<'_>, key: &'static str, what: &str) -> Option<String> {
    let Found { value, at } = table.get::<String>(key)?;
    let name = table.name(key);
    let problem = if value.trim().is_empty() {
        format!("`{name}` is empty: write {what}")
    } else if value.contains(char::is_control) {
        format!("`{name}` has a control character in it: write {what}")
    } else if value.chars().nth(TEXT_CHARS_MAX).is_some() {
        format!("`{name}` is too long: at most {TEXT_CHARS_MAX} characters")
    } else {
        return Some(value);
    };
    table.error(at, problem);
    None
}

/// The homes of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// SQLite in this process: one machine.
    Embedded,
}

impl Leaf for EngineKind {
    const EXPECTED: &'static str = "the name of an engine in quotes: \"embedded\"";

    fn from_toml(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        Some(match value.as_str()? {
            "embedded" => Ok(Self::Embedded),
            other => Err(format!(
                "`{}` is not an engine of this version: \"embedded\" is the only one",
                shown(other)
            )),
        })
    }
}

/// Says that `written` is none of `words`.
pub(super) fn none_of(written: &str, what: &str, words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    format!(
        "`{}` is not {what}: write one of {}",
        shown(written),
        words.join(", ")
    )
}
