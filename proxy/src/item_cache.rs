//! Item details at the edge: fresh for a moment, stale for long. One refresh runs for each key; while it
//! runs or fails, the stale one is served. An item that was changed is fetched before it is served. Items
//! that do not exist are remembered too: briefly, few, and apart, so that a search for holes cannot push
//! the goods out. What was asked for lately is at hand without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use lua_free_rules::config;
use lua_free_rules::item::Item;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::ItemId;
use moka::future::Cache;
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore};

use crate::answer::Lasting;
use crate::at_hand::AtHand;
use crate::item_changes::{Changes, Since};
use crate::metrics::Metrics;
use crate::upstreams::Upstreams;

/// Refreshes under way at once, over all keys.
const REFRESHES_MAX: usize = 64;
/// The largest answer of an order server that is read.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Most keys remembered as missing.
const ABSENT_MAX: u64 = 1_000;
/// Most entries at hand.
const AT_HAND_MAX: u64 = 256;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Item(ItemId),
    List,
}

/// An entry: the items (one, for [`Key::Item`]) and when they were last asked for.
#[derive(Debug)]
pub(crate) struct Kept {
    pub items: Vec<Item>,
    /// The last answer that was made of it.
    pub said: ArcSwap<Lasting>,
    /// When it was fetched, in milliseconds since the cache was made.
    fetched_ms: u64,
    /// When it was last asked for: milliseconds since the cache was made.
    asked_ms: AtomicU64,
    /// The count of changes then.
    asked_at: AtomicU64,
    refreshing: AtomicBool,
    /// Held by whoever fetches what comes in its place.
    renewal: Mutex<()>,
}

impl Kept {
    fn new(items: Vec<Item>, asked_ms: u64, asked_at: u64) -> Self {
        Self {
            items,
            said: ArcSwap::from_pointee(Lasting::never()),
            fetched_ms: asked_ms,
            asked_ms: AtomicU64::new(asked_ms),
            asked_at: AtomicU64::new(asked_at),
            refreshing: AtomicBool::new(false),
            renewal: Mutex::new(()),
        }
    }

    /// It could not be had anew: it counts as if it had been asked for then.
    fn stays(&self, asked_ms: u64, asked_at: u64) {
        self.asked_ms.store(asked_ms, Ordering::Release);
        self.asked_at.fetch_max(asked_at, Ordering::AcqRel);
        self.refreshing.store(false, Ordering::Release);
    }
}

/// How good an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    /// Served while it is fetched again.
    Stale,
    /// Its item was changed: fetched again before anything is served.
    Outdated,
}

/// The cache.
pub(crate) struct ItemCache {
    kept: Cache<Key, Arc<Kept>>,
    /// Some of `kept`.
    at_hand: AtHand<Key, Kept>,
    /// Keys that were asked for in vain, with the count of changes then.
    absent: Cache<Key, u64>,
    changes: ArcSwap<Changes>,
    source: Source,
    fresh: Duration,
    /// How long an entry is kept at all.
    life: Duration,
    born: Instant,
}

impl ItemCache {
    pub fn new(config: &config::ItemCache, source: Source) -> Self {
        let fresh = config.fresh.duration();
        let life = fresh.saturating_add(config.stale.duration());
        let at_hand_max = config.capacity.min(AT_HAND_MAX);
        Self {
            kept: Cache::builder()
                .max_capacity(config.capacity)
                .time_to_live(life)
                .build(),
            at_hand: AtHand::new(usize::try_from(at_hand_max).unwrap_or(usize::MAX)),
            absent: Cache::builder()
                .max_capacity(config.capacity.min(ABSENT_MAX))
                .time_to_live(fresh)
                .build(),
            changes: ArcSwap::default(),
            source,
            fresh,
            life,
            born: Instant::now(),
        }
    }

    /// An item was changed: the next request for it, or for the list, waits for the new one.
    pub fn changed(&self, id: ItemId) {
        self.change(|changes| changes.item(id));
    }

    /// Changes may have been missed: every entry is fetched again when it is asked for next.
    pub fn all_are_due(&self) {
        self.change(Changes::miss);
    }

    fn change(&self, make: impl Fn(&mut Changes)) {
        self.changes.rcu(|changes| {
            let mut changes = Changes::clone(changes);
            make(&mut changes);
            changes
        });
    }

    /// Looks at the items of `key`, if they can be had without waiting. `None` says nothing about the others.
    pub fn at_hand<T>(
        self: &Arc<Self>,
        key: Key,
        at: Instant,
        look: impl FnOnce(&Arc<Kept>) -> T,
    ) -> Option<T> {
        let at = at.saturating_duration_since(self.born);
        let looked = self.at_hand.with(key, |kept| {
            let age = at.saturating_sub(Duration::from_millis(kept.fetched_ms));
            let state = self.state_at(key, kept, at);
            if age >= self.life || state == State::Outdated {
                return None;
            }
            self.serve(key, kept, state);
            Some(look(kept))
        });
        looked.flatten()
    }

    /// Counts an entry that is served as it is, and has a stale one refreshed.
    fn serve(self: &Arc<Self>, key: Key, kept: &Arc<Kept>, state: State) {
        if state == State::Fresh {
            self.source.metrics.fresh_item();
            return;
        }
        self.source.metrics.item_lookup("stale");
        if !kept.refreshing.swap(true, Ordering::AcqRel) {
            // Whoever finds it due first refreshes it.
            tokio::spawn(self.clone().refresh(key, kept.clone()));
        }
    }

    /// The items of `key`: at once if they are kept, else from an order server.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; [`Refusal::Overloaded`] if nothing is kept and no order server answers.
    pub async fn get(self: &Arc<Self>, key: Key) -> Result<Arc<Kept>, Refusal> {
        if let Some(kept) = self.at_hand(key, Instant::now(), Arc::clone) {
            return Ok(kept);
        }
        if let Some(kept) = self.kept.get(&key).await {
            let state = self.state(key, &kept);
            if state == State::Outdated {
                self.source.metrics.item_lookup("outdated");
                return self.renew(key, kept).await;
            }
            self.serve(key, &kept, state);
            self.lay_at_hand(key, &kept);
            return Ok(kept);
        }
        self.source.metrics.item_lookup("miss");
        if let Some(asked_at) = self.absent.get(&key).await
            && self.changes.load().since(key, asked_at) == Since::Nothing
        {
            return Err(Refusal::NotFound);
        }
        // Everyone who misses the same key waits for the same fetch. It may have begun before a change.
        let fetched = self.kept.try_get_with(key, self.fetch(key)).await;
        let kept = fetched.map_err(|refusal| (*refusal).clone())?;
        match self.state(key, &kept) {
            State::Outdated => self.renew(key, kept).await,
            State::Fresh | State::Stale => {
                self.lay_at_hand(key, &kept);
                Ok(kept)
            }
        }
    }

    /// Keeps an entry, in the place of the one before.
    async fn keep(&self, key: Key, kept: &Arc<Kept>) {
        self.kept.insert(key, kept.clone()).await;
        self.lay_at_hand(key, kept);
    }

    async fn forget(&self, key: Key) {
        self.kept.invalidate(&key).await;
        self.at_hand.forget(key);
    }

    /// Keeps items as if they had just been fetched.
    #[cfg(test)]
    pub fn lay(&self, key: Key, items: Vec<Item>) {
        let (at_ms, at) = self.now();
        self.lay_at_hand(key, &Arc::new(Kept::new(items, at_ms, at)));
    }

    /// An entry that was fetched before the one at hand changes nothing.
    fn lay_at_hand(&self, key: Key, kept: &Arc<Kept>) {
        let is_newer = |known: &Kept| known.fetched_ms > kept.fetched_ms;
        self.at_hand.lay(key, kept, is_newer);
    }

    fn state(&self, key: Key, kept: &Kept) -> State {
        self.state_at(key, kept, self.born.elapsed())
    }

    /// The state at that time since the cache was made. One that could not be refreshed counts as fresh
    /// for as long as a new one would: then it is tried again.
    fn state_at(&self, key: Key, kept: &Kept, at: Duration) -> State {
        let asked = Duration::from_millis(kept.asked_ms.load(Ordering::Acquire));
        let asked_at = kept.asked_at.load(Ordering::Acquire);
        match self.changes.load().since(key, asked_at) {
            Since::Changed => State::Outdated,
            Since::Nothing if at.saturating_sub(asked) < self.fresh => State::Fresh,
            Since::Nothing | Since::Missed => State::Stale,
        }
    }

    /// What comes in the place of an outdated entry: one fetch for all who wait. If none can be had,
    /// the old one is served rather than nothing.
    async fn renew(&self, key: Key, old: Arc<Kept>) -> Result<Arc<Kept>, Refusal> {
        let _turn = old.renewal.lock().await;
        // It may have been done while this one waited for its turn.
        if self.state(key, &old) != State::Outdated {
            return Ok(old.clone());
        }
        if let Some(kept) = self.kept.get(&key).await
            && self.state(key, &kept) != State::Outdated
        {
            return Ok(kept);
        }
        let (asked_ms, asked_at) = self.now();
        match self.fetch(key).await {
            Ok(new) => {
                self.keep(key, &new).await;
                Ok(new)
            }
            Err(Refusal::NotFound) => {
                self.forget(key).await;
                Err(Refusal::NotFound)
            }
            Err(_) => {
                old.stays(asked_ms, asked_at);
                Ok(old.clone())
            }
        }
    }

    async fn refresh(self: Arc<Self>, key: Key, old: Arc<Kept>) {
        let (_, asked_at) = self.now();
        match self.fetch(key).await {
            Ok(new) => self.keep(key, &new).await,
            Err(Refusal::NotFound) => {
                self.forget(key).await;
                // Whoever held it may lay it at hand once more: then it is asked for again.
                old.refreshing.store(false, Ordering::Release);
            }
            Err(_) => old.stays(self.now().0, asked_at),
        }
    }

    async fn fetch(&self, key: Key) -> Result<Arc<Kept>, Refusal> {
        let (asked_ms, asked_at) = self.now();
        let fetched = self.source.fetch(key).await;
        if fetched == Err(Refusal::NotFound) {
            self.absent.insert(key, asked_at).await;
        }
        Ok(Arc::new(Kept::new(fetched?, asked_ms, asked_at)))
    }

    /// Now: in milliseconds since the cache was made, and as the count of changes.
    fn now(&self) -> (u64, u64) {
        let ms = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        (ms, self.changes.load().count())
    }
}

/// Where items come from: any healthy order server.
pub(crate) struct Source {
    upstreams: Arc<Upstreams>,
    client: reqwest::Client,
    timeout: Duration,
    places: Semaphore,
    metrics: Arc<Metrics>,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

impl Source {
    pub fn new(
        upstreams: Arc<Upstreams>,
        client: reqwest::Client,
        timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            upstreams,
            client,
            timeout,
            places: Semaphore::new(REFRESHES_MAX),
            metrics,
        }
    }

    /// One try for each order server; a server that has no such item ends the search.
    async fn fetch(&self, key: Key) -> Result<Vec<Item>, Refusal> {
        let _place = self.places.try_acquire().map_err(|_| Refusal::Overloaded)?;
        let mut tried = Vec::new();
        while let Some(lease) = self.upstreams.lease(&tried) {
            let upstream = lease.upstream();
            tried.push(upstream.address);
            let route = match key {
                Key::Item(_) => "item_get",
                Key::List => "item_list",
            };
            self.metrics.upstream_request(&upstream.name, route);
            let answered = self.ask(&format!("http://{}", upstream.address), key).await;
            let outcome = match &answered {
                Ok(_) => "ok",
                Err(Some(refusal)) => refusal.name(),
                Err(None) => "failed",
            };
            self.metrics.item_refresh(outcome);
            match answered {
                Ok(items) => return Ok(items),
                Err(Some(refusal)) => return Err(refusal),
                Err(None) => {}
            }
        }
        Err(Refusal::Overloaded)
    }

    /// `Err(None)` where another order server might do better.
    async fn ask(&self, base: &str, key: Key) -> Result<Vec<Item>, Option<Refusal>> {
        let url = match key {
            Key::Item(id) => format!("{base}/item/get?id={id}"),
            Key::List => format!("{base}/item/list"),
        };
        let failed = |error: reqwest::Error| {
            tracing::debug!(%error, "an order server did not give an item");
            None
        };
        let request = self.client.get(url).timeout(self.timeout);
        let mut answer = request.send().await.map_err(failed)?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Err(Some(Refusal::NotFound));
        }
        if !answer.status().is_success() {
            return Err(None);
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(None);
            }
            body.extend_from_slice(&chunk);
        }
        let items = match key {
            Key::Item(_) => serde_json::from_slice(&body).map(|Answer { data }| vec![data]),
            Key::List => serde_json::from_slice(&body).map(|Answer { data }| data),
        };
        items.map_err(|error| {
            tracing::warn!(%error, "an order server gave an item that cannot be read");
            None
        })
    }
}
