//! What every request can reach: settings, keys, and the memories of the edge.

use std::sync::Arc;

use engine::{Clock, SharedEngine};
use lua_free_rules::config;
use lua_free_rules::keys::KeyRing;
use lua_free_rules::units::{Millis, Timestamp};

use crate::drain::InFlight;
use crate::item_cache::ItemCache;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::pages::Pages;
use crate::promos::Promos;
use crate::puzzles::{Image, Pool, Proof};
use crate::upstreams::Upstreams;

/// The edge, shared by all requests.
pub(crate) struct Edge {
    pub config: config::Edge,
    pub keys: KeyRing,
    pub operator_token: String,
    pub resubmit_for: Millis,
    /// Whether cookies are marked Secure.
    pub secure_cookies: bool,
    /// Whether buyers come by https, to this listener or to what is in front of it.
    pub https: bool,
    pub engine: SharedEngine,
    pub clock: Arc<dyn Clock>,
    pub promos: Arc<Promos>,
    pub items: Arc<ItemCache>,
    pub limits: Limits,
    pub pages: Pages,
    pub images: Arc<Pool<Image>>,
    pub proofs: Arc<Pool<Proof>>,
    pub upstreams: Arc<Upstreams>,
    pub metrics: Arc<Metrics>,
    pub in_flight: Arc<InFlight>,
}

impl Edge {
    /// Now, by the local clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use engine::clock::ManualClock;
    use engine::embedded::{Embedded, Options};
    use lua_free_rules::keys::Key;

    use super::*;
    use crate::running::{Settings, build};

    /// An edge without listeners, with one page; it is one second after the epoch.
    pub(crate) fn edge(folder: &std::path::Path) -> Edge {
        let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
        let file = folder.join("engine.db");
        let engine = Embedded::open(&file, clock.clone(), Options::default()).unwrap();
        let pages = folder.join("html");
        std::fs::create_dir(&pages).unwrap();
        std::fs::write(pages.join("a.html"), "<p>".repeat(500)).unwrap();
        let address = ([127, 0, 0, 1], 0).into();
        let settings = Settings {
            edge: config::Edge::default(),
            listen: address,
            admin: address,
            upstreams: Vec::new(),
            pages,
            keys: KeyRing::new(vec![Key::new("k", &[1; 32]).unwrap()], "k").unwrap(),
            operator_token: String::new(),
            resubmit_for: Millis::seconds(600),
        };
        build(settings, Arc::new(engine), clock).unwrap()
    }
}
