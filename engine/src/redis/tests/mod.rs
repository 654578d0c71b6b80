//! The Redis home against the suite, on a redis-server of its own for each case, and what the suite cannot
//! see: a Redis that goes away, or comes back without what it had.

mod outage;
mod readers;
mod rebuild;

use std::time::Duration;

use async_trait::async_trait;
use floodgate_servers::Redis as Server;
use lua_free_rules::refusal::Refusal;

use super::*;
use crate::SharedEngine;
use crate::conformance::Home;
use crate::conformance::sale::{PROMO, Sale, refusal, request};

struct RedisHome {
    engine: Arc<Redis>,
    server: Server,
    stream_max: u64,
}

impl RedisHome {
    async fn on(server: Server, stream_max: u64) -> Self {
        let mut options = Options::new(server.url(), "reader");
        options.stream_max = stream_max;
        let engine = Arc::new(Redis::open(options).await.unwrap());
        // The suite speaks of what Redis itself keeps: that its memory is good is said here, where a
        // rebuild would say it.
        engine.vouch().await.unwrap();
        Self {
            engine,
            server,
            stream_max,
        }
    }
}

#[async_trait]
impl Home for RedisHome {
    async fn start(stream_max: u64) -> Self {
        Self::on(Server::start(), stream_max).await
    }

    fn engine(&self) -> SharedEngine {
        self.engine.clone()
    }

    async fn advance_ms(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn crash(self) -> Self {
        let Self {
            engine,
            mut server,
            stream_max,
        } = self;
        drop(engine);
        server.restart();
        Self::on(server, stream_max).await
    }
}

mod conformance {
    use super::RedisHome;

    crate::conformance_suite!(RedisHome);
}

/// Reserving compares what is kept of a buyer with this, and looks closer only where it differs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_of_who_fetched_a_token_is_what_reserving_expects() {
    let sale = Sale::<RedisHome>::open(|_| ()).await;
    let session = sale.sign_in(-3).await;
    let access = sale.enter(session).await.unwrap();
    let redis = &sale.home.engine;
    let mut get = redis::cmd("HGET");
    get.arg(redis.link.keys.holdings(PROMO, access.generation))
        .arg(keys::buyer_word(access.buyer));
    let kept: String = redis.link.ask(&get, link::Repeat::Safe).await.unwrap();
    assert_eq!(kept, stock::standing(&access));
}

/// A buyer's record is read and written whole: it must not grow without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_orders_and_gives_back_for_ever_is_refused_at_last() {
    let sale = Sale::<RedisHome>::open(|_| ()).await;
    let session = sale.sign_in(1).await;
    for _ in 0..1_000 {
        let access = sale.enter(session).await.unwrap();
        let answer = sale.engine.reserve(request(session, access, 1)).await;
        let Ok(made) = answer else {
            assert_eq!(refusal(answer), Refusal::PerBuyerLimit);
            return;
        };
        sale.release(&made.reservation).await.unwrap();
    }
    panic!("a thousand orders of one buyer");
}
