//! The file `engine.db`: how it is opened, what is in it, and how an older one is brought up to date.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::OpenError;

/// "FLDG": tells our files from other SQLite files.
const APPLICATION_ID: i32 = 0x464c_4447;

/// Pages of the write-ahead log after which a commit also moves them into the file.
const CHECKPOINT_PAGES: i32 = 4_000;
/// To this size the write-ahead log is cut back after it has grown.
const WAL_BYTES_MAX: i32 = 64 << 20;
/// Page cache of the writing connection, in KiB (negative: that is how SQLite tells it from pages).
const CACHE_KIB: i32 = -65_536;
/// All statements of the engine fit, with room to spare.
const STATEMENTS_MAX: usize = 96;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// One entry for each version; `user_version` says how many were applied.
const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2];

const VERSION_1: &str = "
-- A publishing of a promo: its terms and its counts. Earlier generations stay.
CREATE TABLE promos (
    promo         INTEGER NOT NULL,
    generation    INTEGER NOT NULL,
    is_current    INTEGER NOT NULL,
    digest        TEXT    NOT NULL,
    item          INTEGER NOT NULL,
    starts_at     INTEGER NOT NULL,
    ends_at       INTEGER NOT NULL,
    price         INTEGER NOT NULL,
    stock         INTEGER NOT NULL,
    door          INTEGER NOT NULL,
    per_buyer     INTEGER NOT NULL,
    pay_within    INTEGER NOT NULL,
    token_ttl     INTEGER NOT NULL,
    challenges    TEXT    NOT NULL,
    status        TEXT    NOT NULL,
    -- Code decides; these checks stand behind it.
    available     INTEGER NOT NULL CHECK (available BETWEEN 0 AND stock),
    sequence      INTEGER NOT NULL,
    sold_out      INTEGER NOT NULL,
    sold_epoch    INTEGER NOT NULL,
    reopened_at   INTEGER,
    places_issued INTEGER NOT NULL CHECK (places_issued >= 0),
    places_used   INTEGER NOT NULL CHECK (places_used >= 0),
    last_number   INTEGER NOT NULL,
    forget_at     INTEGER NOT NULL,
    forgotten_to  INTEGER NOT NULL,
    PRIMARY KEY (promo, generation)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX promos_current ON promos (promo) WHERE is_current = 1;

-- What a buyer has in a generation: units, and a place behind the door. No row: neither.
-- place: 0 none, 1 issued, 2 used; jti and what follows: the token that can still be used.
CREATE TABLE holdings (
    promo      INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    buyer      INTEGER NOT NULL,
    held       INTEGER NOT NULL CHECK (held >= 0),
    place      INTEGER NOT NULL CHECK (place BETWEEN 0 AND 2),
    jti        BLOB,
    issued_at  INTEGER,
    expires_at INTEGER,
    amount_max INTEGER,
    PRIMARY KEY (promo, generation, buyer)
) STRICT, WITHOUT ROWID;
CREATE INDEX holdings_expiring ON holdings (promo, generation, expires_at) WHERE place = 1;

-- Reservations. The first one of an order carries key, body and token id until they are forgotten;
-- one that a late payment asked for carries the payment.
CREATE TABLE reservations (
    promo        INTEGER NOT NULL,
    generation   INTEGER NOT NULL,
    number       INTEGER NOT NULL,
    order_number INTEGER NOT NULL,
    buyer        INTEGER NOT NULL,
    item         INTEGER NOT NULL,
    amount       INTEGER NOT NULL CHECK (amount > 0),
    price        INTEGER NOT NULL,
    made_at      INTEGER NOT NULL,
    pay_within   INTEGER NOT NULL,
    sequence     INTEGER NOT NULL,
    is_released  INTEGER NOT NULL,
    key          TEXT,
    body         TEXT,
    jti          BLOB,
    payment      TEXT,
    PRIMARY KEY (promo, generation, number)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX reservations_by_key ON reservations (promo, buyer, key)
    WHERE key IS NOT NULL;
CREATE UNIQUE INDEX reservations_by_token ON reservations (promo, buyer, jti)
    WHERE jti IS NOT NULL;
CREATE UNIQUE INDEX reservations_again ON reservations (promo, generation, order_number, payment)
    WHERE payment IS NOT NULL;

-- AUTOINCREMENT: an id never comes twice, also after its entry was taken off.
CREATE TABLE stream (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    made_at INTEGER NOT NULL,
    payload TEXT    NOT NULL
) STRICT;
CREATE TABLE dead_letters (
    id      INTEGER PRIMARY KEY,
    made_at INTEGER NOT NULL,
    payload TEXT    NOT NULL,
    reason  TEXT    NOT NULL
) STRICT;

CREATE TABLE sessions (
    id         BLOB    NOT NULL PRIMARY KEY,
    buyer      INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_expiring ON sessions (expires_at);

-- Challenges that were spent.
CREATE TABLE challenges (
    id         BLOB    NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX challenges_expiring ON challenges (expires_at);
";

const VERSION_2: &str = "
-- The number that the last holder of a lease got.
CREATE TABLE fences (
    name  TEXT    NOT NULL PRIMARY KEY,
    fence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Takes the lock that says "this process has the engine". It lasts as long as the file is open,
/// so a process that is killed leaves none behind.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let beside = beside(path, ".lock");
    let file = private(&beside).map_err(|source| OpenError::Io {
        path: beside.clone(),
        source,
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Io {
            path: beside,
            source,
        }),
    }
}

/// The connection that writes. Call it with the lock held.
pub(super) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    // SQLite gives its -wal and -shm files the rights of the database.
    private(path)
        .and_then(|_| sync_directory(path))
        .map_err(|source| OpenError::Io {
            path: path.to_owned(),
            source,
        })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags)?;
    check_ours(path, &db)?;
    prepare(&mut db)?;
    let mode: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenError::NoWal(path.to_owned()));
    }
    Ok(db)
}

/// A connection that only reads. Call it after [`open_writer`].
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(db)
}

/// Sets a connection up for writing and brings its tables up to date.
pub(super) fn prepare(db: &mut Connection) -> Result<(), rusqlite::Error> {
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    db.pragma_update(None, "journal_mode", "WAL")?;
    // With FULL each commit waits until the log is on the disk: what was answered stays.
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "fullfsync", true)?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
    db.pragma_update(None, "cache_size", CACHE_KIB)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    for (version, migration) in (1_i64..).zip(MIGRATIONS) {
        if version <= user_version(db)? {
            continue;
        }
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(migration)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", version)?;
        tx.commit()?;
    }
    Ok(())
}

fn check_ours(path: &Path, db: &Connection) -> Result<(), OpenError> {
    let id: i32 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let is_empty: bool = db.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| {
        row.get(0)
    })?;
    if !is_empty && id != APPLICATION_ID {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    if user_version(db)? > MIGRATIONS.len() as i64 {
        return Err(OpenError::Newer(path.to_owned()));
    }
    Ok(())
}

fn user_version(db: &Connection) -> Result<i64, rusqlite::Error> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Opens or makes a file that only its owner can read: it holds sessions and buyers.
fn private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(file)
}

/// Makes the name of a new file as durable as what will be in it.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
