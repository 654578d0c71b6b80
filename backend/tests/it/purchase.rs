//! A purchase from registration to the paid order, and everything that is asked twice.

use std::time::Duration;

use floodgate_backend::audit;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::harness::{GRACE, OPERATOR, Shop, ledger_in, proposal, until};

#[tokio::test]
async fn from_registration_to_a_paid_order() {
    let shop = Shop::open().await;
    let ada = shop.buyer("+4915112345678").await;
    let user = shop.get("/user/get", &ada.token).await;
    assert_eq!(user.data()["tel"], "+49********678");
    let item = shop.get("/item/get?id=3", "").await;
    assert_eq!(
        (&item.data()["promoStatus"], &item.data()["promoPrice"]),
        (&json!(2), &json!("99.00"))
    );
    assert_eq!(shop.get("/item/list", "").await.data()[0]["promoId"], 7);

    let token = shop.enter(&ada, 1).await;
    let made = shop.create(&ada, &token, "key", 2).await;
    assert_eq!(
        (made.status, made.header("floodgate-sold-out")),
        (202, "7;1;0;0")
    );
    let id = made.data()["orderId"].as_str().unwrap();
    let written = shop.wait_for(&ada, id, "written").await;
    assert_eq!(
        (&written["total"], &written["unitPrice"]),
        (&json!("198.00"), &json!("99.00"))
    );
    let time_to_pay = written["payBy"].as_i64().unwrap() - written["createdAt"].as_i64().unwrap();
    assert!(time_to_pay >= 900_000, "it runs from the write");

    for _ in 0..2 {
        let paid = shop
            .post("/order/pay", &ada.token, &json!({ "orderId": id }))
            .await;
        assert_eq!(paid.data()["state"], "paid");
    }
    let cancelled = shop
        .post("/order/cancel", &ada.token, &json!({ "orderId": id }))
        .await;
    assert_eq!((cancelled.status, cancelled.code()), (409, 30010));
    let list = shop.get("/order/list", &ada.token).await;
    assert_eq!(list.data().as_array().unwrap().len(), 1);
    let report = shop.audit().await;
    assert_eq!(report["clean"], true, "{report}");
    assert_eq!(report["promos"][0]["books"]["paid"], 2);
    // The copy that the first look left behind is over soon.
    until("the sale to be shown", async || {
        shop.get("/item/get?id=3", "").await.data()["sales"] == 2
    })
    .await;
    shop.stop().await;
}

#[tokio::test]
async fn asked_twice_is_ordered_once() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    let token = shop.enter(&ada, 1).await;
    let first = shop.create(&ada, &token, "key", 1).await;
    let again = shop.create(&ada, &token, "key", 1).await;
    let other_key = shop.create(&ada, &token, "other", 1).await;
    assert_eq!([first.status, again.status, other_key.status], [202; 3]);
    assert_eq!(first.data(), again.data());
    assert_eq!(first.data(), other_key.data());
    let other_body = shop.create(&ada, &token, "key", 2).await;
    assert_eq!((other_body.status, other_body.code()), (422, 30011));
    // Also after the sale was closed.
    let promo = json!({ "promoId": 7 });
    let closed = shop.post("/admin/promo/close", OPERATOR, &promo).await;
    assert_eq!(closed.data()["phase"], "closed");
    assert_eq!(
        shop.create(&ada, &token, "key", 1).await.data(),
        first.data()
    );
    shop.stop().await;
}

#[tokio::test]
async fn sold_out_is_told_to_the_edges() {
    let shop = Shop::open().await;
    let (ada, eve, bob) = (
        shop.buyer("10001").await,
        shop.buyer("10002").await,
        shop.buyer("10003").await,
    );
    let bobs = shop.enter(&bob, 9).await;
    for (buyer, jti) in [(&ada, 1), (&eve, 2)] {
        shop.order(buyer, jti, 2).await;
    }
    let too_many = shop.create(&bob, &bobs, "two", 2).await;
    assert_eq!((too_many.status, too_many.code()), (400, 10001));
    let carol = shop.buyer("10004").await;
    let carols = shop.enter(&carol, 4).await;
    let last = shop.create(&bob, &bobs, "one", 1).await;
    assert_eq!(
        (last.status, last.header("floodgate-sold-out")),
        (202, "7;1;1;1")
    );
    let none = shop.create(&carol, &carols, "one", 1).await;
    assert_eq!((none.status, none.code()), (409, 30001));
    assert_eq!(none.header("floodgate-sold-out"), "7;1;1;1");
    assert_eq!(shop.audit().await["clean"], true);
    shop.stop().await;
}

#[tokio::test]
async fn an_order_is_its_buyers_own() {
    let shop = Shop::open().await;
    let (ada, eve) = (shop.buyer("10001").await, shop.buyer("10002").await);
    let id = shop.order(&ada, 1, 1).await;
    let order = json!({ "orderId": id });
    let seen = [
        shop.get(&format!("/order/get?id={id}"), &eve.token).await,
        shop.post("/order/pay", &eve.token, &order).await,
        shop.post("/order/cancel", &eve.token, &order).await,
    ];
    for answer in seen {
        assert_eq!((answer.status, answer.code()), (404, 10003));
    }
    // Nor is an access token good for another buyer.
    let token = shop.enter(&ada, 2).await;
    let answer = shop.create(&eve, &token, "key", 1).await;
    assert_eq!((answer.status, answer.code()), (403, 30005));
    shop.stop().await;
}

#[tokio::test]
async fn sign_out_ends_everything() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    let token = shop.enter(&ada, 1).await;
    let request = shop.request("POST", "/user/logout");
    let cookie = format!("floodgate_session={}", ada.token);
    let out = shop.send(request.header("Cookie", cookie)).await;
    assert!(
        out.header("set-cookie")
            .starts_with("floodgate_session=; HttpOnly; SameSite=Lax")
    );
    let order = shop.create(&ada, &token, "key", 1).await;
    assert_eq!((order.status, order.code()), (401, 20003));
    for path in ["/user/get", "/order/list", "/order/get?id=7-1-1"] {
        assert_eq!(shop.get(path, &ada.token).await.code(), 20003, "{path}");
    }
    assert_eq!(
        shop.post("/user/logout", &ada.token, &json!({}))
            .await
            .status,
        200
    );
    shop.stop().await;
}

#[tokio::test]
async fn numbers_codes_and_passwords_are_checked() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    let login = async |tel: &str, password: &str| {
        let body = json!({ "tel": tel, "password": password });
        let answer = shop.post("/user/login", "", &body).await;
        (answer.status, answer.code())
    };
    assert_eq!(login(&ada.tel, "wrong horse").await, (401, 20002));
    assert_eq!(login("99999", "correct horse").await, (401, 20002));
    let right = json!({ "tel": ada.tel, "password": "correct horse" });
    let right = shop.post("/user/login", "", &right).await;
    let cookie = right.header("set-cookie");
    assert!(
        cookie.contains("; HttpOnly; SameSite=Lax; Path=/; Max-Age=43200"),
        "{cookie}"
    );
    let register = async |tel: &str, code: &str| {
        let body = json!({ "tel": tel, "otpCode": code, "name": "Eve", "password": "12345678" });
        shop.post("/user/register", "", &body).await
    };
    assert_eq!(register("10002", "123456").await.code(), 20005);
    let asked = shop
        .post("/user/getotp", "", &json!({ "tel": "10001" }))
        .await;
    let taken = register("10001", asked.data()["otp"].as_str().unwrap()).await;
    assert_eq!((taken.status, taken.code()), (409, 20006));
    for asked in 0..6 {
        let answer = shop
            .post("/user/getotp", "", &json!({ "tel": "10005" }))
            .await;
        assert_eq!(answer.status, if asked < 5 { 200 } else { 429 });
        assert_eq!(answer.header("retry-after").is_empty(), asked < 5);
    }
    shop.stop().await;
}

#[tokio::test]
async fn an_order_that_is_not_paid_expires_and_its_unit_comes_back() {
    let mut quick = proposal();
    quick.pay_within = lua_free_rules::units::Millis::new(1);
    let shop = Shop::with(Vec::new()).await;
    shop.publish(&quick).await;
    let ada = shop.buyer("10001").await;
    let token = shop.enter(&ada, 1).await;
    let made = shop.create(&ada, &token, "key", 2).await;
    let id = made.data()["orderId"].as_str().unwrap();
    shop.wait_for(&ada, id, "expired").await;
    let paid = shop
        .post("/order/pay", &ada.token, &json!({ "orderId": id }))
        .await;
    assert_eq!((paid.status, paid.code()), (409, 30010));
    assert_eq!(paid.header("retry-after"), "");
    loop {
        let promo = shop.engine.promos().await.unwrap().1.remove(0);
        if promo.available == 5 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let report = shop.audit().await;
    assert_eq!(report["clean"], true, "{report}");
    shop.stop().await;
}

#[tokio::test]
async fn stopping_writes_what_was_accepted() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    let token = shop.enter(&ada, 1).await;
    // Connections that are idle, or never said anything, do not hold it up.
    let mut silent = tokio::net::TcpStream::connect(shop.running.listen[1])
        .await
        .unwrap();
    let made = shop.create(&ada, &token, "key", 1).await;
    let id = made.data()["orderId"].as_str().unwrap().parse().unwrap();
    let began = std::time::Instant::now();
    let (dir, engine) = shop.stop().await;
    assert!(
        began.elapsed() < GRACE,
        "it did not wait for the grace limit"
    );
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let ledger = ledger_in(dir.path()).await;
    assert!(ledger.order(id).await.unwrap().is_some());
    let report = audit(engine.as_ref(), &ledger, None, Duration::ZERO)
        .await
        .unwrap();
    assert!(report.clean, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_crowd_as_many_buy_as_there_are_units() {
    let shop = std::sync::Arc::new(Shop::open().await);
    let mut crowd = tokio::task::JoinSet::new();
    for id in 1..=25 {
        let shop = shop.clone();
        crowd.spawn(async move {
            let buyer = shop.stranger(id).await;
            let token = shop.enter(&buyer, u8::try_from(id).unwrap()).await;
            // Each asks twice at once.
            let (first, second) = tokio::join!(
                shop.create(&buyer, &token, "key", 1),
                shop.create(&buyer, &token, "key", 1),
            );
            if first.status == 202 {
                assert_eq!(first.data(), second.data());
            } else {
                assert_eq!((first.code(), second.code()), (30001, 30001));
            }
            first.status
        });
    }
    let statuses = crowd.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 5);
    let report = shop.audit().await;
    assert_eq!(report["clean"], true, "{report}");
    assert_eq!(report["promos"][0]["books"]["written"], 5);
    std::sync::Arc::into_inner(shop).unwrap().stop().await;
}
