//! The Redis home: the engine for many machines, on one Redis (or one primary with replicas).
//!
//! | file | holds |
//! |---|---|
//! | `link` | connections: shared ones for what is quick, checked before anything is sent on them |
//! | `scripts` | the scripts, each one step that is atomic inside Redis; their text is in `lua/` |
//! | `batch` | requests that arrive together travel as one call |
//! | `told` | what the scripts answer, read |
//! | `keys` | the names of all keys |
//! | `packed` | an entry of the stream, unpacked |
//! | `readers` | who reads the stream, and taking over from those who are gone |
//! | `promos`, `door`, `stock`, `stream`, `sessions`, `nodes`, `recovery` | the traits |
//! | `measure` | one call a reservation, for measurements |
//!
//! What an answer promises is what Redis promises of its own writes. With `appendonly yes` and
//! `appendfsync always` a step is on the disk before it is answered, so a Redis that is killed loses
//! nothing. With `everysec` up to a second of answered steps may be lost; with replicas and
//! [`Options::replicas`] a step is answered once so many have it in memory, which makes a loss less
//! likely and does not rule it out: `WAIT` does not wait for a disk, and a replica without the last
//! steps can be promoted.
//!
//! Nothing is sent to a Redis that was started anew before it was compared with the ledger: see `link`.

mod batch;
mod door;
mod keys;
mod link;
#[cfg(feature = "measure")]
mod measure;
mod nodes;
mod packed;
mod promos;
mod readers;
mod recovery;
mod scripts;
mod sessions;
mod stock;
mod stream;
mod told;

#[cfg(test)]
mod tests;

#[cfg(feature = "measure")]
pub use measure::OneCall;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use crate::{Entry, Reserve, Reserved, Result};
use batch::Batch;
use link::Link;
use lua_free_rules::token::Access;

/// How the engine reaches its Redis, and how it bounds its work.
#[derive(Clone)]
pub struct Options {
    /// `redis://user@host:port/db`; a password in it would end up in logs, so it has none.
    pub url: String,
    /// The password.
    pub password: Option<String>,
    /// Begins the name of every key, so that several shops may share a Redis.
    pub prefix: String,
    /// The name of this process among the readers of the stream: no two may share one.
    pub node: String,
    /// Entries in a promo's stream from which on no new order of it is taken.
    pub stream_max: u64,
    /// Replicas that must have a step before it is answered.
    pub replicas: u32,
    /// Requests of each kind that may wait.
    pub waiting_max: usize,
    /// How long a request may take, retries included.
    pub patience: Duration,
    /// How long a reader that is alive may keep an entry before another one takes it over: longer than
    /// the longest commit. From one that is gone it is taken after a few seconds.
    pub claim_after: Duration,
}

impl Options {
    /// The defaults for a Redis at `url` and a process called `node`.
    pub fn new(url: impl Into<String>, node: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            password: None,
            prefix: "floodgate".to_owned(),
            node: node.into(),
            stream_max: 200_000,
            replicas: 0,
            waiting_max: 8_192,
            patience: Duration::from_secs(4),
            claim_after: Duration::from_secs(30),
        }
    }
}

/// Why the engine can never work with what it was given.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not an address of a Redis.
    #[error("the address of Redis cannot be used: {0}")]
    Address(String),
    /// Name or password are wrong or missing, or may not do what is needed.
    #[error("Redis refuses us: {0}")]
    Refused(String),
    /// Redis would throw keys away when its memory is full.
    #[error("Redis has maxmemory-policy {0}: it would throw away stock and orders; set noeviction")]
    Eviction(String),
}

/// The engine on a Redis.
pub struct Redis {
    link: Arc<Link>,
    reserving: Batch<Reserve, Result<Reserved>>,
    entering: Batch<Entry, Result<Access>>,
    reader: Arc<stream::Reader>,
    nodes: nodes::Nodes,
    /// The number under which this process rebuilds, if it does.
    rebuild_fence: AtomicI64,
}

impl Redis {
    /// Makes the engine. A Redis that is away now is looked for again at each request.
    ///
    /// # Errors
    /// [`OpenError`]; whether Redis keeps what it is told is only known if it answers now.
    pub async fn open(options: Options) -> std::result::Result<Self, OpenError> {
        let link = Arc::new(Link::new(&options)?);
        link.check_server().await?;
        let stream_max = options.stream_max;
        let reader = Arc::new(stream::Reader::new(Arc::clone(&link), &options));
        let nodes = nodes::Nodes::start(Arc::clone(&link), Arc::clone(&reader));
        let reserving = {
            let link = Arc::clone(&link);
            Batch::start(options.waiting_max, options.patience, move |batch| {
                let link = Arc::clone(&link);
                async move { stock::reserve_all(&link, stream_max, batch).await }
            })
        };
        let entering = {
            let link = Arc::clone(&link);
            Batch::start(options.waiting_max, options.patience, move |batch| {
                let link = Arc::clone(&link);
                async move { door::enter_all(&link, batch).await }
            })
        };
        Ok(Self {
            link,
            reserving,
            entering,
            reader,
            nodes,
            rebuild_fence: AtomicI64::new(0),
        })
    }

    /// Stops listening. What was asked of Redis stands; nothing is kept here that would be lost.
    pub async fn close(&self) {
        self.nodes.stop().await;
    }
}
