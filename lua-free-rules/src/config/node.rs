//! `floodgate.toml`: the nodes of a deployment. Every key has a default but those that cannot have
//! one; paths are relative to the folder of the file, `data_dir` included.

use super::reader::{Found, Table};
use super::source::shown;
use super::{
    Accounts, Address, Database, DatabasePassword, Edge, Engine, Keys, Operator, OrderServers,
    Payment, Role, Writer,
};
use crate::units::Millis;

/// Longest path or name, in characters.
const TEXT_CHARS_MAX: usize = 1_000;
/// Longest name of a process, in characters.
const NAME_CHARS_MAX: usize = 64;

/// The whole file.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The name of this process among all; its host and its role make one if none is written.
    pub name: Option<String>,
    /// Where state lies: `engine.db`, `ledger.db`, generated keys.
    pub data_dir: String,
    /// Where the state lives that nodes share.
    pub engine: Engine,
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
            name: None,
            data_dir: "../data".to_owned(),
            engine: Engine::default(),
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
    pub(super) fn read(table: &mut Table<'_>, role: Option<Role>) -> Self {
        let default = Self::default();
        let mut listeners = Vec::new();
        let (engine, engine_is_known) = Engine::read(table);
        let database = table.get::<Database>("database");
        let database_is_known = database.is_some() || table.key_at("database").is_none();
        let database = database.map_or(default.database, |found| found.value);
        let node = Self {
            name: name(table),
            data_dir: path(table, "data_dir").unwrap_or(default.data_dir),
            engine,
            database_password: DatabasePassword::read(table, &database),
            database,
            grace: table.quantity(
                "grace",
                default.grace,
                Millis::new(0)..=Millis::seconds(300),
            ),
            edge: table.section("edge", |table| Edge::read(table, &mut listeners)),
            orders: table.section("orders", |table| OrderServers::read(table, &mut listeners)),
            writer: table.section("writer", |table| Writer::read(table, &mut listeners)),
            accounts: table.section("accounts", Accounts::read),
            payment: table.section("payment", Payment::read),
            keys: table.section("keys", Keys::read),
            operator: table.section("operator", Operator::read),
        };
        check_listeners(table, &listeners);
        node.warn_of_exposure(table);
        if let Some(role) = role {
            role.check(table, &node, engine_is_known, database_is_known);
        }
        node
    }

    /// The name of this process: as written, or made of its host's name and what it does.
    pub fn name_on(&self, host: &str, what: &str) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let plain = |letter: char| if is_name_letter(letter) { letter } else { '-' };
        let room = NAME_CHARS_MAX.saturating_sub(what.len() + 1);
        let host: String = host.chars().map(plain).take(room).collect();
        format!("{host}-{what}")
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
            (["writer", "admin"], &self.writer.admin),
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

/// The name of this process, if it is written and good.
fn name(table: &mut Table<'_>) -> Option<String> {
    let Found { value, at } = table.get::<String>("node")?;
    if !value.is_empty() && value.len() <= NAME_CHARS_MAX && value.chars().all(is_name_letter) {
        return Some(value);
    }
    table.error(
        at,
        format!(
            "`{}` cannot name a process: use 1 to {NAME_CHARS_MAX} letters, digits, `.`, `-` or `_`",
            shown(&value)
        ),
    );
    None
}

const fn is_name_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_')
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

/// Says that `written` is none of `words`.
pub(super) fn none_of(written: &str, what: &str, words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    format!(
        "`{}` is not {what}: write one of {}",
        shown(written),
        words.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_by_its_host_and_what_it_does() {
        let mut node = Node::default();
        assert_eq!(node.name_on("shop-1", "writer"), "shop-1-writer");
        assert_eq!(node.name_on("shöp 1", "proxy"), "sh-p-1-proxy");
        let long = node.name_on(&"h".repeat(300), "backend");
        assert_eq!(long.len(), NAME_CHARS_MAX);
        assert!(long.ends_with("h-backend"));
        node.name = Some("north".to_owned());
        assert_eq!(node.name_on("shop-1", "writer"), "north");
    }
}
