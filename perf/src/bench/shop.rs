//! A Floodgate of several processes, on a Redis whose append-only file is on the disk before it answers: an edge,
//! an order server, and the engine as they have it, to let buyers in before anything is measured.

use std::sync::Arc;

use engine::redis::{Options, Redis as Engine};
use engine::{Reserve, SharedEngine};
use floodgate_servers::redis::Fsync;
use floodgate_servers::{Peer, Postgres, Redis};
use tokio::runtime::Runtime;

use super::Failure;
use super::credentials::{Credentials, Secret};
use super::peers::{self, Setting};
use super::work::Work;
use crate::engines::buyers;

const CONFIG: &str = include_str!("../../config/roles/floodgate.toml");
/// Redis never rewrites its file in the middle of a measurement.
const REDIS: [&str; 2] = ["--auto-aof-rewrite-percentage", "0"];

/// What all processes of a Floodgate share.
pub struct Common<'s> {
    /// How they are started.
    pub setting: &'s Setting,
    /// Their key.
    pub secret: &'s Secret,
    /// The port of their Redis.
    pub redis: u16,
}

impl Common<'_> {
    /// The edge as a process of its own, before the order server at that port.
    pub fn edge(&self, upstream: u16, ready: &Work) -> Peer {
        let config = self.config("edge", "mysql://shop@127.0.0.1/shop", upstream);
        let config = config.replace("@EDGE@", "@PORT@").replace("@ORDERS@", "0");
        self.start("proxy", &config, "", ready)
    }

    /// An order server as a process of its own.
    fn order_server(&self, database: &str, password: &str) -> Peer {
        let config = self.config("orders", database, 1);
        let config = config.replace("@EDGE@", "0").replace("@ORDERS@", "@PORT@");
        self.start("backend", &config, password, &Work::item())
    }

    fn config(&self, node: &str, database: &str, upstream: u16) -> String {
        CONFIG
            .replace("@NODE@", node)
            .replace("@REDIS@", &self.redis.to_string())
            .replace("@DATABASE@", database)
            .replace("@PAGES@", &self.setting.pages.display().to_string())
            .replace("@WORKERS@", &self.setting.workers.to_string())
            .replace("@UPSTREAM@", &upstream.to_string())
    }

    fn start(&self, role: &str, config: &str, password: &str, ready: &Work) -> Peer {
        let catalog = peers::catalog();
        let files = [
            ("config/floodgate.toml", config),
            ("config/catalog.toml", &catalog),
            ("secrets/k1.key", &self.secret.text),
            // Nobody shows these: any secret will do.
            ("secrets/operator.token", &self.secret.text),
            ("secrets/webhook.secret", &self.secret.text),
            ("secrets/database.password", password),
        ];
        let floodgate = self.setting.floodgate.display().to_string();
        let words = [&floodgate, role, "--config", "@FOLDER@/config"];
        self.setting.start(&files, &words, ready)
    }
}

/// A Redis that syncs before it answers.
pub fn redis() -> Redis {
    Redis::with(Fsync::Always, &REDIS)
}

/// Tells a new Redis that nothing was lost.
///
/// # Errors
/// If the engine fails.
pub fn trust(redis: &Redis) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        engine(redis).await?.close().await;
        Ok(())
    })
}

async fn engine(redis: &Redis) -> Result<Engine, Failure> {
    let options = Options {
        stream_max: u64::MAX,
        ..Options::new(redis.url(), "perf")
    };
    let engine = Engine::open(options).await?;
    engine.trust().await?;
    Ok(engine)
}

/// Edge, order server, Redis and database server.
pub struct Shop {
    /// The edge.
    pub edge: Peer,
    /// The order server.
    pub orders: Peer,
    /// Redis.
    pub redis: Redis,
    engine: SharedEngine,
    runtime: Runtime,
    _database: Postgres,
}

impl Shop {
    /// Starts it with a promo of one unit for each of so many buyers, all of whom have a place behind its door.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn open(
        setting: &Setting,
        secret: &Secret,
        buyers: usize,
    ) -> Result<(Self, Vec<Reserve>), Failure> {
        let redis = redis();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let (engine, admitted) = runtime.block_on(async {
            let engine: SharedEngine = Arc::new(engine(&redis).await?);
            let admitted = buyers::admit(&engine, buyers).await?;
            Ok::<_, Failure>((engine, admitted))
        })?;
        let database = Postgres::start();
        let common = Common {
            setting,
            secret,
            redis: redis.port(),
        };
        // The order server works beside the edge, where there is room for it.
        let beside = setting.beside();
        let orders = Common {
            setting: &beside,
            ..common
        }
        .order_server(&database.fresh(), database.password());
        let edge = common.edge(orders.port(), &Work::item());
        let shop = Self {
            edge,
            orders,
            redis,
            engine,
            runtime,
            _database: database,
        };
        Ok((shop, admitted))
    }

    /// Sells a unit without anybody asking at the edge.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn sell(&self, request: Reserve) -> Result<(), Failure> {
        self.runtime.block_on(self.engine.reserve(request))?;
        Ok(())
    }

    /// Whether everything was sold, to as many buyers, and nothing twice.
    ///
    /// # Errors
    /// If not.
    pub fn check(&self, buyers: usize) -> Result<(), Failure> {
        self.runtime.block_on(buyers::check(&self.engine, buyers))
    }
}

/// What admitted buyers have in hand.
///
/// # Errors
/// If the JWT library fails; it does not with HS256.
pub fn credentials(secret: &Secret, admitted: &[Reserve]) -> Result<Vec<Credentials>, Failure> {
    let sign =
        |request: &Reserve| Credentials::sign(&secret.ring, &request.session, &request.access);
    admitted.iter().map(sign).collect()
}
