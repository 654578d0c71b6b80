//! What a process of its own needs of `floodgate.toml` beyond what every file must have. `run` needs none
//! of it: it makes its own keys, and reaches its own order servers.

use std::fmt;

use super::node::Node;
use super::reader::Table;

/// What a process does. `run` does all of it in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The edge.
    Proxy,
    /// The order servers.
    Backend,
    /// The order writer and the expiry sweeper.
    Writer,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Proxy, Self::Backend, Self::Writer];

    /// Its name, which is that of its subcommand.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Backend => "backend",
            Self::Writer => "writer",
        }
    }

    const fn has_ledger(self) -> bool {
        matches!(self, Self::Backend | Self::Writer)
    }

    /// Whether it meets buyers and operators, and so signs, verifies and asks for the operator's token.
    const fn has_callers(self) -> bool {
        matches!(self, Self::Proxy | Self::Backend)
    }

    /// Notes all that this role lacks. What was written wrong has an error already: `engine_is_known`
    /// and `database_is_known` say whether those two were not.
    pub(super) fn check(
        self,
        table: &Table<'_>,
        node: &Node,
        engine_is_known: bool,
        database_is_known: bool,
    ) {
        let lacks = |keys: &[&str], words: String| {
            table.error(table.value_at(keys).unwrap_or(table.start()), words);
        };
        if engine_is_known && !node.engine.is_shared() {
            let words = format!(
                "`engine` is \"embedded\", which lives inside of one process: `floodgate {self}` works \
                 with others; write a Redis like \"redis://127.0.0.1:6379\", or start the whole shop in \
                 one process with `floodgate run`"
            );
            lacks(&["engine"], words);
        }
        if self.has_ledger() && database_is_known && !node.database.is_shared() {
            let words = format!(
                "`database` is an SQLite file, which belongs to one machine: `floodgate {self}` works \
                 with others; write a server like \"mysql://shop@db.internal/shop\" or \
                 \"postgres://shop@db.internal/shop\""
            );
            lacks(&["database"], words);
        }
        if self == Self::Proxy && node.edge.upstreams.is_empty() {
            let words = "`edge.upstreams` names no order server, and `floodgate proxy` has none of its own: \
                         write where they listen, like [\"127.0.0.1:8101\"]";
            lacks(&["edge", "upstreams"], words.to_owned());
        }
        if self.has_callers() {
            self.check_secrets(table, node);
        }
    }

    /// What one process accepts another must accept too: nothing may be generated.
    fn check_secrets(self, table: &Table<'_>, node: &Node) {
        let lacks = |section: &str, words: &str| {
            let at = table.value_at(&[section]).unwrap_or(table.start());
            table.error(at, words);
        };
        if node.keys.active.is_none() && table.value_at(&["keys", "accepted"]).is_none() {
            lacks(
                "keys",
                "`keys.active` is missing: all processes share their keys; make one with \
                 `floodgate keygen` and name it under `[keys]` on every machine",
            );
        }
        let operator = &node.operator;
        if operator.token_file.is_none() && operator.token_env.is_none() {
            lacks(
                "operator",
                "`operator.token_file` is missing: all processes share the operator's token; write it, \
                 or `operator.token_env`, on every machine",
            );
        }
        if self == Self::Backend && node.payment.webhook_secret_file.is_none() {
            lacks(
                "payment",
                "`payment.webhook_secret_file` is missing: all order servers share this secret, which \
                 keys one-time codes too; write it on every machine",
            );
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
