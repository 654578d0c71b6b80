//! `[keys]` and `[operator]`: where secrets are found. The secrets themselves never stand in TOML.

use super::node::{filled, path};
use super::reader::{Found, Table};
use super::source::shown;
use crate::keys::{Key, SECRET_BYTES_MIN};

/// Most keys that are accepted at once.
const KEYS_MAX: usize = 32;

/// Signing keys. Without any, `run` generates one in `data_dir`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Keys {
    /// The id of the key that signs.
    pub active: Option<String>,
    /// All that are accepted.
    pub accepted: Vec<KeyFile>,
}

impl Keys {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let written = table.tables("accepted", |table| (table.start(), KeyFile::read(table)));
        let active = table.get::<String>("active");
        if let Some((at, _)) = written.get(KEYS_MAX) {
            table.error(
                *at,
                format!("too many keys: at most {KEYS_MAX} are accepted at once"),
            );
            return Self::default();
        }
        let ids: Vec<_> = written.iter().map(|(_, (id, _))| id.as_ref()).collect();
        check_twice(table, &ids);
        if let Some(active) = &active {
            check_active(table, active, &ids);
        } else if !ids.is_empty() && table.key_at("active").is_none() {
            let words = "`keys.active` is missing: say which key signs, like `active = \"k1\"`";
            table.absent(&["active"], words);
        }
        Self {
            active: active.map(|found| found.value),
            accepted: written
                .into_iter()
                .filter_map(|(_, (_, key))| key)
                .collect(),
        }
    }
}

fn check_twice(table: &Table<'_>, ids: &[Option<&Found<String>>]) {
    for (n, id) in ids.iter().enumerate() {
        let Some(id) = id else { continue };
        let twin = |earlier: &Option<&Found<String>>| {
            earlier.is_some_and(|earlier| earlier.value == id.value)
        };
        if ids[..n].iter().any(twin) {
            let words = format!("key id `{}` appears twice: give each key its own", id.value);
            table.error(id.at, words);
        }
    }
}

fn check_active(table: &Table<'_>, active: &Found<String>, ids: &[Option<&Found<String>>]) {
    // A key whose id could not be read may be the one that is meant.
    let known = |id: &Option<&Found<String>>| id.is_none_or(|id| id.value == active.value);
    if ids.iter().any(known) {
        return;
    }
    let known: Vec<_> = ids
        .iter()
        .flatten()
        .map(|id| format!("`{}`", id.value))
        .collect();
    let remedy = match known.as_slice() {
        [] => "list it under `[[keys.accepted]]`".to_owned(),
        known => format!(
            "use {}, or list it under `[[keys.accepted]]`",
            known.join(" or ")
        ),
    };
    let id = shown(&active.value);
    table.error(
        active.at,
        format!("the active key `{id}` is not accepted: {remedy}"),
    );
}

/// One key: its secret in base64, in a file or in an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// Its id.
    pub id: String,
    /// The file.
    pub file: Option<String>,
    /// The environment variable.
    pub env: Option<String>,
}

impl KeyFile {
    /// The id, if it is good, and the key, if it has one.
    fn read(table: &mut Table<'_>) -> (Option<Found<String>>, Option<Self>) {
        let file = path(table, "file");
        let env = variable(table, "env");
        match (table.key_at("file"), table.key_at("env")) {
            (None, None) => table.absent(
                &["file", "env"],
                "this key has no source: write `file = \"k1.key\"` or `env = \"FLOODGATE_KEY\"`",
            ),
            (Some(first), Some(second)) => table.error(
                first.max(second),
                "this key has two sources: keep either `file` or `env`",
            ),
            _ => {}
        }
        let id = table.required::<String>("id", "\"k1\"").filter(|id| {
            // The ring itself says which ids it takes; the secret here is none.
            let verdict = Key::new(&id.value, &[0; SECRET_BYTES_MIN]);
            if let Err(error) = &verdict {
                table.error(id.at, error.to_string());
            }
            verdict.is_ok()
        });
        let key = id.as_ref().map(|id| Self {
            id: id.value.clone(),
            file,
            env,
        });
        (id, key)
    }
}

/// Who may publish: the bearer of one token. Without a setting `run` generates one in `data_dir`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Operator {
    /// File with the token.
    pub token_file: Option<String>,
    /// Environment variable with the token.
    pub token_env: Option<String>,
}

impl Operator {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        if let (Some(first), Some(second)) = (table.key_at("token_file"), table.key_at("token_env"))
        {
            table.error(
                first.max(second),
                "the operator's token has two sources: keep either `token_file` or `token_env`",
            );
        }
        Self {
            token_file: path(table, "token_file"),
            token_env: variable(table, "token_env"),
        }
    }
}

/// The name of an environment variable under `key`, if it is written and good.
pub(super) fn variable(table: &mut Table<'_>, key: &'static str) -> Option<String> {
    filled(table, key, "the name of an environment variable")
}
