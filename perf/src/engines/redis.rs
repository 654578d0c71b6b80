//! Reservations on Redis, all with the engine's own script and every check of it: in batches, as the
//! engine sends them; one call each over multiplexed connections; one call each through a bb8 pool.
//!
//! Each measurement has a redis-server of its own, so that no file is rewritten in the middle of one.

use std::sync::Arc;
use std::time::Duration;

use bb8_redis::{RedisConnectionManager, bb8};
use engine::redis::{OneCall, Options, Redis};
use engine::{EngineError, Reserve, SharedEngine, Stock as _};
use floodgate_servers::Redis as Server;
use floodgate_servers::redis::Fsync;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, cmd};

use super::report::{Comparison, Measured, Way};
use super::{Failure, Measuring, buyers};

/// Connections that are shared: as many as the engine has.
const MULTIPLEXED: usize = 4;
/// Connections of the pool.
const POOLED: u32 = 16;
/// A disk that stands still for so long is not what is measured.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a call is made that had no answer in time: repeated, it returns what was made.
const TRIES: usize = 100;

const FILES: [(Fsync, &str); 3] = [
    (Fsync::Always, "AOF always"),
    (Fsync::EverySecond, "AOF everysec"),
    (Fsync::Off, "no AOF"),
];

#[derive(Debug, Clone, Copy)]
enum Calls {
    Batched,
    Multiplexed,
    Pooled,
}

/// What was measured so far.
pub struct Rounds(Vec<(Fsync, Comparison)>);

impl Rounds {
    /// Nothing yet.
    pub fn new(measuring: &Measuring) -> Self {
        let comparison = |(fsync, name)| {
            let what = format!("reservations, Redis, {name}, {} callers", measuring.callers);
            (fsync, Comparison::new(what, ways(measuring, fsync)))
        };
        Self(FILES.into_iter().map(comparison).collect())
    }

    /// Measures each way once.
    pub async fn round(&mut self, measuring: &Measuring) -> Result<(), Failure> {
        for (fsync, comparison) in &mut self.0 {
            let calls = [Calls::Batched, Calls::Multiplexed, Calls::Pooled];
            for (way, calls) in comparison.ways.iter_mut().zip(calls) {
                way.add(measure(calls, *fsync, way.orders, measuring.callers).await?);
            }
        }
        Ok(())
    }

    /// The comparisons.
    pub fn end(self) -> Vec<Comparison> {
        self.0.into_iter().map(|(_, each)| each).collect()
    }
}

fn ways(measuring: &Measuring, fsync: Fsync) -> Vec<Way> {
    // Only what is on the disk before it is answered has goals.
    let is_durable = fsync == Fsync::Always;
    let batched = Way::new("batched", measuring.orders);
    let multiplexed = Way::new("one call each, multiplexed", measuring.orders);
    let pooled = Way::new("one call each, bb8 pool of 16", measuring.few());
    if is_durable {
        return vec![
            batched.at_most_of_redis(3.5),
            multiplexed.beaten_by(2.5),
            pooled.beaten_by(20.0),
        ];
    }
    vec![batched, multiplexed, pooled]
}

async fn measure(
    calls: Calls,
    fsync: Fsync,
    orders: usize,
    callers: usize,
) -> Result<Measured, Failure> {
    let server = Server::with(fsync, &["--auto-aof-rewrite-percentage", "0"]);
    let options = Options {
        stream_max: u64::MAX,
        patience: PATIENCE,
        ..Options::new(server.url(), "perf")
    };
    let engine = Arc::new(Redis::open(options.clone()).await?);
    engine.trust().await?;
    let shared: SharedEngine = engine.clone();
    let requests = buyers::admit(&shared, orders).await?;
    let one_call = Arc::new(OneCall::new(&options));
    let mut info = connect(&server).await?;
    let (used, seconds) = match calls {
        Calls::Batched => {
            let race = buyers::race(requests, callers, move |_, request| {
                let engine = engine.clone();
                async move { Ok(engine.reserve(request).await.map(drop)?) }
            });
            (cpu_us(&mut info).await?, race.await?)
        }
        Calls::Multiplexed => {
            let mut connections = Vec::new();
            for _ in 0..MULTIPLEXED {
                connections.push(connect(&server).await?);
            }
            let race = buyers::race(requests, callers, move |caller, request| {
                let mut connection = connections[caller % MULTIPLEXED].clone();
                let one_call = one_call.clone();
                async move { reserve(&one_call, &mut connection, &request).await }
            });
            (cpu_us(&mut info).await?, race.await?)
        }
        Calls::Pooled => {
            let pool = pool(&server).await?;
            let race = buyers::race(requests, callers, move |_, request| {
                let (pool, one_call) = (pool.clone(), one_call.clone());
                async move {
                    let mut connection = pool.get().await?;
                    reserve(&one_call, &mut *connection, &request).await
                }
            });
            (cpu_us(&mut info).await?, race.await?)
        }
    };
    let used = cpu_us(&mut info).await? - used;
    buyers::check(&shared, orders).await?;
    Ok(Measured::new(orders, seconds).with_redis(used / orders as f64))
}

async fn reserve(
    one_call: &OneCall,
    connection: &mut (impl ConnectionLike + Send),
    request: &Reserve,
) -> Result<(), Failure> {
    for _ in 1..TRIES {
        match one_call.reserve(connection, request).await {
            Err(EngineError::Unavailable(_)) => {}
            answer => return Ok(answer.map(drop)?),
        }
    }
    Ok(one_call.reserve(connection, request).await.map(drop)?)
}

async fn connect(server: &Server) -> Result<MultiplexedConnection, Failure> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    let client = Client::open(server.url())?;
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    Ok(connection.await?)
}

/// A pool at its best: full before it is measured, and without asking whether a connection still lives
/// each time one is taken.
async fn pool(server: &Server) -> Result<bb8::Pool<RedisConnectionManager>, Failure> {
    let builder = bb8::Pool::builder()
        .max_size(POOLED)
        .min_idle(POOLED)
        .connection_timeout(PATIENCE)
        .test_on_check_out(false);
    Ok(builder
        .build(RedisConnectionManager::new(server.url())?)
        .await?)
}

/// Processor time that the main thread of Redis has used so far, in microseconds: it reads, runs the
/// scripts, answers, and writes the append-only file.
async fn cpu_us(connection: &mut MultiplexedConnection) -> Result<f64, Failure> {
    let info: String = cmd("INFO").arg("cpu").query_async(connection).await?;
    let field = |name: &str| {
        let mut fields = info.lines().filter_map(|line| line.split_once(':'));
        let found = fields.find(|(key, _)| *key == name);
        found.and_then(|(_, value)| value.trim().parse::<f64>().ok())
    };
    let user = field("used_cpu_user_main_thread");
    let system = field("used_cpu_sys_main_thread");
    let seconds = user.zip(system).map(|(user, system)| user + system);
    Ok(seconds.ok_or("this Redis does not tell the time of its main thread")? * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Sessions as _;
    use lua_free_rules::refusal::Refusal;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_way_does_the_whole_work() {
        let folder = tempfile::tempdir().unwrap();
        let measuring = Measuring::small(folder.path());
        let mut rounds = Rounds::new(&measuring);
        rounds.round(&measuring).await.unwrap();
        let comparisons = rounds.end();
        assert_eq!(comparisons.len(), 3);
        for comparison in comparisons {
            assert!(comparison.is_whole(1));
            let mut cpu = comparison.ways.iter().flat_map(|way| &way.redis_cpu_us);
            assert!(cpu.all(|used| *used > 0.0));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_call_each_checks_what_a_batch_checks_and_a_missing_order_is_noticed() {
        let server = Server::start();
        let options = Options::new(server.url(), "perf");
        let engine = Arc::new(Redis::open(options.clone()).await.unwrap());
        engine.trust().await.unwrap();
        let shared: SharedEngine = engine.clone();
        let requests = buyers::admit(&shared, 2).await.unwrap();
        let one_call = OneCall::new(&options);
        let mut connection = connect(&server).await.unwrap();

        let made = one_call.reserve(&mut connection, &requests[0]).await;
        let again = engine.reserve(requests[0].clone()).await.unwrap();
        assert!(again.repeated);
        assert_eq!(made.unwrap().reservation, again.reservation);

        let session = requests[1].session;
        engine.sign_out(session).await.unwrap();
        let refused = Err(EngineError::Refused(Refusal::NotSignedIn));
        let answer = one_call.reserve(&mut connection, &requests[1]).await;
        assert_eq!(answer, refused);
        assert_eq!(engine.reserve(requests[1].clone()).await, refused);
        assert!(buyers::check(&shared, 2).await.is_err());
    }
}
