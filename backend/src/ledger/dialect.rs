//! Where the three databases' SQL differs: queries are written once, with `?` and with words in braces,
//! and this file says what the words mean to each.
//!
//! | word | meaning |
//! |---|---|
//! | `{int}` | the type of a whole number in `CAST` |
//! | `{lock}` | locks the rows that are read until the transaction ends |
//! | `{lock_shared}` | locks them against those who change or lock them, in common with others who do this |
//! | `{lock_free}` | rows that are read, locked as by `{lock}`, leaving out rows that others have locked |
//! | `{returning_id}` | at the end of an INSERT, for [`Query::insert`](super::connection::Query::insert) |
//! | `{:name}` | a parameter, for [`Query::bind_named`](super::connection::Query::bind_named) |
//! | `{rows id text, n int}` | the rows of one parameter, a JSON array of arrays, with named columns |
//! | `{update t set x = 1 by id text, n int}` | an UPDATE of the table, as `t`, joined to such rows, as `e` |
//!
//! SQLite has one writer at a time, whose transaction begins with the lock: there is nothing to lock.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{LazyLock, PoisonError, RwLock};

/// A family of databases that speak the same SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Dialect {
    Sqlite,
    /// MariaDB and MySQL.
    MySql,
    Postgres,
}

/// Queries by dialect, address and length: an address stands for a text, since the texts live as long as
/// the program.
type Translated = HashMap<(Dialect, usize, usize), &'static str>;

/// Each query of the program is translated once.
static TRANSLATED: LazyLock<RwLock<Translated>> = LazyLock::new(RwLock::default);

impl Dialect {
    /// The query in this dialect.
    pub(super) fn translate(self, query: &'static str) -> &'static str {
        if self == Self::Sqlite && !query.contains('{') {
            return query;
        }
        let key = (self, query.as_ptr() as usize, query.len());
        let known = TRANSLATED.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&key) {
            return known;
        }
        drop(known);
        let translated = Box::leak(self.words_replaced(query).into_boxed_str());
        let mut known = TRANSLATED.write().unwrap_or_else(PoisonError::into_inner);
        known.entry(key).or_insert(translated)
    }

    fn words_replaced(self, query: &str) -> String {
        let mut replaced = String::with_capacity(query.len());
        let mut rest = query;
        while let Some((before, word)) = rest.split_once('{') {
            replaced.push_str(before);
            let (word, after) = word.split_once('}').unwrap_or((word, ""));
            replaced.push_str(&self.word(word));
            rest = after;
        }
        replaced.push_str(rest);
        match self {
            Self::Sqlite | Self::MySql => replaced,
            Self::Postgres => numbered(&replaced),
        }
    }

    fn word(self, word: &str) -> String {
        let (name, rest) = word.split_once(' ').unwrap_or((word, ""));
        if name.starts_with(':') {
            return "?".to_owned();
        }
        let fixed = match (name, self) {
            ("int", Self::MySql) => "SIGNED",
            ("int", _) => "BIGINT",
            ("lock" | "lock_free" | "lock_shared", Self::Sqlite) => "",
            ("lock", _) => "FOR UPDATE",
            ("lock_shared", Self::MySql) => "LOCK IN SHARE MODE",
            ("lock_shared", Self::Postgres) => "FOR SHARE",
            ("lock_free", _) => "FOR UPDATE SKIP LOCKED",
            // The others tell the id of the last row beside the result.
            ("returning_id", Self::Postgres) => "RETURNING id",
            ("returning_id", _) => "",
            ("rows", _) => return self.rows(rest),
            ("update", _) => return self.update(rest),
            _ => unreachable!("`{word}` is no word of the queries"),
        };
        fixed.to_owned()
    }

    /// A parameter's rows as a table.
    fn rows(self, columns: &str) -> String {
        let mut listed = String::new();
        for (n, column) in columns.split(", ").enumerate() {
            let (name, kind) = column.split_once(' ').unwrap_or((column, "text"));
            let comma = if n == 0 { "" } else { ", " };
            let column_type = self.type_of(kind);
            // Writing to a string does not fail.
            let _ = match self {
                Self::Sqlite => write!(listed, "{comma}value->>{n} AS {name}"),
                // Without the last words, what does not fit would silently become NULL.
                Self::MySql => write!(
                    listed,
                    "{comma}{name} {column_type} PATH '$[{n}]' ERROR ON ERROR"
                ),
                Self::Postgres => write!(
                    listed,
                    "{comma}CAST(row_of->>{n} AS {column_type}) AS {name}"
                ),
            };
        }
        match self {
            Self::Sqlite => format!("(SELECT {listed} FROM json_each(?))"),
            Self::MySql => format!("JSON_TABLE(?, '$[*]' COLUMNS ({listed}))"),
            Self::Postgres => format!(
                "(SELECT {listed} FROM jsonb_array_elements(CAST(? AS jsonb)) AS given(row_of))"
            ),
        }
    }

    /// `table set … by columns`.
    fn update(self, words: &str) -> String {
        let (table, words) = words.split_once(" set ").unwrap_or((words, ""));
        let (set, columns) = words.rsplit_once(" by ").unwrap_or((words, ""));
        let rows = self.rows(columns);
        match self {
            Self::Sqlite | Self::Postgres => {
                format!("UPDATE {table} AS t SET {set} FROM {rows} AS e")
            }
            Self::MySql => format!("UPDATE {table} AS t JOIN {rows} AS e SET {set}"),
        }
    }

    /// The type of a column of [`Dialect::rows`]: a whole number, a text that may be compared with keys, or
    /// a text of any length.
    fn type_of(self, kind: &str) -> &'static str {
        match (self, kind) {
            (Self::Sqlite, _) => "",
            (_, "int") => "BIGINT",
            (Self::MySql, "text") => "VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            (Self::MySql, _) => "MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            (Self::Postgres, _) => "TEXT",
        }
    }
}

/// The query with `$1`, `$2`, … for its parameters.
fn numbered(query: &str) -> String {
    let mut parts = query.split('?');
    let mut numbered = parts.next().unwrap_or_default().to_owned();
    for (n, part) in parts.enumerate() {
        // Writing to a string does not fail.
        let _ = write!(numbered, "${}{part}", n + 1);
    }
    numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_translated_once() {
        let query = "SELECT CAST(x AS {int}) FROM {rows id text, n int} AS e WHERE y = ? {lock}";
        let [sqlite, mysql, postgres] =
            [Dialect::Sqlite, Dialect::MySql, Dialect::Postgres].map(|it| it.translate(query));
        assert_eq!(
            sqlite,
            "SELECT CAST(x AS BIGINT) FROM (SELECT value->>0 AS id, value->>1 AS n FROM json_each(?)) \
             AS e WHERE y = ? "
        );
        assert_eq!(
            mysql,
            "SELECT CAST(x AS SIGNED) FROM JSON_TABLE(?, '$[*]' COLUMNS (id VARCHAR(512) CHARACTER SET \
             utf8mb4 COLLATE utf8mb4_bin PATH '$[0]' ERROR ON ERROR, n BIGINT PATH '$[1]' ERROR ON \
             ERROR)) AS e WHERE y = ? FOR UPDATE"
        );
        assert_eq!(
            postgres,
            "SELECT CAST(x AS BIGINT) FROM (SELECT CAST(row_of->>0 AS TEXT) AS id, \
             CAST(row_of->>1 AS BIGINT) AS n FROM jsonb_array_elements(CAST($1 AS jsonb)) AS \
             given(row_of)) AS e WHERE y = $2 FOR UPDATE"
        );
        for dialect in [Dialect::MySql, Dialect::Postgres] {
            assert!(std::ptr::eq(
                dialect.translate(query),
                dialect.translate(query)
            ));
        }
    }

    #[test]
    fn an_update_is_joined_to_its_rows() {
        let query = "{update orders set state = 'expired', ended_at = e.now by id text, now int} WHERE t.id = e.id";
        assert_eq!(
            Dialect::Sqlite.translate(query),
            "UPDATE orders AS t SET state = 'expired', ended_at = e.now FROM (SELECT value->>0 AS id, \
             value->>1 AS now FROM json_each(?)) AS e WHERE t.id = e.id"
        );
        assert!(
            Dialect::MySql
                .translate(query)
                .starts_with("UPDATE orders AS t JOIN JSON_TABLE(?")
        );
    }
}
