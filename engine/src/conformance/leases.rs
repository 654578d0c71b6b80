//! Leases: one holder at a time, and a number that tells holders apart.

use std::time::Duration;

use super::Home;
use super::sale::Sale;
use crate::{Fence, SharedEngine};

const LEASE: &str = "sweeper";
/// Long enough that no slow machine ends it in mid-case.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(500);
const PAST_SHORT_MS: u64 = 600;

async fn ask(engine: &SharedEngine, holder: &str, ttl: Duration) -> Option<Fence> {
    engine.lease(LEASE, holder, ttl).await.unwrap()
}

/// One holds it, and renews it under the number he has; the others get nothing until he gives it back.
pub async fn a_lease_has_one_holder<H: Home>() {
    let sale = Sale::<H>::none().await;
    let engine = sale.engine.clone();
    let first = ask(&engine, "a", LONG).await.unwrap();
    assert_eq!(ask(&engine, "b", LONG).await, None);
    assert_eq!(ask(&engine, "a", LONG).await, Some(first));
    // Who does not hold it gives nothing back.
    engine.give_back(LEASE, "b").await.unwrap();
    assert_eq!(ask(&engine, "b", LONG).await, None);
    engine.give_back(LEASE, "a").await.unwrap();
    engine.give_back(LEASE, "a").await.unwrap();
    let second = ask(&engine, "b", LONG).await.unwrap();
    assert!(second > first, "{second:?} after {first:?}");
    assert_eq!(ask(&engine, "a", LONG).await, None);
    // Another lease is another's.
    let other = engine.lease("other", "a", LONG).await.unwrap();
    assert!(other.is_some());
}

/// It ends by the engine's clock; a renewal counts from the moment it is asked for, be it for longer or
/// for less.
pub async fn a_lease_ends_by_the_engines_clock<H: Home>() {
    let sale = Sale::<H>::none().await;
    let engine = &sale.engine;
    let first = ask(engine, "a", LONG).await.unwrap();
    sale.home.advance_ms(PAST_SHORT_MS).await;
    assert_eq!(ask(engine, "b", LONG).await, None);
    assert_eq!(ask(engine, "a", SHORT).await, Some(first));
    sale.home.advance_ms(PAST_SHORT_MS).await;
    let second = ask(engine, "b", LONG).await.unwrap();
    assert!(second > first, "{second:?} after {first:?}");
    assert_eq!(ask(engine, "a", LONG).await, None);
}

/// Of many who ask at once one gets it.
pub async fn of_many_who_ask_one_gets_it<H: Home>() {
    let sale = Sale::<H>::none().await;
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..16 {
        let engine = sale.engine.clone();
        asked.spawn(async move { ask(&engine, &format!("holder {number}"), LONG).await });
    }
    let granted = asked.join_all().await.into_iter().flatten().count();
    assert_eq!(granted, 1);
}

/// No number comes twice or falls, across a crash too, and none is below the clock.
pub async fn fences_never_fall<H: Home>() {
    let mut sale = Sale::<H>::none().await;
    let mut last = Fence::default();
    for round in 0..3 {
        for holder in ["a", "b"] {
            let now = sale.now().await;
            let holder = format!("{holder} {round}");
            let fence = ask(&sale.engine, &holder, SHORT).await.unwrap();
            assert!(fence > last, "{fence:?} after {last:?}");
            assert!(fence.0 >= now.0, "{fence:?} at {now:?}");
            last = fence;
            sale.engine.give_back(LEASE, &holder).await.unwrap();
        }
        let held = ask(&sale.engine, &format!("c {round}"), SHORT).await;
        last = held.unwrap();
        sale = sale.crash().await;
        // A home may keep it for one that is gone, but not for long.
        sale.home.advance_ms(PAST_SHORT_MS).await;
    }
}
