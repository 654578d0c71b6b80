//! Opens the engine that the configuration names, and the ledger beside it.

use std::sync::Arc;
use std::time::Duration;

use backend::metrics::Metrics;
use backend::recovery::Recovery;
use backend::writer::OrderWriter;
use backend::{BackendError, Ledger};
use engine::embedded::{self, Embedded};
use engine::redis::{self, Redis};
use engine::{SharedEngine, SystemClock};
use lua_free_rules::config::{EngineKind, RedisAddress};

use crate::load::Loaded;
use crate::{Failure, Outcome, secrets};

/// How long a request may take in the engine: less than an edge waits for an order server, so that the
/// order server is the one who answers.
const PATIENCE: Duration = Duration::from_secs(4);

/// Pause before it is looked again whether an engine was rebuilt.
const RECOVERY_PAUSE: Duration = Duration::from_millis(100);

/// An engine that is open.
pub enum Home {
    /// The files of this process.
    Embedded(Arc<Embedded>),
    /// A Redis.
    Redis(Arc<Redis>),
}

impl Home {
    /// Opens the engine for a process of that name.
    ///
    /// # Errors
    /// If it can never work so, or another process has its files.
    pub async fn open(loaded: &Loaded, name: &str) -> Outcome<Self> {
        match Self::open_unless_held(loaded, name).await? {
            Some(home) => Ok(home),
            None => {
                let held = embedded::OpenError::Locked(loaded.engine());
                Err(Failure::Config(vec![held.to_string()]))
            }
        }
    }

    /// The same; none if another process has its files.
    pub async fn open_unless_held(loaded: &Loaded, name: &str) -> Outcome<Option<Self>> {
        match &loaded.config.node.engine.kind {
            EngineKind::Embedded => open_files(loaded),
            EngineKind::Redis(address) => open_redis(loaded, address, name).await.map(Some),
        }
    }

    /// What every part of the process works with.
    pub fn shared(&self) -> SharedEngine {
        match self {
            Self::Embedded(engine) => engine.clone(),
            Self::Redis(engine) => engine.clone(),
        }
    }

    /// Lets go of it.
    pub async fn close(&self) {
        match self {
            Self::Embedded(engine) => engine.close().await,
            Self::Redis(engine) => engine.close().await,
        }
    }
}

fn open_files(loaded: &Loaded) -> Outcome<Option<Home>> {
    let options = embedded::Options {
        stream_max: loaded.config.node.orders.stream_max,
        // Once for its turn, and once more for its answer.
        patience: PATIENCE / 2,
        ..embedded::Options::default()
    };
    match Embedded::open(&loaded.engine(), Arc::new(SystemClock), options) {
        Ok(engine) => Ok(Some(Home::Embedded(Arc::new(engine)))),
        Err(embedded::OpenError::Locked(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn open_redis(loaded: &Loaded, address: &RedisAddress, name: &str) -> Outcome<Home> {
    let node = &loaded.config.node;
    let options = redis::Options {
        password: secrets::engine_password(loaded)?,
        prefix: node.engine.prefix.clone(),
        stream_max: node.orders.stream_max,
        replicas: node.engine.replicas,
        patience: PATIENCE,
        ..redis::Options::new(address.to_string(), name)
    };
    match Redis::open(options).await {
        Ok(engine) => Ok(Home::Redis(Arc::new(engine))),
        Err(error) => Err(Failure::Config(vec![error.to_string()])),
    }
}

/// Engine and ledger, open for a command that goes to them itself.
pub struct Stores {
    pub engine: SharedEngine,
    pub ledger: Ledger,
    home: Home,
    is_alone: bool,
    batch_max: usize,
}

impl Stores {
    /// Opens both for a command; none if another process has the files: then it can be asked.
    ///
    /// # Errors
    /// If one of them cannot be opened.
    pub async fn open_unless_held(loaded: &Loaded, command: &str) -> Outcome<Option<Self>> {
        let name = loaded.command_name(command);
        let Some(home) = Home::open_unless_held(loaded, &name).await? else {
            return Ok(None);
        };
        Ok(Some(Self {
            engine: home.shared(),
            ledger: Ledger::open(&secrets::ledger(loaded)?).await?,
            is_alone: matches!(home, Home::Embedded(_)),
            batch_max: loaded.config.node.writer.batch_max,
            home,
        }))
    }

    /// Writes what waits in the stream, as the next start would do, if nobody else can be at it. True if
    /// that was done in time, or is for writers elsewhere to do.
    ///
    /// # Errors
    /// If the stream cannot be read.
    pub async fn catch_up(&self, within: Duration) -> Result<bool, BackendError> {
        let (stream, ledger) = (self.engine.clone(), self.ledger.clone());
        let writer = OrderWriter::new(stream, ledger, Metrics::new()?, self.batch_max);
        let (engine, ledger) = (self.engine.clone(), self.ledger.clone());
        let recovery = Recovery::new(engine, ledger, writer.clone(), Metrics::new()?)?;
        let caught_up = async {
            // A Redis that was started anew, or is quite new: a writer may be at it already.
            while self.engine.is_lost().await? && !recovery.recover().await? {
                tokio::time::sleep(RECOVERY_PAUSE).await;
            }
            if self.is_alone {
                writer.drain().await?;
            }
            Ok(())
        };
        match tokio::time::timeout(within, caught_up).await {
            Ok(caught_up) => caught_up.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Lets go of both.
    pub async fn close(self) {
        self.ledger.close().await;
        self.home.close().await;
    }
}
