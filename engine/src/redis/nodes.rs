//! What nodes tell each other, which of them does what only one may do, and what they remember together.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lua_free_rules::units::{Generation, ItemId, PromoId, SoldEpoch};
use redis::cmd;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::Redis;
use super::link::{Link, Repeat};
use super::scripts::{self, Call};
use super::stream::Reader;
use crate::{Cache, FORGOTTEN_FOR, Fence, Leases, Result, Signal, Signals};

/// Signals that a slow listener may be behind.
const SIGNALS_MAX: usize = 1_024;
/// How often who listens asks whether Redis is still there, and how long that may take.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
const ALIVE_MAX: Duration = Duration::from_secs(2);
/// Pause before listening is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Listens for all of this process.
pub(super) struct Nodes {
    signals: broadcast::Sender<Signal>,
    listening: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Nodes {
    /// Starts to listen; a connection that breaks is made anew, and what may have been missed is told.
    pub(super) fn start(link: Arc<Link>, reader: Arc<Reader>) -> Self {
        let signals = broadcast::channel(SIGNALS_MAX).0;
        let listening = tokio::spawn(listen_on(link, reader, signals.clone()));
        Self {
            signals,
            listening: std::sync::Mutex::new(Some(listening)),
        }
    }

    /// Stops listening.
    pub(super) async fn stop(&self) {
        let listening = self
            .listening
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(listening) = listening {
            listening.abort();
            // It was just ended: that is the only error it can have.
            let _ = listening.await;
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let listening = self
            .listening
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(listening) = listening.take() {
            listening.abort();
        }
    }
}

async fn listen_on(link: Arc<Link>, reader: Arc<Reader>, signals: broadcast::Sender<Signal>) {
    loop {
        if let Err(error) = listen_once(&link, &reader, &signals).await {
            tracing::debug!(%error, "listening for signals failed");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen_once(
    link: &Link,
    reader: &Reader,
    signals: &broadcast::Sender<Signal>,
) -> redis::RedisResult<()> {
    let (mut asking, mut messages) = in_time(async {
        let (mut asking, messages) = link.client.get_async_pubsub().await?.split();
        asking.subscribe(link.keys.signals()).await?;
        asking.subscribe(link.keys.events()).await?;
        Ok((asking, messages))
    })
    .await?;
    // An error below means that nobody listens. What was told before is not known.
    let _ = signals.send(Signal::Missed);
    let events = link.keys.events();
    let mut looks = tokio::time::interval(ALIVE_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            // Redis says nothing by itself where nothing happens: a peer that is gone is silent too.
            _ = looks.tick() => {
                in_time(asking.ping::<redis::Value>()).await?;
                continue;
            }
        };
        let Some(message) = message else {
            return Ok(());
        };
        if message.get_channel_name() == events {
            reader.added.notify_waiters();
        } else if let Some(signal) = message
            .get_payload()
            .ok()
            .and_then(|text: String| read(&text))
        {
            let _ = signals.send(signal);
        }
    }
}

/// What Redis answers, if it does before it counts as gone.
async fn in_time<T>(answer: impl Future<Output = redis::RedisResult<T>>) -> redis::RedisResult<T> {
    tokio::time::timeout(ALIVE_MAX, answer)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

/// What is told, in words: the scripts of a promo write the first two themselves.
fn words(signal: Signal) -> String {
    match signal {
        Signal::Sold {
            promo,
            generation,
            epoch,
            sold_out,
        } => format!(
            "sold {promo} {} {} {}",
            generation.0,
            epoch.0,
            u8::from(sold_out)
        ),
        Signal::Promo(promo) => format!("promo {promo}"),
        Signal::Item(item) => format!("item {item}"),
        Signal::Missed => "missed".to_owned(),
    }
}

fn read(text: &str) -> Option<Signal> {
    let mut words = text.split(' ');
    let kind = words.next()?;
    let mut number = || words.next()?.parse::<i64>().ok();
    Some(match kind {
        "sold" => Signal::Sold {
            promo: PromoId(number()?),
            generation: Generation(number()?),
            epoch: SoldEpoch(number()?),
            sold_out: number()? == 1,
        },
        "promo" => Signal::Promo(PromoId(number()?)),
        "item" => Signal::Item(ItemId(number()?)),
        "missed" => Signal::Missed,
        _ => return None,
    })
}

#[async_trait]
impl Signals for Redis {
    fn listen(&self) -> broadcast::Receiver<Signal> {
        self.nodes.signals.subscribe()
    }

    async fn tell(&self, signal: Signal) -> Result<()> {
        let mut publish = cmd("PUBLISH");
        publish.arg(self.link.keys.signals()).arg(words(signal));
        let _: i64 = self.link.ask(&publish, Repeat::Safe).await?;
        Ok(())
    }
}

#[async_trait]
impl Leases for Redis {
    async fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<Fence>> {
        let [key, fence] = self.link.keys.lease(name);
        let ttl_ms = ttl.as_millis().max(1).to_string();
        let mut call = Call::new(&scripts::LEASE, key, [holder.to_owned(), ttl_ms]);
        call.keys.push(fence);
        let fence: Option<i64> = self.link.call(&call, Repeat::Safe).await?;
        Ok(fence.map(Fence))
    }

    async fn give_back(&self, name: &str, holder: &str) -> Result<()> {
        let [key, _] = self.link.keys.lease(name);
        let call = Call::new(&scripts::GIVE_BACK, key, [holder]);
        let _: i64 = self.link.call(&call, Repeat::Safe).await?;
        Ok(())
    }
}

#[async_trait]
impl Cache for Redis {
    async fn recall(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let [copy, _] = self.link.keys.cache(key);
        let mut get = cmd("GET");
        get.arg(copy);
        self.link.ask(&get, Repeat::Safe).await
    }

    async fn remember(&self, key: &str, value: &[u8], ttl: Duration) -> Result<()> {
        let [copy, gone] = self.link.keys.cache(key);
        let ttl_ms = ttl.as_millis().max(1).to_string().into_bytes();
        let mut call = Call::new(&scripts::REMEMBER, copy, [value.to_vec(), ttl_ms]);
        call.keys.push(gone);
        let _: i64 = self.link.call(&call, Repeat::Safe).await?;
        Ok(())
    }

    async fn forget(&self, key: &str) -> Result<()> {
        let [copy, gone] = self.link.keys.cache(key);
        let marked_ms = FORGOTTEN_FOR.as_millis().to_string();
        let mut call = Call::new(&scripts::FORGET, copy, [marked_ms]);
        call.keys.push(gone);
        let _: i64 = self.link.call(&call, Repeat::Safe).await?;
        Ok(())
    }
}
