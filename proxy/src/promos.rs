//! What the edge knows of the promos: the engine's word, asked for twice a second and whenever a signal
//! says so, corrected at once by what engine and order servers say about sold out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use engine::SharedEngine;
use lua_free_rules::promo::Snapshot;
use lua_free_rules::units::PromoId;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::sold_out::Sold;

const POLL_EVERY: Duration = Duration::from_millis(500);
/// A poll that a signal asked for comes no sooner than this after the last.
const POLL_SPACING: Duration = Duration::from_millis(50);
const POLL_TIMEOUT: Duration = Duration::from_secs(2);

/// The promos as they were heard at one moment.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub promos: Vec<Snapshot>,
    /// Counts what was heard: the same number, the same promos.
    pub number: u64,
    /// When they were asked for; `None` if the engine was never heard. The wall clock may be set at any
    /// moment: it does not say how old they are.
    pub at: Option<Instant>,
}

impl Heard {
    /// The promo of that id.
    pub fn find(&self, promo: PromoId) -> Option<&Snapshot> {
        self.promos.iter().find(|known| known.promo == promo)
    }

    /// How old they are; `None` if the engine was never heard.
    pub fn ms_ago(&self) -> Option<i64> {
        let age = self.at?.elapsed();
        Some(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The promos, always at hand.
#[derive(Default)]
pub(crate) struct Promos {
    heard: ArcSwap<Heard>,
    /// News that the engine's word has not caught up with. At most one for each known promo.
    /// Held while `heard` is replaced, so that none is lost in between.
    ahead: Mutex<HashMap<PromoId, Sold>>,
    poll_now: Notify,
}

impl Promos {
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
        let at = Instant::now();
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

    pub(crate) fn hear(&self, mut promos: Vec<Snapshot>, at: Instant) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.retain(|_, sold| promos.iter_mut().any(|promo| sold.apply(promo)));
        self.store(promos, Some(at));
    }

    /// Only with `ahead` held.
    fn store(&self, promos: Vec<Snapshot>, at: Option<Instant>) {
        let number = self.heard.load().number + 1;
        let heard = Heard { promos, number, at };
        self.heard.store(Arc::new(heard));
    }

    /// Asks the engine again as soon as may be.
    pub fn poll_soon(&self) {
        self.poll_now.notify_one();
    }

    /// Takes in who is sold out. Older news than what is known changes nothing.
    pub fn sold(&self, sold: Sold) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = self.heard.load();
        let Some(known) = heard.find(sold.promo) else {
            self.poll_soon();
            return;
        };
        if sold.generation > known.generation {
            self.poll_soon();
        }
        if !sold.is_news_to(known) {
            return;
        }
        let mut promos = heard.promos.clone();
        for promo in &mut promos {
            sold.apply(promo);
        }
        ahead.insert(sold.promo, sold);
        self.store(promos, heard.at);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use lua_free_rules::promo::{Status, Terms};
    use lua_free_rules::units::{
        Generation, ItemId, Millis, Money, Sequence, SoldEpoch, Timestamp,
    };

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

    fn told(generation: i64, epoch: i64, sold_out: bool) -> Sold {
        Sold {
            promo: PromoId(7),
            generation: Generation(generation),
            epoch: SoldEpoch(epoch),
            sold_out,
        }
    }

    fn promos() -> Promos {
        let promos = Promos::default();
        promos.hear(vec![snapshot()], Instant::now());
        promos
    }

    fn sold_out(promos: &Promos) -> bool {
        promos.heard().find(PromoId(7)).unwrap().sold_out
    }

    #[test]
    fn newer_news_counts_at_once_and_older_never() {
        let promos = promos();
        promos.sold(told(1, 4, true));
        assert!(!sold_out(&promos), "the same epoch is no news");
        promos.sold(told(1, 5, true));
        assert!(sold_out(&promos));
        assert_eq!(promos.heard().find(PromoId(7)).unwrap().available, 0);
        promos.sold(told(1, 3, false));
        promos.sold(told(0, 9, false));
        promos.sold(told(2, 9, false));
        assert!(sold_out(&promos));
    }

    #[test]
    fn a_poll_that_was_under_way_does_not_undo_a_signal() {
        let promos = promos();
        promos.sold(told(1, 5, true));
        promos.hear(vec![snapshot()], Instant::now());
        assert!(sold_out(&promos));
        let mut later = snapshot();
        later.sold_epoch = SoldEpoch(6);
        promos.hear(vec![later], Instant::now());
        assert!(!sold_out(&promos));
        assert!(promos.ahead.lock().unwrap().is_empty());
    }

    #[test]
    fn their_age_counts_from_the_question() {
        let promos = promos();
        assert!(promos.heard().ms_ago().is_some());
        let before = Instant::now().checked_sub(Duration::from_secs(6)).unwrap();
        promos.hear(vec![snapshot()], before);
        promos.sold(told(1, 5, true));
        assert!(
            promos.heard().ms_ago().unwrap() >= 6_000,
            "news of one is not news of all"
        );
        assert_eq!(Heard::default().ms_ago(), None);
    }

    #[test]
    fn news_of_an_unknown_promo_is_asked_for_not_kept() {
        let promos = promos();
        let mut unknown = told(1, 9, true);
        unknown.promo = PromoId(8);
        promos.sold(unknown);
        assert!(promos.ahead.lock().unwrap().is_empty());
    }
}
