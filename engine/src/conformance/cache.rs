//! What order servers remember together. A home may forget early, never late.

use std::time::{Duration, Instant};

use super::Home;
use super::sale::Sale;
use crate::FORGOTTEN_FOR;

const TTL: Duration = Duration::from_secs(60);

/// What comes back is what was remembered, under its own key, whatever its bytes.
pub async fn what_is_recalled_was_remembered<H: Home>() {
    let sale = Sale::<H>::none().await;
    let engine = &sale.engine;
    assert_eq!(engine.recall("never").await.unwrap(), None);
    let values: [(&str, &[u8]); 3] = [("a", b"one"), ("b", b""), ("c d:{e}", &[0, 255, 10, 13])];
    for (key, value) in values {
        engine.remember(key, value, TTL).await.unwrap();
    }
    for (key, value) in values {
        if let Some(recalled) = engine.recall(key).await.unwrap() {
            assert_eq!(recalled, value, "{key}");
        }
    }
    assert_eq!(engine.recall("never").await.unwrap(), None);
}

/// What was forgotten does not come back, not even by one who read it before; later a new copy may.
pub async fn what_was_forgotten_does_not_come_back<H: Home>() {
    let sale = Sale::<H>::none().await;
    let engine = &sale.engine;
    engine.remember("a", b"old", TTL).await.unwrap();
    // Also where nothing was remembered before.
    for key in ["a", "b"] {
        let began = Instant::now();
        engine.forget(key).await.unwrap();
        assert_eq!(engine.recall(key).await.unwrap(), None);
        engine.remember(key, b"old", TTL).await.unwrap();
        let recalled = engine.recall(key).await.unwrap();
        // A machine that stood still for so long has proved nothing.
        if began.elapsed() < FORGOTTEN_FOR {
            assert_eq!(recalled, None, "{key}");
        }
    }
    engine.forget("a").await.unwrap();
    let wait = FORGOTTEN_FOR + Duration::from_millis(100);
    let wait_ms = wait.as_millis().try_into().unwrap();
    sale.home.advance_ms(wait_ms).await;
    engine.remember("a", b"new", TTL).await.unwrap();
    if let Some(recalled) = engine.recall("a").await.unwrap() {
        assert_eq!(recalled, b"new");
    }
}

/// A copy ends after its time.
pub async fn a_copy_ends_after_its_time<H: Home>() {
    let sale = Sale::<H>::none().await;
    let engine = &sale.engine;
    engine
        .remember("a", b"one", Duration::from_millis(300))
        .await
        .unwrap();
    sale.home.advance_ms(400).await;
    assert_eq!(engine.recall("a").await.unwrap(), None);
}
