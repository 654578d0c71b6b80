//! The pools of the ledger's database: how it is opened, what every connection is told, how transactions
//! begin, and what is warned of when the database does not keep what it commits.
//!
//! MariaDB from 10.6, MySQL from 8.0 (by its manual: tests run on MariaDB), PostgreSQL from 12.
//!
//! Transactions are READ COMMITTED: what a step decides by, it locks (`{lock}`), and what two processes
//! insert at once meets a unique key. The audit alone reads one state of everything.

use std::fs::Permissions;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use lua_free_rules::config::{self, DatabaseKind, DatabaseServer, TlsMode};
use sqlx::migrate::Migrator;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions, MySqlSslMode};
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Executor as _, SqliteConnection};

use super::LedgerSettings;
use super::connection::{Connection, Pooled, Query, Tx};
use crate::error::Result;

/// How long a caller waits for a connection, or for rows that another one has locked, before he is told
/// that the database is away.
const WAIT_MAX: Duration = Duration::from_secs(4);
/// Connections that read SQLite.
const READERS_MAX: u32 = 4;
/// Connections of one process to a database server.
const CONNECTIONS_MAX: u32 = 8;

/// What every connection to MariaDB or MySQL is told: isolation; data that does not fit is an error, not
/// cut; nobody waits for a lock, or runs, for long; who stands still in a transaction is cut off after
/// 15 s, for he keeps others from its rows. (MySQL takes the last two as comments: there such rows stay
/// locked until the connection breaks.)
const MYSQL_SESSION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
    SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), innodb_lock_wait_timeout = 4 \
    /*M!100100 , max_statement_time = 15 */ /*M!100300 , idle_transaction_timeout = 15 */";

/// The same for PostgreSQL. Plans are made for each call: one made while a table was small would read all
/// of it for as long as it is kept.
const POSTGRES_SESSION: &str = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED; \
    SET lock_timeout = '4s'; SET statement_timeout = '15s'; \
    SET idle_in_transaction_session_timeout = '15s'; SET plan_cache_mode = force_custom_plan";

static FOR_SQLITE: Migrator = sqlx::migrate!("src/ledger/migrations/sqlite");
static FOR_MYSQL: Migrator = sqlx::migrate!("src/ledger/migrations/mysql");
static FOR_POSTGRES: Migrator = sqlx::migrate!("src/ledger/migrations/postgres");

/// The pools. SQLite takes one writer at a time, so it has one connection that writes and several that
/// read.
#[derive(Debug, Clone)]
pub(super) enum Database {
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
    MySql(MySqlPool),
    Postgres(PgPool),
}

impl Database {
    /// Opens the database, creates SQLite's file if it is missing, and brings the schema up to date.
    pub(super) async fn open(settings: &LedgerSettings) -> Result<Self> {
        let database = match &settings.database {
            config::Database::Sqlite(path) => {
                let path = settings.data_dir.join(path);
                // SQLite gives its other files the rights of the database.
                private(&path).map_err(sqlx::Error::Io)?;
                let options = sqlite(&path);
                let writer = sqlite_pool(1).connect_with(options.clone()).await?;
                FOR_SQLITE.run(&writer).await?;
                let readers = sqlite_pool(READERS_MAX)
                    .connect_with(options.read_only(true))
                    .await?;
                Self::Sqlite { writer, readers }
            }
            config::Database::Server(server) => {
                let database = Self::connect(server, settings, CONNECTIONS_MAX).await?;
                match &database {
                    Self::MySql(pool) => FOR_MYSQL.run(pool).await?,
                    Self::Postgres(pool) => FOR_POSTGRES.run(pool).await?,
                    Self::Sqlite { .. } => {}
                }
                if let Some(weak) = database.weak_durability().await? {
                    tracing::warn!("the database may lose accepted orders in a crash: {weak}");
                }
                database
            }
        };
        Ok(database)
    }

    /// Opens what is there to look at it: nothing is created or changed.
    pub(super) async fn look(settings: &LedgerSettings) -> Result<Self> {
        Ok(match &settings.database {
            config::Database::Sqlite(path) => {
                let options = sqlite(&settings.data_dir.join(path))
                    .create_if_missing(false)
                    .read_only(true);
                let readers = sqlite_pool(1).connect_with(options).await?;
                let writer = readers.clone();
                Self::Sqlite { writer, readers }
            }
            config::Database::Server(server) => Self::connect(server, settings, 1).await?,
        })
    }

    async fn connect(
        server: &DatabaseServer,
        settings: &LedgerSettings,
        connections: u32,
    ) -> Result<Self> {
        Ok(match server.kind {
            DatabaseKind::MySql => {
                let pool: MySqlPoolOptions = pool(connections);
                let pool = pool.after_connect(|connection, _| {
                    Box::pin(async move { connection.execute(MYSQL_SESSION).await.map(drop) })
                });
                Self::MySql(pool.connect_with(mysql(server, settings)?).await?)
            }
            DatabaseKind::Postgres => {
                let pool: PgPoolOptions = pool(connections);
                let pool = pool.after_connect(|connection, _| {
                    Box::pin(async move { connection.execute(POSTGRES_SESSION).await.map(drop) })
                });
                Self::Postgres(pool.connect_with(postgres(server, settings)?).await?)
            }
        })
    }

    /// The schema in a database that the caller opened: simulations keep it in memory.
    #[cfg(test)]
    pub(super) async fn on(pool: SqlitePool) -> Result<Self> {
        FOR_SQLITE.run(&pool).await?;
        let (writer, readers) = (pool.clone(), pool);
        Ok(Self::Sqlite { writer, readers })
    }

    /// Closes every connection; what is under way is finished first.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Self::MySql(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }

    /// A query that reads.
    pub(super) async fn read(&self, text: &'static str) -> Result<Query<'static>> {
        Ok(Query::alone(self.connection(Access::Read).await?, text))
    }

    /// A statement that is a transaction by itself.
    pub(super) async fn write(&self, text: &'static str) -> Result<Query<'static>> {
        Ok(Query::alone(self.connection(Access::Write).await?, text))
    }

    /// A transaction that writes.
    pub(super) async fn begin(&self) -> Result<Tx> {
        let statement = match self {
            // It takes the write lock at once, so that what it reads cannot change before it writes.
            Self::Sqlite { .. } => "BEGIN IMMEDIATE",
            Self::MySql(_) => "START TRANSACTION",
            Self::Postgres(_) => "BEGIN",
        };
        Tx::begin(self.connection(Access::Write).await?, statement).await
    }

    /// A transaction that reads one state of everything, and may take its time.
    pub(super) async fn snapshot(&self) -> Result<Tx> {
        let mut connection = self.connection(Access::Read).await?.patient();
        let statement = match self {
            Self::Sqlite { .. } => "BEGIN",
            Self::MySql(_) => {
                // The isolation holds for the next transaction alone.
                let limits = "SET SESSION innodb_lock_wait_timeout = 4 \
                              /*M!100100 , max_statement_time = 600 */ \
                              /*M!100300 , idle_transaction_timeout = 600 */; \
                              SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
                connection.say(limits).await?;
                "START TRANSACTION READ ONLY"
            }
            Self::Postgres(_) => {
                let limits = "SET statement_timeout = '600s'; \
                              SET idle_in_transaction_session_timeout = '600s'";
                connection.say(limits).await?;
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
            }
        };
        Tx::begin(connection, statement).await
    }

    async fn connection(&self, access: Access) -> Result<Connection> {
        let pooled = match (self, access) {
            (Self::Sqlite { writer, .. }, Access::Write) => Pooled::Sqlite(writer.acquire().await?),
            (Self::Sqlite { readers, .. }, Access::Read) => {
                Pooled::Sqlite(readers.acquire().await?)
            }
            (Self::MySql(pool), _) => Pooled::MySql(pool.acquire().await?),
            (Self::Postgres(pool), _) => Pooled::Postgres(pool.acquire().await?),
        };
        Ok(Connection::new(pooled))
    }

    /// What an acknowledged order is worth is the server's own setting. Says which one keeps less than a
    /// crash or a power cut would ask for.
    pub(super) async fn weak_durability(&self) -> Result<Option<String>> {
        let settings = match self {
            Self::Sqlite { .. } => return Ok(None),
            Self::MySql(_) => {
                "SELECT CAST(@@innodb_flush_log_at_trx_commit AS CHAR) AS setting, '1' AS safe, \
                 'innodb_flush_log_at_trx_commit' AS name"
            }
            Self::Postgres(_) => {
                "SELECT CASE setting WHEN 'off' THEN 'off' ELSE 'on' END AS setting, 'on' AS safe, name \
                 FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit') ORDER BY name"
            }
        };
        let rows = self.read(settings).await?.fetch_all().await?;
        for row in rows {
            let (setting, safe): (String, String) = (row.get("setting")?, row.get("safe")?);
            if setting != safe {
                let name: String = row.get("name")?;
                return Ok(Some(format!("{name} is {setting}, not {safe}")));
            }
        }
        Ok(None)
    }
}

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// Makes the file if there is none; only its owner may read it.
fn private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

fn sqlite(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What was committed outlives a power cut: the writer acknowledges on the strength of it.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(WAIT_MAX)
}

fn mysql(server: &DatabaseServer, settings: &LedgerSettings) -> Result<MySqlConnectOptions> {
    let options = MySqlConnectOptions::new()
        .host(&server.host)
        .port(server.port.unwrap_or(3_306))
        .username(&server.user)
        .database(&server.name)
        .ssl_mode(match server.tls {
            TlsMode::Disable => MySqlSslMode::Disabled,
            TlsMode::Prefer => MySqlSslMode::Preferred,
            TlsMode::Require => MySqlSslMode::Required,
            TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
            TlsMode::VerifyFull => MySqlSslMode::VerifyIdentity,
        });
    Ok(match settings.password()? {
        Some(password) => options.password(password),
        None => options,
    })
}

fn postgres(server: &DatabaseServer, settings: &LedgerSettings) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::new_without_pgpass()
        .host(&server.host)
        .port(server.port.unwrap_or(5_432))
        .username(&server.user)
        .database(&server.name)
        .application_name("floodgate")
        .ssl_mode(match server.tls {
            TlsMode::Disable => PgSslMode::Disable,
            TlsMode::Prefer => PgSslMode::Prefer,
            TlsMode::Require => PgSslMode::Require,
            TlsMode::VerifyCa => PgSslMode::VerifyCa,
            TlsMode::VerifyFull => PgSslMode::VerifyFull,
        });
    // Without one, what the environment says of PostgreSQL's own programs does not count either.
    Ok(options.password(settings.password()?.unwrap_or_default()))
}

fn pool<DB: sqlx::Database>(connections: u32) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(WAIT_MAX)
}

fn sqlite_pool(connections: u32) -> SqlitePoolOptions {
    pool(connections).before_acquire(|connection, _| {
        let is_usable = is_usable(connection);
        Box::pin(async move { Ok(is_usable) })
    })
}

/// Whether a connection that comes back to its pool can be used again. When the disk is full or fails,
/// SQLite rolls the transaction back by itself, and the driver counts it as open from then on: every later
/// one would be refused. Such a connection is closed, and another one is opened.
pub(crate) fn is_usable(connection: &SqliteConnection) -> bool {
    !connection.is_in_transaction()
}
