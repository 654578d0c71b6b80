//! The promos as the engine last told them, kept for a moment so that a crowd asks it once, and no longer
//! than until it tells that one has changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{SharedEngine, Signal};
use lua_free_rules::promo::Snapshot;
use lua_free_rules::units::PromoId;
use tokio::sync::Mutex;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

/// How long they are kept.
const FRESH: Duration = Duration::from_millis(250);
/// How long the engine is waited for.
const ASK_MAX: Duration = Duration::from_secs(1);

/// What every order server of a process knows of the promos.
#[derive(Clone)]
pub struct Promos {
    engine: SharedEngine,
    known: Arc<Mutex<Known>>,
}

struct Known {
    heard: Option<Instant>,
    promos: Arc<[Snapshot]>,
    signals: Receiver<Signal>,
}

impl Known {
    /// Whether any promo may have changed since this was last asked.
    fn is_told(&mut self) -> bool {
        let mut is_told = false;
        loop {
            match self.signals.try_recv() {
                Ok(Signal::Item(_)) => {}
                Ok(Signal::Sold { .. } | Signal::Promo(_) | Signal::Missed)
                | Err(TryRecvError::Lagged(_)) => is_told = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return is_told,
            }
        }
    }
}

impl Promos {
    /// Knows nothing yet.
    pub fn new(engine: SharedEngine) -> Self {
        let known = Known {
            heard: None,
            promos: Arc::default(),
            signals: engine.listen(),
        };
        Self {
            engine,
            known: Arc::new(Mutex::new(known)),
        }
    }

    /// Whether the engine has spoken of a promo, as far as is known without asking it.
    pub fn is_known(&self, promo: PromoId) -> bool {
        // Whoever holds the lock is asking: then nobody waits for a name.
        self.known
            .try_lock()
            .is_ok_and(|known| known.promos.iter().any(|each| each.promo == promo))
    }

    /// Every promo. While the engine is away, those last known.
    pub async fn all(&self) -> Arc<[Snapshot]> {
        self.heard_since(Instant::now().checked_sub(FRESH)).await
    }

    /// The signal `<promo>;<generation>;<epoch>;1` for a promo that is sold out, once the engine
    /// says so; nothing if it does not.
    pub async fn sold_out_signal(&self, promo: PromoId) -> Option<String> {
        let asked = Instant::now();
        let sold_out = |promos: &[Snapshot]| {
            let found = promos
                .iter()
                .find(|each| each.promo == promo && each.sold_out)?;
            Some(signal(promo, found.generation.0, found.sold_epoch.0, true))
        };
        if let Some(signal) = sold_out(&self.all().await) {
            return Some(signal);
        }
        sold_out(&self.heard_since(Some(asked)).await)
    }

    /// What was heard at or after `since`, or is heard now. Of callers that come together one asks.
    async fn heard_since(&self, since: Option<Instant>) -> Arc<[Snapshot]> {
        let mut known = self.known.lock().await;
        // What is told from here on counts for the next caller.
        let is_told = known.is_told();
        let enough = !is_told
            && matches!((known.heard, since), (Some(heard), Some(since)) if heard >= since);
        if !enough {
            match tokio::time::timeout(ASK_MAX, self.engine.promos()).await {
                Ok(Ok((_, promos))) => known.promos = promos.into(),
                Ok(Err(error)) => tracing::warn!(%error, "the promos are those last known"),
                Err(_) => tracing::warn!("the engine is slow; the promos are those last known"),
            }
            known.heard = Some(Instant::now());
        }
        Arc::clone(&known.promos)
    }
}

/// The value of the header that tells edges whether a promo is sold out.
pub fn signal(promo: PromoId, generation: i64, epoch: i64, sold_out: bool) -> String {
    format!("{promo};{generation};{epoch};{}", u8::from(sold_out))
}
