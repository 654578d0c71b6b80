//! Database or engine is away: what needs it says when to come back, the rest goes on, and nobody
//! has to help afterwards.

use serde_json::json;

use crate::harness::{OPERATOR, Shop};

#[tokio::test]
async fn orders_are_accepted_while_the_database_is_held() {
    let shop = Shop::open().await;
    let (ada, eve) = (shop.buyer("10001").await, shop.buyer("10002").await);
    let paid = shop.order(&eve, 2, 1).await;
    let token = shop.enter(&ada, 1).await;
    // Somebody else holds the write lock.
    let url = format!("sqlite:{}", shop.dir.path().join("ledger.db").display());
    let other = sqlx::SqlitePool::connect(&url).await.unwrap();
    let hold = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let made = shop.create(&ada, &token, "key", 1).await;
    assert_eq!(made.status, 202);
    let id = made.data()["orderId"].as_str().unwrap().to_owned();
    shop.wait_for(&ada, &id, "reserved").await;
    let order = json!({ "orderId": id });
    for path in ["/order/pay", "/order/cancel"] {
        let answer = shop.post(path, &ada.token, &order).await;
        assert_eq!((answer.status, answer.code()), (409, 30010), "{path}");
        assert_eq!(answer.header("retry-after"), "1");
    }
    let pay = shop
        .post("/order/pay", &eve.token, &json!({ "orderId": paid }))
        .await;
    assert_eq!((pay.status, pay.code()), (503, 30008));
    assert_eq!(pay.header("retry-after"), "1");
    assert_eq!(shop.get("/admin/promos", OPERATOR).await.status, 200);
    let late = shop.audit().await;
    assert!(
        late["promos"][0]["faults"].to_string().contains("late: "),
        "{late}"
    );

    hold.rollback().await.unwrap();
    other.close().await;
    shop.wait_for(&ada, &id, "written").await;
    let report = shop.audit().await;
    assert_eq!(report["clean"], true, "{report}");
    shop.stop().await;
}

#[tokio::test]
async fn the_admin_listener_tells_how_it_is() {
    let shop = Shop::open().await;
    shop.get("/item/get?id=99", "").await;
    let ask = async |path: &str| {
        let url = format!("http://{}{path}", shop.running.admin);
        let response = reqwest::get(url).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(ask("/live").await.0, 200);
    let (status, ready) = ask("/ready").await;
    assert_eq!(status, 200, "{ready}");
    assert!(ready.contains("\"ready\":true"));
    let (_, metrics) = ask("/metrics").await;
    let line = r#"floodgate_backend_requests_total{outcome="not_found",route="/item/get"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
    assert_eq!(ask("/else").await.0, 404);
    shop.stop().await;
}

#[tokio::test]
async fn without_the_engine_items_are_served_as_last_known() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    let token = shop.enter(&ada, 1).await;
    let before = shop.get("/item/get?id=3", "").await;
    shop.home.close().await;
    let after = shop.get("/item/get?id=3", "").await;
    assert_eq!(after.data(), before.data());
    let refused = [
        shop.create(&ada, &token, "key", 1).await,
        shop.get("/order/get?id=7-1-1", &ada.token).await,
        shop.get("/user/get", &ada.token).await,
    ];
    for answer in refused {
        assert_eq!((answer.status, answer.code()), (503, 30008));
        assert_eq!(answer.header("retry-after"), "1");
    }
    let ready = reqwest::get(format!("http://{}/ready", shop.running.admin))
        .await
        .unwrap();
    assert_eq!(ready.status(), 503);
    shop.stop().await;
}
