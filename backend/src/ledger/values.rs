//! Parameters and rows of any of the databases.

use sqlx::mysql::{MySql, MySqlRow};
use sqlx::postgres::{PgRow, Postgres};
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Database as Driver, Decode, Encode, Row as _, Type};

use crate::error::Result;

/// A parameter.
#[derive(Debug)]
pub(super) enum Value {
    Whole(Option<i64>),
    Text(Option<String>),
    Bytes(Vec<u8>),
    Truth(bool),
}

/// A row.
#[derive(Debug)]
pub(super) enum Row {
    Sqlite(SqliteRow),
    MySql(MySqlRow),
    Postgres(PgRow),
}

/// What a column can be read as.
pub(super) trait Readable<'r>:
    Decode<'r, Sqlite>
    + Type<Sqlite>
    + Decode<'r, MySql>
    + Type<MySql>
    + Decode<'r, Postgres>
    + Type<Postgres>
{
}

impl<'r, T> Readable<'r> for T where
    T: Decode<'r, Sqlite>
        + Type<Sqlite>
        + Decode<'r, MySql>
        + Type<MySql>
        + Decode<'r, Postgres>
        + Type<Postgres>
{
}

impl Row {
    /// The value of a column.
    pub(super) fn get<'r, T: Readable<'r>>(&'r self, column: &str) -> Result<T> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::MySql(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }
}

/// The driver's own query with its parameters.
pub(super) fn with<DB>(
    text: &'static str,
    values: Vec<Value>,
) -> sqlx::query::Query<'static, DB, <DB as Driver>::Arguments>
where
    DB: Driver,
    Option<i64>: for<'v> Encode<'v, DB> + Type<DB>,
    Option<String>: for<'v> Encode<'v, DB> + Type<DB>,
    Vec<u8>: for<'v> Encode<'v, DB> + Type<DB>,
    bool: for<'v> Encode<'v, DB> + Type<DB>,
{
    values
        .into_iter()
        .fold(sqlx::query(text), |query, value| match value {
            Value::Whole(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Bytes(bytes) => query.bind(bytes),
            Value::Truth(truth) => query.bind(truth),
        })
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Whole(Some(number))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Whole(Some(number.into()))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Whole(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_owned())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}
