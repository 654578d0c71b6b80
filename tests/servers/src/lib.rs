//! Real servers for tests and measurements: each has a folder and a port of its own, and ends with its
//! owner, whatever becomes of him.
//!
//! | module | what it starts |
//! |---|---|
//! | `kept` | a process that is killed when its owner is dropped or dies |
//! | [`redis`] | redis-server |
//! | [`mariadb`] | mariadbd |
//! | [`postgres`] | postgres |
//! | [`peer`] | any other server, for a comparison |
//!
//! A server that is missing on the machine is a failure, never a reason to skip: these functions panic,
//! since only tests and measurements call them. `make test` installs what they need.
// These functions are part of tests.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

mod kept;
pub mod mariadb;
pub mod peer;
pub mod postgres;
pub mod redis;

pub use kept::free_port;
pub use mariadb::MariaDb;
pub use peer::Peer;
pub use postgres::Postgres;
pub use redis::Redis;
