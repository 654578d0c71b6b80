//! Operators: who may publish, what publishing twice does, what the log and the audit show.

use lua_free_rules::config::Start;
use lua_free_rules::units::{Millis, PromoId};
use serde_json::{Value, json};

use crate::harness::{OPERATOR, Shop, proposal};

#[tokio::test]
async fn publishing_is_an_operators_and_happens_once() {
    let mut later = proposal();
    later.id = PromoId(8);
    later.start = Start::In(Millis::seconds(600));
    let mut huge = proposal();
    (huge.id, huge.stock) = (PromoId(9), 101);
    let shop = Shop::with(vec![proposal(), later, huge]).await;
    let publish = async |id: i64, bearer: &str| {
        shop.post(&format!("/item/publishpromo?id={id}"), bearer, &json!({}))
            .await
    };
    let nobody = shop
        .send(shop.request("POST", "/item/publishpromo?id=7"))
        .await;
    assert_eq!((nobody.status, nobody.code()), (401, 20003));
    assert_eq!(publish(7, "guessed").await.code(), 20004);
    let first = publish(7, OPERATOR).await;
    assert_eq!(
        (&first.data()["result"], &first.data()["promo"]["stock"]),
        (&json!("new"), &json!(5))
    );
    assert_eq!(publish(7, OPERATOR).await.data()["result"], "unchanged");
    assert_eq!(
        publish(8, OPERATOR).await.data()["promo"]["phase"],
        "upcoming"
    );
    assert_eq!(publish(9, OPERATOR).await.code(), 10001);
    assert_eq!(publish(99, OPERATOR).await.code(), 10003);
    let log = shop.get("/admin/log", OPERATOR).await;
    let lines: Vec<(&str, &str)> = log
        .data()
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|call| {
            (
                call["what"].as_str().unwrap(),
                call["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            ("item/publishpromo?id=7", "ok"),
            ("item/publishpromo?id=7", "ok"),
            ("item/publishpromo?id=8", "ok"),
            ("item/publishpromo?id=9", "bad_parameter"),
            ("item/publishpromo?id=99", "not_found"),
            ("admin/log", "begun"),
        ]
    );
    assert!(!log.body.to_string().contains(OPERATOR));
    shop.stop().await;
}

#[tokio::test]
async fn a_sale_that_has_begun_is_not_reset() {
    let mut changed = proposal();
    changed.stock = 50;
    let shop = Shop::with(vec![changed]).await;
    shop.publish(&proposal()).await;
    let answer = shop
        .post("/item/publishpromo?id=7", OPERATOR, &json!({}))
        .await;
    assert_eq!((answer.status, answer.code()), (403, 20004));
    let promos = shop.get("/admin/promos", OPERATOR).await;
    assert_eq!(promos.data()["promos"][0]["stock"], 5);
    shop.stop().await;
}

#[tokio::test]
async fn a_promo_is_steered_and_items_are_kept() {
    let shop = Shop::open().await;
    let steer = async |what: &str, body: Value| {
        shop.post(&format!("/admin/promo/{what}"), OPERATOR, &body)
            .await
    };
    assert_eq!(
        steer("pause", json!({ "promoId": 7 })).await.data()["phase"],
        "paused"
    );
    assert_eq!(
        steer("resume", json!({ "promoId": 7 })).await.data()["phase"],
        "live"
    );
    let more = steer("stock", json!({ "promoId": 7, "amount": 3 })).await;
    assert_eq!(
        (&more.data()["available"], &more.data()["stock"]),
        (&json!(8), &json!(8))
    );
    assert_eq!(
        steer("stock", json!({ "promoId": 7, "amount": 93 }))
            .await
            .code(),
        10001
    );
    assert_eq!(steer("pause", json!({ "promoId": 99 })).await.code(), 10003);
    assert_eq!(steer("close", json!({})).await.code(), 10001);

    let item = json!({ "title": "Hat", "price": "12.50", "stock": 9 });
    let made = shop.post("/item/create", OPERATOR, &item).await;
    let id = made.data()["id"].as_i64().unwrap();
    let update = json!({ "id": id, "price": "13.00" });
    let updated = shop.post("/item/update", OPERATOR, &update).await;
    assert_eq!(
        (&updated.data()["price"], &updated.data()["title"]),
        (&json!("13.00"), &json!("Hat"))
    );
    let shown = shop.get(&format!("/item/get?id={id}"), "").await;
    assert_eq!(
        (&shown.data()["stock"], &shown.data()["promoStatus"]),
        (&json!(9), &json!(0))
    );
    let backlog = &shop.get("/admin/promos", OPERATOR).await;
    assert_eq!(backlog.data()["backlog"]["deadLetters"], 0);
    shop.stop().await;
}

#[tokio::test]
async fn the_audit_finds_what_was_tampered_with() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    let id = shop.order(&ada, 1, 2).await;
    assert_eq!(shop.audit().await["clean"], true);
    shop.tamper("UPDATE orders SET amount = 1").await;
    let report = shop.audit().await;
    assert_eq!(report["clean"], false);
    let faults = report["promos"][0]["faults"].to_string();
    assert!(
        faults.contains(&format!("order {id} has 1 units")),
        "{faults}"
    );
    shop.stop().await;
}
