//! What the edge knows of the promos: the engine's word, asked for twice a second, corrected at once by
//! what order servers say about sold out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use engine::{Clock, SharedEngine};
use lua_free_rules::promo::Snapshot;
use lua_free_rules::units::{PromoId, Timestamp};
use tokio::sync::Notify;

use crate::sold_out::Signal;

const POLL_EVERY: Duration = Duration::from_millis(500);
/// A poll that a signal asked for comes no sooner than this after the last.
const POLL_SPACING: Duration = Duration::from_millis(50);
const POLL_TIMEOUT: Duration = Duration::from_secs(2);

/// The promos as they were heard at one moment.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub promos: Vec<Snapshot>,
    /// By the local clock; zero if the engine was never heard.
    pub at: Timestamp,
}

impl Heard {
    /// The promo of that id.
    pub fn find(&self, promo: PromoId) -> Option<&Snapshot> {
        self.promos.iter().find(|known| known.promo == promo)
    }
}

/// The promos, always at hand.
pub(crate) struct Promos {
    heard: ArcSwap<Heard>,
    /// Signals that the engine's word has not caught up with. At most one for each known promo.
    /// Held while `heard` is replaced, so that no signal is lost in between.
    ahead: Mutex<HashMap<PromoId, Signal>>,
    poll_now: Notify,
    clock: Arc<dyn Clock>,
}

impl Promos {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            heard: ArcSwap::default(),
            ahead: Mutex::default(),
            poll_now: Notify::new(),
            clock,
        }
    }

    /// What was heard last.
    pub fn heard(&self) -> arc_swap::Guard<Arc<Heard>> {
        self.heard.load()
    }

    /// Asks the engine until the task is dropped.
    pub async fn follow(self: Arc<Self>, engine: SharedEngine) {
        let mut silent = false;
        loop {
            let answered = self.poll(&engine).await;
            if answered == silent {
                silent = !answered;
                if silent {
                    tracing::warn!("the engine does not answer; tokens stop when its word is old");
                } else {
                    tracing::info!("the engine answers");
                }
            }
            tokio::time::sleep(POLL_SPACING).await;
            // Elapsed or asked for: either way it is time.
            let _ = tokio::time::timeout(POLL_EVERY - POLL_SPACING, self.poll_now.notified()).await;
        }
    }

    /// Asks the engine once; returns whether it answered.
    pub async fn poll(&self, engine: &SharedEngine) -> bool {
        // The moment before asking: what is heard may be as old as that.
        let at = self.clock.now();
        match tokio::time::timeout(POLL_TIMEOUT, engine.promos()).await {
            Ok(Ok((_, promos))) => {
                self.hear(promos, at);
                true
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "asking for the promos failed");
                false
            }
            Err(_) => false,
        }
    }

    fn hear(&self, mut promos: Vec<Snapshot>, at: Timestamp) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.retain(|_, signal| promos.iter_mut().any(|promo| signal.apply(promo)));
        self.heard.store(Arc::new(Heard { promos, at }));
    }

    /// Takes in what an order server said. Older news than what is known changes nothing.
    pub fn signal(&self, signal: Signal) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = self.heard.load();
        let Some(known) = heard.find(signal.promo) else {
            self.poll_now.notify_one();
            return;
        };
        if signal.generation > known.generation {
            self.poll_now.notify_one();
        }
        if !signal.is_news_to(known) {
            return;
        }
        let mut promos = heard.promos.clone();
        for promo in &mut promos {
            signal.apply(promo);
        }
        ahead.insert(signal.promo, signal);
        self.heard.store(Arc::new(Heard {
            promos,
            at: heard.at,
        }));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use engine::clock::ManualClock;
    use lua_free_rules::promo::{Status, Terms};
    use lua_free_rules::units::{Generation, ItemId, Millis, Money, Sequence, SoldEpoch};

    pub(crate) fn snapshot() -> Snapshot {
        Snapshot {
            promo: PromoId(7),
            generation: Generation(1),
            terms: Terms {
                item: ItemId(3),
                starts_at: Timestamp(0),
                ends_at: Timestamp(100_000),
                price: Money::from_minor(9_900).unwrap(),
                stock: 50,
                door: 5,
                per_buyer: 2,
                pay_within: Millis::seconds(900),
                token_ttl: Millis::seconds(60),
                challenges: Vec::new(),
            },
            status: Status::Open,
            available: 50,
            sold_out: false,
            sold_epoch: SoldEpoch(4),
            sequence: Sequence(1),
            places_issued: 0,
            places_used: 0,
        }
    }

    fn signal(generation: i64, epoch: i64, sold_out: bool) -> Signal {
        Signal {
            promo: PromoId(7),
            generation: Generation(generation),
            epoch: SoldEpoch(epoch),
            sold_out,
        }
    }

    fn promos() -> Promos {
        let promos = Promos::new(Arc::new(ManualClock::new(Timestamp(5))));
        promos.hear(vec![snapshot()], Timestamp(5));
        promos
    }

    fn sold_out(promos: &Promos) -> bool {
        promos.heard().find(PromoId(7)).unwrap().sold_out
    }

    #[test]
    fn newer_news_counts_at_once_and_older_never() {
        let promos = promos();
        promos.signal(signal(1, 4, true));
        assert!(!sold_out(&promos), "the same epoch is no news");
        promos.signal(signal(1, 5, true));
        assert!(sold_out(&promos));
        assert_eq!(promos.heard().find(PromoId(7)).unwrap().available, 0);
        promos.signal(signal(1, 3, false));
        promos.signal(signal(0, 9, false));
        promos.signal(signal(2, 9, false));
        assert!(sold_out(&promos));
    }

    #[test]
    fn a_poll_that_was_under_way_does_not_undo_a_signal() {
        let promos = promos();
        promos.signal(signal(1, 5, true));
        promos.hear(vec![snapshot()], Timestamp(6));
        assert!(sold_out(&promos));
        let mut later = snapshot();
        later.sold_epoch = SoldEpoch(6);
        promos.hear(vec![later], Timestamp(7));
        assert!(!sold_out(&promos));
        assert!(promos.ahead.lock().unwrap().is_empty());
    }

    #[test]
    fn news_of_an_unknown_promo_is_asked_for_not_kept() {
        let promos = promos();
        let mut unknown = signal(1, 9, true);
        unknown.promo = PromoId(8);
        promos.signal(unknown);
        assert!(promos.ahead.lock().unwrap().is_empty());
    }
}
