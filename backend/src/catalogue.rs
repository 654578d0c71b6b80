//! The items as order servers know them: the ledger's rows, and copies of them that all order servers
//! share for a moment. What a promo makes of an item is computed for each answer, and never copied.

use std::time::{Duration, Instant};

use engine::{FORGOTTEN_FOR, SharedEngine, Signal};
use lua_free_rules::item::Item;
use lua_free_rules::units::ItemId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::ledger::{Ledger, NewItem};
use crate::metrics::Metrics;

/// How long a copy is good: no longer than an edge keeps one fresh. Stock and sales move meanwhile.
const COPY_TTL: Duration = Duration::from_secs(1);
/// How long the engine is waited for: a copy only saves time.
const ASK_MAX: Duration = Duration::from_millis(250);
/// What took longer to read is not remembered: it may have been changed and forgotten meanwhile.
const READ_MAX: Duration = FORGOTTEN_FOR.saturating_sub(Duration::from_secs(1));

/// The copy of the list.
const LIST: &str = "items";

/// The copy of one item.
fn key_of(id: ItemId) -> String {
    format!("item:{id}")
}

/// The catalogue.
#[derive(Clone)]
pub struct Catalogue {
    engine: SharedEngine,
    ledger: Ledger,
    metrics: Metrics,
}

impl Catalogue {
    /// The catalogue of a ledger.
    pub fn new(engine: SharedEngine, ledger: Ledger, metrics: Metrics) -> Self {
        Self {
            engine,
            ledger,
            metrics,
        }
    }

    /// Every item, by id.
    ///
    /// # Errors
    /// If there is no copy and the database fails.
    pub async fn list(&self) -> Result<Vec<Item>> {
        if let Some(items) = self.recall(LIST).await {
            return Ok(items);
        }
        let asked = Instant::now();
        let items = self.ledger.items().await?;
        self.remember(LIST, &items, asked).await;
        Ok(items)
    }

    /// One item. That there is none is not remembered here.
    ///
    /// # Errors
    /// If there is no copy and the database fails.
    pub async fn item(&self, id: ItemId) -> Result<Option<Item>> {
        let key = key_of(id);
        if let Some(item) = self.recall(&key).await {
            return Ok(Some(item));
        }
        let asked = Instant::now();
        let item = self.ledger.item(id).await?;
        if let Some(item) = &item {
            self.remember(&key, item, asked).await;
        }
        Ok(item)
    }

    /// Adds an item under the next free id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn create(&self, item: &NewItem<'_>) -> Result<Item> {
        let item = self.ledger.create_item(item).await?;
        self.changed(item.id).await;
        Ok(item)
    }

    /// Changes an item; `None` if there is no such item.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn update(&self, id: ItemId, item: &NewItem<'_>) -> Result<Option<Item>> {
        let item = self.ledger.update_item(id, item).await?;
        if item.is_some() {
            self.changed(id).await;
        }
        Ok(item)
    }

    /// Forgets the copies, then tells every edge: one that asks again finds the new item. Where the engine
    /// is away, copies end by themselves and edges ask again when theirs are old.
    async fn changed(&self, id: ItemId) {
        let key = key_of(id);
        for key in [key.as_str(), LIST] {
            self.asked("forget", self.engine.forget(key)).await;
        }
        self.asked("tell", self.engine.tell(Signal::Item(id))).await;
    }

    async fn recall<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let copy = self.asked("recall", self.engine.recall(key)).await?;
        // One that another version wrote is no copy to this one.
        let copy = copy.and_then(|copy| serde_json::from_slice(&copy).ok());
        self.metrics
            .item_copy(if copy.is_some() { "hit" } else { "miss" });
        copy
    }

    async fn remember<T: Serialize>(&self, key: &str, value: &T, asked: Instant) {
        if asked.elapsed() < READ_MAX
            && let Ok(copy) = serde_json::to_vec(value)
        {
            self.asked("remember", self.engine.remember(key, &copy, COPY_TTL))
                .await;
        }
    }

    /// What the engine answers, if it does in time.
    async fn asked<T>(
        &self,
        what: &str,
        step: impl Future<Output = engine::Result<T>>,
    ) -> Option<T> {
        let problem = match tokio::time::timeout(ASK_MAX, step).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        tracing::debug!(what, problem, "the shared copies of items were not reached");
        self.metrics.item_copy("failed");
        None
    }
}
