//! The sale itself: who is admitted, who gets an order, and who is refused where.

use futures_util::future::join_all;

use crate::house::{House, Plan, code, open_promo, promo};

/// 500 buyers, 50 units, a door of 5 for each unit: all ask before any buys.
#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_buyers_for_fifty_units() {
    let house = House::open(&Plan::new(&[open_promo(1, 50)]));
    let buyers = house.buyers(500).await;

    let asked = join_all(buyers.iter().map(|buyer| buyer.ask(1))).await;
    let tokens: Vec<_> = asked
        .iter()
        .map(|(status, body)| (*status == 200).then(|| body["data"]["token"].as_str().unwrap()))
        .collect();
    assert_eq!(
        tokens.iter().flatten().count(),
        250,
        "the door admits 5 for each unit"
    );
    for (status, body) in asked.iter().filter(|(status, _)| *status != 200) {
        assert_eq!((*status, code(body)), (409, 30007), "{body}");
    }
    assert_eq!(
        house.orders_sent_up().await,
        0.0,
        "refused requests never reach an order server"
    );

    let mut winners = 0;
    let sent = join_all(
        buyers
            .iter()
            .zip(&tokens)
            .filter_map(|(buyer, token)| token.map(|token| buyer.order(1, token, None))),
    )
    .await;
    for (status, body) in &sent {
        match status {
            202 => winners += 1,
            409 => assert_eq!(code(body), 30001, "{body}"),
            _ => panic!("{status} {body}"),
        }
    }
    assert_eq!(winners, 50, "exactly the stock is sold");

    // Those without a token, with a forged one, or too late, are refused by the edge alone.
    let sent_up = house.orders_sent_up().await;
    let forged = "eyJhbGciOiJIUzI1NiJ9.e30.AAAA";
    for (status, body) in join_all(buyers.iter().map(|buyer| buyer.order(1, forged, None))).await {
        assert_eq!((status, code(&body)), (403, 30005));
    }
    let late = join_all(
        buyers
            .iter()
            .zip(&tokens)
            .filter(|(_, token)| token.is_none())
            .map(|(buyer, _)| buyer.ask(1)),
    )
    .await;
    for (status, body) in late {
        assert_eq!(
            (status, code(&body)),
            (409, 30001),
            "sold out is said at the edge"
        );
    }
    assert_eq!(
        house.orders_sent_up().await,
        sent_up,
        "the upstream counter stays flat"
    );
    house.assert_clean();
}

/// Units come back when an order is cancelled, and the flag follows.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_is_sold_again() {
    let house = House::open(&Plan::new(&[open_promo(1, 1)]));
    let (first, second) = (house.buyer().await, house.buyer().await);
    let order = first.buy(1).await;
    first.until_state(&order, "written").await;
    crate::house::until("the edge to say sold out", || async {
        let (status, body) = second.ask(1).await;
        (status == 409 && code(&body) == 30001).then_some(())
    })
    .await;
    let (status, body) = first
        .post("/order/cancel", serde_json::json!({ "orderId": order }))
        .await;
    assert_eq!(status, 200, "{body}");
    let order = crate::house::until("the unit to come back", || async {
        let (status, body) = second.ask(1).await;
        if status != 200 {
            assert_eq!(code(&body), 30001, "{body}");
            return None;
        }
        let (status, body) = second
            .order(1, body["data"]["token"].as_str().unwrap(), None)
            .await;
        assert_eq!(status, 202, "{body}");
        Some(body["data"]["orderId"].as_str().unwrap().to_owned())
    })
    .await;
    second.pay(&order).await;
    house.assert_clean();
}

/// Nothing is sold before the start, and a cached item never says "upcoming" after it.
#[tokio::test(flavor = "multi_thread")]
async fn the_start_is_seen_at_once() {
    let house = House::open(&Plan::new(&[promo(1, 5, "starts_in = \"4s\"", "")]));
    let buyer = house.buyer().await;
    let (_, state) = buyer.get("/promo/state?id=1").await;
    let (starts, opened) = (&state["data"]["startsAt"], &state["data"]["serverTime"]);
    if opened.as_i64().unwrap() < starts.as_i64().unwrap() {
        let (status, body) = buyer.ask(1).await;
        assert!(code(&body) == 30003 || status == 200, "{status} {body}");
    }
    crate::house::until("the start", || async {
        let (_, state) = buyer.get("/promo/state?id=1").await;
        let (_, item) = buyer.get("/item/get?id=1").await;
        let live = state["data"]["phase"] == "live";
        assert!(!live || item["data"]["promoStatus"] == 2, "{item}");
        live.then_some(())
    })
    .await;
    buyer.buy(1).await;
    house.assert_clean();
}

/// Publishing twice changes nothing, and a sale that has begun is never reset.
#[tokio::test(flavor = "multi_thread")]
async fn publishing_twice_changes_nothing() {
    let house = House::open(&Plan::new(&[open_promo(1, 10)]));
    let buyer = house.buyer().await;
    let order = buyer.buy(1).await;
    for _ in 0..2 {
        let (status, body) = house
            .operate("/item/publishpromo?id=1", serde_json::json!({}))
            .await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["data"]["result"], "unchanged", "{body}");
    }
    let output = house.floodgate(&["publish", "1"]);
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("unchanged"),
        "{output:?}"
    );
    // Without a token, with a wrong one, by GET: refused, at the edge.
    let url = house.url("/item/publishpromo?id=1");
    assert_eq!(house.http.post(&url).send().await.unwrap().status(), 401);
    assert_eq!(
        house
            .http
            .post(&url)
            .bearer_auth("wrong")
            .send()
            .await
            .unwrap()
            .status(),
        403
    );
    assert_eq!(house.http.get(&url).send().await.unwrap().status(), 405);
    buyer.until_state(&order, "written").await;
    house.assert_clean();
}
