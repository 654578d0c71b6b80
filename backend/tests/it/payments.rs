//! Webhooks: signed, told twice, too early, too late.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::{Answer, Shop, WEBHOOK};

async fn tell(shop: &Shop, secret: &str, notice: &Value) -> Answer {
    let body = notice.to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let digest: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let request = shop
        .request("POST", "/payment/webhook/demo")
        .header("floodgate-signature", format!("sha256={digest}"))
        .header("content-type", "application/json")
        .body(body);
    shop.send(request).await
}

fn notice(payment: &str, order: &str, amount: &str) -> Value {
    json!({ "paymentId": payment, "orderId": order, "amount": amount })
}

#[tokio::test]
async fn a_webhook_pays_once() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    let id = shop.order(&ada, 1, 1).await;
    let forged = tell(&shop, "guessed", &notice("p1", &id, "99.00")).await;
    assert_eq!((forged.status, forged.code()), (403, 20004));
    assert_eq!(
        tell(&shop, WEBHOOK, &notice("p1", &id, "98.00"))
            .await
            .code(),
        10001
    );
    assert_eq!(
        tell(&shop, WEBHOOK, &notice("p1", "7-1-99", "99.00"))
            .await
            .code(),
        10003
    );
    for _ in 0..2 {
        let told = tell(&shop, WEBHOOK, &notice("p1", &id, "99.00")).await;
        assert_eq!(
            (&told.data()["payment"], &told.data()["state"]),
            (&json!("accepted"), &json!("paid"))
        );
    }
    let second = tell(&shop, WEBHOOK, &notice("p2", &id, "99.00")).await;
    assert_eq!(second.data()["payment"], "refund_due");
    let elsewhere = shop
        .send(shop.request("POST", "/payment/webhook/other"))
        .await;
    assert_eq!((elsewhere.status, elsewhere.code()), (404, 10003));
    assert_eq!(shop.audit().await["clean"], true);
    shop.stop().await;
}

#[tokio::test]
async fn a_late_payment_reserves_again_or_is_refunded() {
    let shop = Shop::open().await;
    let (ada, eve) = (shop.buyer("10001").await, shop.buyer("10002").await);
    let (adas, eves) = (shop.order(&ada, 1, 2).await, shop.order(&eve, 2, 2).await);
    for (buyer, id) in [(&ada, &adas), (&eve, &eves)] {
        for _ in 0..2 {
            let ended = shop
                .post("/order/cancel", &buyer.token, &json!({ "orderId": id }))
                .await;
            assert_eq!(ended.data()["state"], "cancelled");
        }
    }
    // Units are left for the first of them.
    let late = tell(&shop, WEBHOOK, &notice("p1", &adas, "198.00")).await;
    assert_eq!(late.status, 200);
    shop.wait_for(&ada, &adas, "paid").await;
    let again = tell(&shop, WEBHOOK, &notice("p1", &adas, "198.00")).await;
    assert_eq!(again.data()["payment"], "accepted");
    // Others take the rest.
    for (tel, jti, amount) in [("10003", 3, 2), ("10004", 4, 1)] {
        let buyer = shop.buyer(tel).await;
        shop.order(&buyer, jti, amount).await;
    }
    let refused = tell(&shop, WEBHOOK, &notice("p2", &eves, "198.00")).await;
    assert_eq!(
        (&refused.data()["payment"], &refused.data()["state"]),
        (&json!("refund_due"), &json!("refund_due"))
    );
    let report = shop.audit().await;
    assert_eq!(report["clean"], true, "{report}");
    assert_eq!(report["promos"][0]["books"]["paid"], 2);
    shop.stop().await;
}

#[tokio::test]
async fn a_late_payment_that_a_crash_interrupted_is_settled_by_the_sweeper() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    let id = shop.order(&ada, 1, 1).await;
    shop.post("/order/cancel", &ada.token, &json!({ "orderId": id }))
        .await;
    // Recorded, and then nothing more: as if the process had been killed in between.
    let ledger = shop.ledger().await;
    let now = engine::Clock::now(&engine::SystemClock);
    let total = "99.00".parse().unwrap();
    ledger
        .receive_payment("demo:p1", id.parse().unwrap(), total, now)
        .await
        .unwrap();
    shop.wait_for(&ada, &id, "paid").await;
    assert_eq!(shop.audit().await["clean"], true);
    shop.stop().await;
}
