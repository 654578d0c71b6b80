//! `database` and its password: where the ledger is. SQLite is a file, the others are servers named by a
//! URL, which never holds the password.

use std::net::IpAddr;

use super::node::{filled, path};
use toml::de::DeValue;

use super::reader::Table;
use super::source::shown;
use super::value::{Leaf, text_leaf};

const EXAMPLES: &str = "\"sqlite:ledger.db\", \"mysql://shop@db.internal:3306/shop\" or \
                        \"postgres://shop@db.internal:5432/shop\"";
const TLS_MODES: &str = "disable, prefer, require, verify-ca, verify-full";

/// The ledger's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// The path of SQLite's file, relative to `data_dir` unless absolute.
    Sqlite(String),
    /// A database server.
    Server(DatabaseServer),
}

impl Database {
    /// Whether processes on several machines can share it.
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Server(_))
    }
}

/// A database server, and who one is to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseServer {
    /// What it speaks.
    pub kind: DatabaseKind,
    /// The user.
    pub user: String,
    /// The name or address of its machine.
    pub host: String,
    /// The port; without one, the usual one of its kind.
    pub port: Option<u16>,
    /// The database on it.
    pub name: String,
    /// Whether the way to it is encrypted. Without a word: [`TlsMode::Prefer`] on this machine,
    /// [`TlsMode::Require`] to others.
    pub tls: TlsMode,
}

/// The kinds of database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    /// MariaDB or MySQL.
    MySql,
    /// PostgreSQL.
    Postgres,
}

/// What is asked of the way to a database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS if the server can.
    Prefer,
    /// TLS or nothing; whose certificate it is does not matter.
    Require,
    /// A certificate of an authority that this machine trusts.
    VerifyCa,
    /// The same, made out to the server's name.
    VerifyFull,
}

/// Where the password of a database server's user is: one of the two, or neither if it has none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DatabasePassword {
    /// The file.
    pub file: Option<String>,
    /// The environment variable.
    pub env: Option<String>,
}

impl DatabasePassword {
    /// Reads its keys, which stand beside `database`.
    pub(super) fn read(table: &mut Table<'_>, database: &Database) -> Self {
        const FILE: &str = "database_password_file";
        const ENV: &str = "database_password_env";
        let found = Self {
            file: path(table, FILE),
            env: filled(table, ENV, "the name of an environment variable"),
        };
        let (file, env) = (table.key_at(FILE), table.key_at(ENV));
        if let (Some(first), Some(second)) = (file, env) {
            table.error(
                first.max(second),
                "the database's password has two sources: keep either `database_password_file` or \
                 `database_password_env`",
            );
        }
        if let (Database::Sqlite(_), Some(at)) = (database, file.or(env)) {
            table.error(
                at,
                "SQLite takes no password: remove this, or name a database server in `database`",
            );
        }
        found
    }
}

impl TryFrom<String> for Database {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(format!(
                "a database has a scheme: write one like {EXAMPLES}"
            ));
        };
        let kind = match scheme {
            "sqlite" => return sqlite(rest),
            "mysql" | "mariadb" => DatabaseKind::MySql,
            "postgres" | "postgresql" => DatabaseKind::Postgres,
            // The rest may hold a password: only the scheme is repeated.
            scheme => {
                return Err(format!(
                    "`{}` is not a database of this version: write one like {EXAMPLES}",
                    shown(scheme)
                ));
            }
        };
        server(kind, rest).map(Self::Server)
    }
}

fn sqlite(path: &str) -> Result<Database, String> {
    if path.is_empty() || path.starts_with("//") || path.contains([':', '?', '\0']) {
        return Err(
            "this is not the path of a database: write one like \"sqlite:ledger.db\"".to_owned(),
        );
    }
    Ok(Database::Sqlite(path.to_owned()))
}

/// `//user@host:port/name?sslmode=…`. No error repeats what may be a password.
fn server(kind: DatabaseKind, rest: &str) -> Result<DatabaseServer, String> {
    let scheme = match kind {
        DatabaseKind::MySql => "mysql",
        DatabaseKind::Postgres => "postgres",
    };
    let example = format!("write it like \"{scheme}://shop@db.internal/shop\"");
    let rest = rest
        .strip_prefix("//")
        .ok_or_else(|| format!("a database server's URL has `//` behind its scheme: {example}"))?;
    let (user, rest) = rest
        .rsplit_once('@')
        .filter(|(user, _)| !user.is_empty())
        .ok_or_else(|| format!("this URL names no user: {example}"))?;
    if user.contains(':') {
        return Err(
            "there is a password in this URL, where logs and process lists show it: put it in a file \
             and name that in `database_password_file`, or use `database_password_env`"
                .to_owned(),
        );
    }
    let (address, rest) = rest
        .split_once('/')
        .ok_or_else(|| format!("this URL names no database: {example}"))?;
    let (name, query) = match rest.split_once('?') {
        Some((name, query)) => (name, Some(query)),
        None => (rest, None),
    };
    let (host, port) = host_and_port(address)
        .ok_or_else(|| format!("this URL has no host, or no good port: {example}"))?;
    for (what, word) in [("user", user), ("database", name)] {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.$".contains(letter);
        if word.is_empty() || !word.chars().all(is_plain) {
            return Err(format!(
                "the {what} in this URL must be of letters, digits, `_`, `-`, `.` and `$`: {example}"
            ));
        }
    }
    let tls = match query {
        Some(query) => tls_mode(query)?,
        None if is_here(host) => TlsMode::Prefer,
        None => TlsMode::Require,
    };
    Ok(DatabaseServer {
        kind,
        user: user.to_owned(),
        host: host.to_owned(),
        port,
        name: name.to_owned(),
        tls,
    })
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`.
fn host_and_port(address: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<IpAddr>().ok()?;
        (
            host,
            port.strip_prefix(':').or((port.is_empty()).then_some("")),
        )
    } else {
        let (host, port) = address.split_once(':').unwrap_or((address, ""));
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
        (!host.is_empty() && host.chars().all(is_plain)).then_some(())?;
        (
            host,
            Some(port).filter(|port| !port.is_empty() || !address.ends_with(':')),
        )
    };
    match port? {
        "" => Some((host, None)),
        port => {
            let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
            Some((host, Some(port)))
        }
    }
}

fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn tls_mode(query: &str) -> Result<TlsMode, String> {
    let mode = query
        .strip_prefix("sslmode=")
        .or_else(|| query.strip_prefix("ssl-mode="));
    match mode.map(|mode| mode.to_ascii_lowercase().replace('_', "-")) {
        Some(mode) => match mode.as_str() {
            "disable" | "disabled" => Ok(TlsMode::Disable),
            "prefer" | "preferred" => Ok(TlsMode::Prefer),
            "require" | "required" => Ok(TlsMode::Require),
            "verify-ca" => Ok(TlsMode::VerifyCa),
            "verify-full" | "verify-identity" => Ok(TlsMode::VerifyFull),
            _ => Err(format!(
                "this is no TLS mode: write `?sslmode=` and one of {TLS_MODES}"
            )),
        },
        None => Err(format!(
            "the only thing that may stand behind `?` is `sslmode=` and one of {TLS_MODES}"
        )),
    }
}

text_leaf!(Database, "a database in quotes, like \"sqlite:ledger.db\"");

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Database, String> {
        Database::try_from(text.to_owned())
    }

    fn server(text: &str) -> DatabaseServer {
        match parse(text) {
            Ok(Database::Server(server)) => server,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_server_is_named_by_its_url() {
        let full = server("mysql://shop@db.internal:3307/orders?ssl-mode=VERIFY_IDENTITY");
        let expected = DatabaseServer {
            kind: DatabaseKind::MySql,
            user: "shop".to_owned(),
            host: "db.internal".to_owned(),
            port: Some(3_307),
            name: "orders".to_owned(),
            tls: TlsMode::VerifyFull,
        };
        assert_eq!(full, expected);
        let ports = [
            ("postgresql://shop@[::1]/orders", None, TlsMode::Prefer),
            (
                "postgres://shop@[::1]:5433/orders",
                Some(5_433),
                TlsMode::Prefer,
            ),
            ("mariadb://shop@127.0.0.1/orders", None, TlsMode::Prefer),
            (
                "mariadb://shop@localhost:1/orders",
                Some(1),
                TlsMode::Prefer,
            ),
            ("postgres://shop@10.0.0.7/orders", None, TlsMode::Require),
            (
                "postgres://shop@db/orders?sslmode=disable",
                None,
                TlsMode::Disable,
            ),
        ];
        for (text, port, tls) in ports {
            let server = server(text);
            assert_eq!((server.port, server.tls), (port, tls), "{text}");
        }
        assert_eq!(
            parse("sqlite:a/b.db"),
            Ok(Database::Sqlite("a/b.db".to_owned()))
        );
    }

    #[test]
    fn what_may_be_a_password_is_not_repeated() {
        for text in [
            "postgres://shop:hunter2@db/orders",
            "mysql://shop:hun/ter2@db/orders",
            "mysql://shop:hunter2:@@db/orders",
            "mysql://hunter2",
            "postgres://hunter2@/orders",
            "postgres://shop@db:hunter2/orders",
            "postgres://shop@db:0/orders",
            "postgres://shop@db:/orders",
            "postgres://shop@[::1/orders",
            "postgres://shop@[::1]5432/orders",
            "postgres://shop@db/orders?password=hunter2",
            "postgres://shop@db/orders?sslmode=hunter2",
            "postgres://shop@db/hunter2/orders",
            "postgres://shop@db",
            "postgres:shop@db/orders",
            "oracle://shop:hunter2@db/orders",
            "sqlite:hunter2?mode=memory",
            "hunter2",
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                !error.contains("hunter") && !error.contains("ter2"),
                "{text}: {error}"
            );
        }
        let words = parse("postgres://shop:hunter2@db/orders").unwrap_err();
        assert!(
            words.starts_with("there is a password in this URL"),
            "{words}"
        );
    }
}
