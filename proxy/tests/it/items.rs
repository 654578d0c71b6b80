//! Items from the edge's memory: one refresh for many, stale rather than nothing, and a promo state that
//! follows the clock.

use lua_free_rules::units::Millis;
use reqwest::StatusCode;

use crate::harness::{Plan, data, refusal, until};
use crate::peer::{Mode, Peer};

const PATH: &str = "/item/get?id=3";

#[tokio::test]
async fn many_who_miss_at_once_ask_the_order_server_once() {
    let peer = Peer::start().await;
    let shop = Plan::new(&[&peer]).start().await;
    peer.set(Mode::Hold);
    let asked: Vec<_> = (0..50)
        .map(|_| tokio::spawn(shop.get(PATH).send()))
        .collect();
    peer.arrived().await;
    peer.release(1);
    for answer in asked {
        assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(peer.count(PATH), 1);
}

#[tokio::test]
async fn a_stale_item_is_served_while_its_refresh_runs_or_fails() {
    let peer = Peer::start().await;
    let mut plan = Plan::new(&[&peer]);
    plan.edge.item_cache.fresh = Millis::new(0);
    let shop = plan.start().await;
    let title = async || data(shop.get(PATH).send().await.unwrap()).await["title"].clone();
    assert_eq!(title().await, "Sneakers");
    peer.arrived().await;
    peer.set(Mode::Hold);
    assert_eq!(title().await, "Sneakers");
    peer.arrived().await;
    for _ in 0..20 {
        assert_eq!(title().await, "Sneakers");
    }
    assert_eq!(peer.count(PATH), 2, "one refresh at a time");
    let metrics = shop.metrics().await;
    for counted in ["{outcome=\"miss\"} 1", "{outcome=\"stale\"} 21"] {
        let line = format!("floodgate_edge_item_lookups_total{counted}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    peer.set(Mode::Fail);
    peer.release(1);
    until(async || {
        assert_eq!(title().await, "Sneakers");
        peer.count(PATH) > 3
    })
    .await;
    peer.stop().await;
    assert_eq!(title().await, "Sneakers");
}

#[tokio::test]
async fn what_does_not_exist_is_remembered_for_a_moment() {
    let peer = Peer::start().await;
    let mut plan = Plan::new(&[&peer]);
    plan.edge.item_cache.fresh = Millis::seconds(600);
    let shop = plan.start().await;
    for _ in 0..10 {
        let answer = refusal(shop.get("/item/get?id=404")).await;
        assert_eq!(answer, (StatusCode::NOT_FOUND, 10003));
    }
    assert_eq!(peer.count("/item/get?id=404"), 1);
}

#[tokio::test]
async fn nothing_kept_and_nobody_to_ask_is_503() {
    let shop = Plan::new(&[]).start().await;
    let answer = shop.get(PATH).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "1");
}

#[tokio::test]
async fn the_promo_state_of_a_kept_item_follows_the_clock() {
    let peer = Peer::start().await;
    let mut plan = Plan::new(&[&peer]);
    plan.starts_in_ms = 10_000;
    plan.edge.item_cache.fresh = Millis::seconds(600);
    let shop = plan.start().await;
    let status = async |path| {
        let data = data(shop.get(path).send().await.unwrap()).await;
        let item = if data.is_array() { &data[0] } else { &data };
        item["promoStatus"].as_i64().unwrap()
    };
    let phase = async || {
        let state = shop.get("/promo/state?id=7").send().await.unwrap();
        data(state).await["phase"].clone()
    };
    assert_eq!((status(PATH).await, phase().await), (1, "upcoming".into()));
    shop.clock.advance_ms(9_999);
    assert_eq!(status("/item/list").await, 1);
    shop.clock.advance_ms(1);
    assert_eq!((status(PATH).await, phase().await), (2, "live".into()));
    assert_eq!(status("/item/list").await, 2);
    shop.clock.advance_ms(3_600_000);
    assert_eq!((status(PATH).await, phase().await), (4, "ended".into()));
    assert_eq!(peer.count(PATH), 1);
    assert_eq!(refusal(shop.get("/promo/state?id=8")).await.1, 10003);
}
