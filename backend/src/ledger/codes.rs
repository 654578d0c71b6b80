//! What the databases' error codes mean: each family has its own.
//!
//! | kind | meaning |
//! |---|---|
//! | poison | what was to be written can never be written |
//! | outage | the database is away, or has no room: the same call may succeed later |
//! | overtaken | another transaction was in the way; this one did nothing and may be tried again at once |
//! | duplicate | a unique key is taken |
//!
//! What is in none of the lists is nobody's guess: it is waited for, and told as our fault.

use sqlx::Error;
use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::PgDatabaseError;

/// SQLite's primary result codes that speak of what was to be written: too big, constraint, mismatch,
/// out of range.
const SQLITE_POISON: [u32; 4] = [18, 19, 20, 25];
/// Those that speak of the file, the disk or a lock, not of the statement: busy, locked, no memory,
/// read-only, I/O error, corrupt, full, cannot open, protocol, not a database.
const SQLITE_OUTAGE: [u32; 10] = [5, 6, 7, 8, 10, 11, 13, 14, 15, 26];

/// MariaDB's and MySQL's numbers that speak of what was to be written: NULL, duplicate, foreign keys,
/// cut or misfit values, too long, out of range, refused by a trigger, CHECK (MySQL, MariaDB).
const MYSQL_POISON: [u16; 17] = [
    1048, 1062, 1216, 1217, 1264, 1265, 1292, 1364, 1366, 1406, 1451, 1452, 1557, 1644, 1690, 3819,
    4025,
];
/// Those that speak of the server, its disk, its memory or a lock: disk full, no memory, too many
/// connections, storage engine, access denied, no such database, shutting down, table full, network,
/// locks, read-only, interrupted, out of time, killed.
const MYSQL_OUTAGE: [u16; 34] = [
    1021, 1030, 1037, 1038, 1040, 1041, 1042, 1043, 1044, 1045, 1049, 1053, 1077, 1079, 1080, 1114,
    1129, 1158, 1159, 1160, 1161, 1184, 1203, 1205, 1206, 1213, 1226, 1290, 1317, 1792, 1836, 1927,
    1969, 3024,
];
/// Lock wait timeout, deadlock.
const MYSQL_OVERTAKEN: [u16; 2] = [1205, 1213];

/// PostgreSQL's classes that speak of what was to be written: data, integrity.
const POSTGRES_POISON: [&str; 2] = ["22", "23"];
/// Those that speak of the server: connection, authorization, no such database, rollback, resources,
/// intervention (shutting down, cancelled), system; and single codes: read-only, cut off while it stood
/// still in a transaction, lock not available.
const POSTGRES_OUTAGE: [&str; 10] = [
    "08", "28", "3D", "40", "53", "57", "58", "25006", "25P03", "55P03",
];
/// Serialization failure, deadlock.
const POSTGRES_OVERTAKEN: [&str; 2] = ["40001", "40P01"];

/// A database's error by its family.
enum Coded<'e> {
    /// The primary result code.
    Sqlite(u32),
    MySql(u16),
    /// SQLSTATE.
    Postgres(&'e str),
}

impl<'e> Coded<'e> {
    fn of(error: &'e Error) -> Option<Self> {
        let error: &dyn DatabaseError = error.as_database_error()?;
        if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
            return Some(Self::MySql(error.number()));
        }
        if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
            return Some(Self::Postgres(error.code()));
        }
        Some(Self::Sqlite(error.code()?.parse::<u32>().ok()? & 0xff))
    }
}

fn is_of(code: &str, kinds: &[&str]) -> bool {
    kinds.iter().any(|kind| code.starts_with(kind))
}

/// Whether what was to be written can never be written, however often it is tried.
pub(crate) fn is_poison(error: &Error) -> bool {
    Coded::of(error).is_some_and(|code| match code {
        Coded::Sqlite(code) => SQLITE_POISON.contains(&code),
        Coded::MySql(number) => MYSQL_POISON.contains(&number),
        Coded::Postgres(code) => is_of(code, &POSTGRES_POISON),
    })
}

/// Whether the database is away, or has no room: the same call may succeed later, and nothing is wrong
/// with what was asked.
pub(crate) fn is_outage(error: &Error) -> bool {
    match error {
        Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed
        | Error::BeginFailed => true,
        _ => Coded::of(error).is_some_and(|code| match code {
            Coded::Sqlite(code) => SQLITE_OUTAGE.contains(&code),
            Coded::MySql(number) => MYSQL_OUTAGE.contains(&number),
            Coded::Postgres(code) => is_of(code, &POSTGRES_OUTAGE),
        }),
    }
}

/// Whether another transaction was in the way: this one was rolled back whole.
pub(super) fn is_overtaken(error: &Error) -> bool {
    Coded::of(error).is_some_and(|code| match code {
        // Its transactions come one after the other.
        Coded::Sqlite(_) => false,
        Coded::MySql(number) => MYSQL_OVERTAKEN.contains(&number),
        Coded::Postgres(code) => is_of(code, &POSTGRES_OVERTAKEN),
    })
}

/// Whether a unique key is taken.
pub(super) fn is_duplicate(error: &Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.kind() == ErrorKind::UniqueViolation)
}
