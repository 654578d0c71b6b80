//! One connection of whichever database it is: queries on it, and transactions. What differs in words is
//! in `dialect`, what differs in the drivers' types is here and in `values`.

use std::future::Future;
use std::time::Duration;

use sqlx::mysql::MySql;
use sqlx::pool::PoolConnection;
use sqlx::postgres::Postgres;
use sqlx::sqlite::{Sqlite, SqliteConnection};
use sqlx::{Error, SqlStr, Transaction};

use super::dialect::Dialect;
use super::values::{Row, Value, with};
use crate::error::Result;

/// Longest that a server may take to answer one statement. Its own limits are shorter: beyond this it
/// hangs, or the way to it is cut.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// The same for who reads everything.
const PATIENT_ANSWER_MAX: Duration = Duration::from_secs(660);

/// Calls a server on a connection. One that did not answer, or not as it should, is closed instead of
/// going back to the pool: it would keep its place there for as long as the network takes to give up.
macro_rules! called {
    ($connection:ident, $answer_max:expr, $call:expr) => {{
        let answer = answered($answer_max, $call).await;
        if matches!(answer, Err(Error::Io(_) | Error::Protocol(_))) {
            $connection.close_on_drop();
        }
        answer
    }};
}

async fn answered<T>(
    answer_max: Duration,
    call: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    match tokio::time::timeout(answer_max, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// A connection that goes back to its pool when it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    pooled: Pooled,
    answer_max: Duration,
}

/// A connection of a pool.
#[derive(Debug)]
pub(super) enum Pooled {
    Sqlite(PoolConnection<Sqlite>),
    MySql(PoolConnection<MySql>),
    Postgres(PoolConnection<Postgres>),
}

/// A connection lent for one statement, and how long a server may take to answer it.
#[derive(Debug)]
enum Link<'c> {
    Sqlite(&'c mut SqliteConnection),
    MySql(&'c mut PoolConnection<MySql>, Duration),
    Postgres(&'c mut PoolConnection<Postgres>, Duration),
}

/// What a statement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    /// Rows that its condition met, changed or not.
    pub(super) rows: u64,
    /// The id that the last inserted row was given, where the database numbers rows and says so.
    id: i64,
}

/// A query on a connection, and the parameters it was given so far.
#[derive(Debug)]
#[must_use = "a query does nothing by itself"]
pub(super) struct Query<'c> {
    on: On<'c>,
    text: &'static str,
    values: Vec<Value>,
}

/// Where a query runs: on a connection taken for it alone, or in a transaction.
#[derive(Debug)]
enum On<'c> {
    Own(Connection),
    Lent(Link<'c>),
}

impl<'c> Query<'c> {
    /// A query on a connection of its own.
    pub(super) fn alone(connection: Connection, text: &'static str) -> Self {
        Self::new(On::Own(connection), text)
    }

    fn new(mut on: On<'c>, text: &'static str) -> Self {
        let text = on.link().dialect().translate(text);
        let values = Vec::new();
        Self { on, text, values }
    }

    /// The next parameter.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// The parameters that `query` names, in the order in which it does.
    pub(super) fn bind_named<V: Into<Value>>(
        self,
        query: &str,
        value_of: impl Fn(&str) -> V,
    ) -> Self {
        let named = query.split("{:").skip(1);
        named
            .filter_map(|rest| rest.split_once('}'))
            .fold(self, |bound, (name, _)| bound.bind(value_of(name)))
    }

    /// Runs it for what it does.
    pub(super) async fn execute(mut self) -> Result<Done> {
        Ok(self.on.link().execute(self.text, self.values).await?)
    }

    /// Every row.
    pub(super) async fn fetch_all(mut self) -> Result<Vec<Row>> {
        Ok(self.on.link().fetch_all(self.text, self.values).await?)
    }

    /// The first row, if there is one. The query itself sees to it that there are not many.
    pub(super) async fn fetch_optional(self) -> Result<Option<Row>> {
        Ok(self.fetch_all().await?.into_iter().next())
    }

    /// The first row.
    pub(super) async fn fetch_one(self) -> Result<Row> {
        Ok(self.fetch_optional().await?.ok_or(Error::RowNotFound)?)
    }

    /// Inserts one row; returns the id that the database gave it. The query ends in `{returning_id}`.
    pub(super) async fn insert(mut self) -> Result<i64> {
        match self.on.link().dialect() {
            Dialect::Postgres => self.fetch_one().await?.get("id"),
            Dialect::Sqlite | Dialect::MySql => Ok(self.execute().await?.id),
        }
    }
}

impl On<'_> {
    fn link(&mut self) -> Link<'_> {
        match self {
            Self::Own(connection) => connection.link(),
            Self::Lent(Link::Sqlite(it)) => Link::Sqlite(it),
            Self::Lent(Link::MySql(it, max)) => Link::MySql(it, *max),
            Self::Lent(Link::Postgres(it, max)) => Link::Postgres(it, *max),
        }
    }
}

/// A transaction. One that is dropped before its commit is rolled back.
#[derive(Debug)]
pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Server(ServerTx),
}

/// A transaction on a server. It keeps its connection by itself, not by the driver's means: so a
/// connection that does not answer any more can be closed, and one whose caller went away while the
/// transaction began does not stay in it.
#[derive(Debug)]
pub(super) struct ServerTx(Option<Connection>);

impl Tx {
    /// Begins one with a statement of the connection's own dialect.
    pub(super) async fn begin(connection: Connection, statement: &'static str) -> Result<Self> {
        let connection = match connection.pooled {
            Pooled::Sqlite(pooled) => {
                let statement = Some(SqlStr::from_static(statement));
                return Ok(Self::Sqlite(Transaction::begin(pooled, statement).await?));
            }
            pooled => Connection {
                pooled,
                answer_max: connection.answer_max,
            },
        };
        let mut tx = ServerTx(Some(connection));
        if let Some(connection) = &mut tx.0 {
            connection.say(statement).await?;
        }
        Ok(Self::Server(tx))
    }

    pub(super) fn query(&mut self, text: &'static str) -> Query<'_> {
        let link = match self {
            Self::Sqlite(tx) => Link::Sqlite(tx),
            Self::Server(ServerTx(Some(connection))) => connection.link(),
            Self::Server(ServerTx(None)) => unreachable!("a transaction that ended is gone"),
        };
        Query::new(On::Lent(link), text)
    }

    pub(super) async fn commit(self) -> Result<()> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Server(mut tx) => {
                if let Some(connection) = &mut tx.0 {
                    connection.say("COMMIT").await?;
                }
                tx.0 = None;
            }
        }
        Ok(())
    }
}

impl Drop for ServerTx {
    fn drop(&mut self) {
        if let Some(mut connection) = self.0.take() {
            // If it fails, the connection is closed, which ends the transaction too.
            tokio::spawn(async move { connection.say("ROLLBACK").await });
        }
    }
}

impl Connection {
    pub(super) const fn new(pooled: Pooled) -> Self {
        let answer_max = ANSWER_MAX;
        Self { pooled, answer_max }
    }

    /// Waits for answers for long. One to a server is closed when it is dropped: what the server is told
    /// about its own limits holds for nobody else.
    pub(super) fn patient(mut self) -> Self {
        self.answer_max = PATIENT_ANSWER_MAX;
        match &mut self.pooled {
            Pooled::Sqlite(_) => {}
            Pooled::MySql(it) => it.close_on_drop(),
            Pooled::Postgres(it) => it.close_on_drop(),
        }
        self
    }

    fn link(&mut self) -> Link<'_> {
        match &mut self.pooled {
            Pooled::Sqlite(it) => Link::Sqlite(it),
            Pooled::MySql(it) => Link::MySql(it, self.answer_max),
            Pooled::Postgres(it) => Link::Postgres(it, self.answer_max),
        }
    }

    /// Runs statements that take no parameters, of the connection's own dialect.
    pub(super) async fn say(&mut self, text: &'static str) -> sqlx::Result<()> {
        match self.link() {
            Link::Sqlite(it) => sqlx::raw_sql(text).execute(it).await.map(drop),
            Link::MySql(it, max) => {
                called!(it, max, sqlx::raw_sql(text).execute(&mut **it)).map(drop)
            }
            Link::Postgres(it, max) => {
                called!(it, max, sqlx::raw_sql(text).execute(&mut **it)).map(drop)
            }
        }
    }
}

impl Link<'_> {
    const fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::MySql(..) => Dialect::MySql,
            Self::Postgres(..) => Dialect::Postgres,
        }
    }

    async fn execute(self, text: &'static str, values: Vec<Value>) -> sqlx::Result<Done> {
        match self {
            Self::Sqlite(it) => {
                let done = with::<Sqlite>(text, values).execute(it).await?;
                let (rows, id) = (done.rows_affected(), done.last_insert_rowid());
                Ok(Done { rows, id })
            }
            Self::MySql(it, max) => {
                let done = called!(it, max, with::<MySql>(text, values).execute(&mut **it))?;
                let (rows, id) = (done.rows_affected(), done.last_insert_id());
                let id = i64::try_from(id).unwrap_or(i64::MAX);
                Ok(Done { rows, id })
            }
            Self::Postgres(it, max) => {
                let done = called!(it, max, with::<Postgres>(text, values).execute(&mut **it))?;
                let (rows, id) = (done.rows_affected(), 0);
                Ok(Done { rows, id })
            }
        }
    }

    async fn fetch_all(self, text: &'static str, values: Vec<Value>) -> sqlx::Result<Vec<Row>> {
        Ok(match self {
            Self::Sqlite(it) => {
                let rows = with::<Sqlite>(text, values).fetch_all(it).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Self::MySql(it, max) => {
                let rows = called!(it, max, with::<MySql>(text, values).fetch_all(&mut **it))?;
                rows.into_iter().map(Row::MySql).collect()
            }
            Self::Postgres(it, max) => {
                let rows = called!(it, max, with::<Postgres>(text, values).fetch_all(&mut **it))?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }
}
