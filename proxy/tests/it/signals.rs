//! What the engine tells every edge at once: an item that was changed is not served as it was, and a promo
//! that sold out is sold out here too.

use engine::{Publish, Signal};
use lua_free_rules::units::{Generation, ItemId, Millis, PromoId, SoldEpoch};
use reqwest::StatusCode;
use serde_json::Value;

use crate::harness::{ITEM, PROMO, Plan, Shop, data, refusal, until};
use crate::peer::{Mode, Peer};

const PATH: &str = "/item/get?id=3";
const CHANGED: Signal = Signal::Item(ItemId(ITEM));

/// A shop whose items stay fresh for so long that only a signal makes it ask again.
async fn shop(peer: &Peer) -> Shop {
    let mut plan = Plan::new(&[peer]);
    plan.edge.item_cache.fresh = Millis::seconds(3_600);
    plan.start().await
}

async fn title(shop: &Shop, path: &str) -> Value {
    let answer = shop.get(path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let data = data(answer).await;
    let item = if data.is_array() { &data[0] } else { &data };
    item["title"].clone()
}

/// Tells the edge something, and waits until it has heard so many of that kind.
async fn tell(shop: &Shop, signal: Signal, kind: &str, heard: usize) {
    shop.engine.tell(signal).await.unwrap();
    let line = format!("floodgate_edge_signals_total{{outcome=\"{kind}\"}} {heard}\n");
    until(async || shop.metrics().await.contains(&line)).await;
}

#[tokio::test]
async fn an_item_that_was_changed_is_fetched_before_it_is_served() {
    let peer = Peer::start().await;
    let shop = shop(&peer).await;
    for path in [PATH, "/item/list"] {
        assert_eq!(title(&shop, path).await, "Sneakers");
    }
    peer.rename("Boots");
    tell(&shop, Signal::Item(ItemId(9)), "item", 1).await;
    assert_eq!(
        title(&shop, PATH).await,
        "Sneakers",
        "another item's change"
    );
    tell(&shop, CHANGED, "item", 2).await;
    for path in [PATH, "/item/list", PATH, "/item/list"] {
        assert_eq!(title(&shop, path).await, "Boots", "{path}");
    }
    assert_eq!((peer.count(PATH), peer.count("/item/list")), (2, 2));
}

#[tokio::test]
async fn those_who_wait_for_a_changed_item_ask_once() {
    let peer = Peer::start().await;
    let shop = shop(&peer).await;
    title(&shop, PATH).await;
    peer.arrived().await;
    tell(&shop, CHANGED, "item", 1).await;
    peer.rename("Boots");
    peer.set(Mode::Hold);
    let asked: Vec<_> = (0..30)
        .map(|_| tokio::spawn(shop.get(PATH).send()))
        .collect();
    peer.arrived().await;
    peer.release(1);
    for answer in asked {
        assert_eq!(data(answer.await.unwrap().unwrap()).await["title"], "Boots");
    }
    assert_eq!(peer.count(PATH), 2);
}

#[tokio::test]
async fn a_fetch_that_was_under_way_does_not_bring_the_old_item_back() {
    let peer = Peer::start().await;
    let shop = shop(&peer).await;
    // The first fetch of all.
    peer.set(Mode::Hold);
    let first = tokio::spawn(shop.get(PATH).send());
    peer.arrived().await;
    peer.rename("Boots");
    tell(&shop, CHANGED, "item", 1).await;
    peer.set(Mode::Answer);
    peer.release(1);
    assert_eq!(data(first.await.unwrap().unwrap()).await["title"], "Boots");
    // A refresh.
    tell(&shop, Signal::Missed, "missed", 1).await;
    peer.set(Mode::Hold);
    assert_eq!(title(&shop, PATH).await, "Boots");
    until(async || peer.count(PATH) == 3).await;
    peer.rename("Sandals");
    tell(&shop, CHANGED, "item", 2).await;
    peer.set(Mode::Answer);
    assert_eq!(title(&shop, PATH).await, "Sandals");
    peer.release(1);
    for _ in 0..100 {
        assert_eq!(title(&shop, PATH).await, "Sandals");
    }
}

#[tokio::test]
async fn a_changed_item_that_nobody_can_give_is_served_as_it_was() {
    let peer = Peer::start().await;
    let shop = shop(&peer).await;
    title(&shop, PATH).await;
    peer.set(Mode::Fail);
    tell(&shop, CHANGED, "item", 1).await;
    for _ in 0..5 {
        assert_eq!(title(&shop, PATH).await, "Sneakers");
    }
    assert_eq!(peer.count(PATH), 2, "it is not asked for by everyone");
    peer.set(Mode::Answer);
    peer.rename("Boots");
    tell(&shop, CHANGED, "item", 2).await;
    assert_eq!(title(&shop, PATH).await, "Boots");
}

#[tokio::test]
async fn after_signals_were_missed_everything_is_refreshed() {
    let peer = Peer::start().await;
    let shop = shop(&peer).await;
    for path in [PATH, "/item/list"] {
        title(&shop, path).await;
    }
    peer.rename("Boots");
    tell(&shop, Signal::Missed, "missed", 1).await;
    for path in [PATH, "/item/list"] {
        until(async || title(&shop, path).await == "Boots").await;
    }
}

#[tokio::test]
async fn an_item_that_was_missing_is_there_once_it_is_told() {
    let peer = Peer::start().await;
    let shop = shop(&peer).await;
    let path = "/item/get?id=404";
    for _ in 0..3 {
        assert_eq!(refusal(shop.get(path)).await.1, 10003);
    }
    assert_eq!(peer.count(path), 1);
    tell(&shop, Signal::Item(ItemId(404)), "item", 1).await;
    assert_eq!(refusal(shop.get(path)).await.1, 10003);
    assert_eq!(peer.count(path), 2);
}

#[tokio::test]
async fn sold_out_is_believed_under_a_newer_epoch_only() {
    let peer = Peer::start().await;
    let shop = shop(&peer).await;
    let sold_out = async || {
        let state = shop.get("/promo/state?id=7").send().await.unwrap();
        data(state).await["soldOut"].as_bool().unwrap()
    };
    let told = |epoch, sold_out| Signal::Sold {
        promo: PromoId(PROMO),
        generation: Generation(1),
        epoch: SoldEpoch(epoch),
        sold_out,
    };
    tell(&shop, told(0, true), "sold", 1).await;
    assert!(!sold_out().await);
    tell(&shop, told(3, true), "sold", 2).await;
    assert!(sold_out().await);
    tell(&shop, told(2, false), "sold", 3).await;
    assert!(sold_out().await);
    tell(&shop, told(4, false), "sold", 4).await;
    assert!(!sold_out().await);
}

#[tokio::test]
async fn the_engine_tells_of_a_promo_it_publishes() {
    let peer = Peer::start().await;
    let shop = shop(&peer).await;
    let (_, promos) = shop.engine.promos().await.unwrap();
    let publish = Publish {
        promo: PromoId(8),
        terms: promos[0].terms.clone(),
        digest: "second".to_owned(),
        only_first: true,
    };
    shop.engine.publish(publish).await.unwrap();
    let line = "floodgate_edge_signals_total{outcome=\"promo\"} 1\n";
    until(async || shop.metrics().await.contains(line)).await;
    until(async || shop.get("/promo/state?id=8").send().await.unwrap().status() == StatusCode::OK)
        .await;
}
