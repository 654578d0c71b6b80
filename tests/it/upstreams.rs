//! Order servers cut off and back: pages and items go on, orders get an honest 503, nothing is lost.

use serde_json::json;

use crate::house::{House, Plan, code, open_promo, until};
use crate::purchase::wait_for_orders;
use crate::relay::Relay;

async fn house_behind_relays() -> (House, [Relay; 2]) {
    let relays = [Relay::open().await, Relay::open().await];
    let plan = Plan::new(&[open_promo(1, 100)]).upstreams(&[relays[0].address, relays[1].address]);
    let house = House::open(&plan);
    for (relay, order_server) in relays.iter().zip(&house.orders) {
        relay.lead_to(*order_server);
    }
    wait_for_orders(&house).await;
    (house, relays)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cut_off_is_not_noticed_by_buyers() {
    let (house, relays) = house_behind_relays().await;
    let buyers = house.buyers(20).await;
    relays[0].cut();
    for buyer in &buyers[..10] {
        buyer.buy(1).await;
    }
    relays[0].mend();
    relays[1].cut();
    until("the first to be back", || async {
        let name = format!("upstream=\"{}\"", relays[0].address);
        (house
            .edge_metric("floodgate_edge_upstream_healthy", &[&name])
            .await
            == 1.0)
            .then_some(())
    })
    .await;
    for buyer in &buyers[10..] {
        buyer.buy(1).await;
    }
    house.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_both_cut_off_the_shop_window_stays_lit() {
    let (house, relays) = house_behind_relays().await;
    let buyer = house.buyer().await;
    let token = buyer.token(1).await;
    let (_, before) = buyer.get("/item/get?id=1").await;
    let (_, list) = buyer.get("/item/list").await;
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    for relay in &relays {
        relay.cut();
    }
    let response = buyer
        .request(
            "/order/create",
            json!({ "itemId": 1, "promoId": 1, "amount": 1, "token": token }),
        )
        .header("Idempotency-Key", "k")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    // The cached item has gone stale since, and is served all the same.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    for _ in 0..3 {
        let (status, item) = buyer.get("/item/get?id=1").await;
        assert_eq!(
            (status, &item["data"]["title"]),
            (200, &before["data"]["title"])
        );
        assert_eq!(buyer.get("/item/list").await.0, 200);
        assert_eq!(buyer.get("/promo/state?id=1").await.0, 200);
    }
    let page = house.http.get(house.url("/")).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let (status, body) = buyer.get("/order/list").await;
    assert_eq!((status, code(&body)), (503, 30008), "{body}");
    for relay in &relays {
        relay.mend();
    }
    // Recovery needs no hand, and the same key finds or makes the one order.
    until("the order to pass", || async {
        let (status, body) = buyer.order(1, &token, Some("k")).await;
        assert!(status == 202 || status == 503, "{status} {body}");
        (status == 202).then_some(())
    })
    .await;
    house.assert_clean();
}
