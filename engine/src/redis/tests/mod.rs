//! The Redis home against the suite, on a redis-server of its own for each case, and what the suite cannot
//! see: a Redis that goes away, or comes back without what it had.

mod outage;
mod readers;
mod rebuild;

use std::time::Duration;

use async_trait::async_trait;
use floodgate_servers::Redis as Server;

use super::*;
use crate::SharedEngine;
use crate::conformance::Home;

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
