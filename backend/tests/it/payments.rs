//! Webhooks: signed, told twice, too early, too late, of the wrong amount.

use std::time::Duration;

use engine::{Clock as _, SystemClock};
use floodgate_backend::ledger::LatePayment;
use floodgate_backend::metrics::Metrics;
use floodgate_backend::payment::settle_late;
use floodgate_backend::writer::OrderWriter;
use floodgate_backend::{Ledger, LedgerSettings, audit};
use hmac::{Hmac, KeyInit as _, Mac as _};
use lua_free_rules::units::Millis;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::{ACME, Answer, OPERATOR, ROTATED, Shop, WEBHOOK, proposal};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

fn now_s() -> i64 {
    SystemClock.now().seconds()
}

/// `v1=…` of `time.body` under `secret`.
fn v1(secret: &str, time: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{time}.{body}").as_bytes());
    let digest = mac.finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1={hex}")
}

fn signed(secret: &str, time: i64, body: &str) -> String {
    format!("t={time},{}", v1(secret, time, body))
}

/// A call as it goes over the wire.
async fn call(shop: &Shop, provider: &str, signature: &str, kind: &str, body: String) -> Answer {
    let request = shop
        .request("POST", &format!("/payment/webhook/{provider}"))
        .header("floodgate-signature", signature)
        .header("content-type", kind)
        .body(body);
    shop.send(request).await
}

/// What the provider `acme` tells, signed now.
async fn tell(shop: &Shop, notice: &Value) -> Answer {
    let body = notice.to_string();
    let signature = signed(ACME, now_s(), &body);
    call(shop, "acme", &signature, JSON, body).await
}

fn paid(payment: &str, order: &str, amount: &str) -> Value {
    json!({ "event": "paid", "paymentId": payment, "orderId": order, "amount": amount })
}

/// What became of the payment, and of its order.
fn outcome(answer: &Answer) -> (&str, &str) {
    let data = answer.data();
    (
        data["payment"].as_str().unwrap(),
        data["state"].as_str().unwrap(),
    )
}

async fn order_state(shop: &Shop, id: &str) -> &'static str {
    let order = shop.ledger().await.order(id.parse().unwrap()).await;
    order.unwrap().unwrap().state.name()
}

/// A shop whose orders are over as soon as they are written.
async fn shop_without_patience() -> Shop {
    let mut sale = proposal();
    sale.pay_within = Millis::new(1);
    let shop = Shop::with(vec![sale.clone()]).await;
    shop.publish(&sale).await;
    shop
}

/// An order of two units that was not paid in time.
async fn expired(shop: &Shop, tel: &str, jti: u8) -> (crate::harness::Buyer, String) {
    let buyer = shop.buyer(tel).await;
    let token = shop.enter(&buyer, jti).await;
    let made = shop.create(&buyer, &token, "key", 2).await;
    assert_eq!(made.status, 202, "{}", made.body);
    let id = made.data()["orderId"].as_str().unwrap().to_owned();
    shop.wait_for(&buyer, &id, "expired").await;
    (buyer, id)
}

#[tokio::test]
async fn a_payment_in_time_pays_once() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    let id = shop.order(&ada, 1, 1).await;
    for _ in 0..2 {
        let told = tell(&shop, &paid("p1", &id, "99.00")).await;
        assert_eq!(outcome(&told), ("accepted", "paid"));
    }
    for _ in 0..2 {
        let second = tell(&shop, &paid("p2", &id, "99.00")).await;
        assert_eq!(outcome(&second), ("refund_due", "paid"));
    }
    // Another provider's payment of that id is another payment.
    let body = paid("p1", &id, "99.00").to_string();
    let signature = signed(WEBHOOK, now_s(), &body);
    let of_another = call(&shop, "demo", &signature, JSON, body).await;
    assert_eq!(outcome(&of_another), ("refund_due", "paid"));
    assert_eq!(shop.audit().await["clean"], true);
    shop.stop().await;
}

#[tokio::test]
async fn a_form_says_the_same_as_json() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    let id = shop.order(&ada, 1, 1).await;
    let form = format!("event=paid&paymentId=p1&orderId={id}&amount=99.00");
    let signature = signed(ACME, now_s(), &form);
    let told = call(&shop, "acme", &signature, FORM, form).await;
    assert_eq!(outcome(&told), ("accepted", "paid"));
    let again = tell(&shop, &paid("p1", &id, "99.00")).await;
    assert_eq!(outcome(&again), ("accepted", "paid"));
    shop.stop().await;
}

#[tokio::test]
async fn a_call_is_believed_only_if_it_is_signed_now_and_as_it_is() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    let id = shop.order(&ada, 1, 1).await;
    let (now, body) = (now_s(), paid("p1", &id, "99.00").to_string());
    let altered = body.replace("p1", "p2");
    for (what, provider, signature, body) in [
        ("guessed", "acme", signed("guessed", now, &body), &body),
        ("empty", "acme", String::new(), &body),
        ("no time", "acme", v1(ACME, now, &body), &body),
        ("another scheme", "acme", "sha256=00".to_owned(), &body),
        ("old", "acme", signed(ACME, now - 301, &body), &body),
        (
            "from the future",
            "acme",
            signed(ACME, now + 330, &body),
            &body,
        ),
        (
            "older than its own window",
            "bank",
            signed(ROTATED[0], now - 61, &body),
            &body,
        ),
        ("altered", "acme", signed(ACME, now, &body), &altered),
        ("another's secret", "bank", signed(ACME, now, &body), &body),
        (
            "the demo's secret",
            "acme",
            signed(WEBHOOK, now, &body),
            &body,
        ),
    ] {
        let told = call(&shop, provider, &signature, JSON, body.clone()).await;
        assert_eq!((told.status, told.code()), (403, 20004), "{what}");
    }
    let unsigned = shop
        .post("/payment/webhook/acme", OPERATOR, &paid("p1", &id, "99.00"))
        .await;
    assert_eq!((unsigned.status, unsigned.code()), (403, 20004));
    assert_eq!(order_state(&shop, &id).await, "written");

    for (secret, provider) in [(ROTATED[0], "bank"), (ROTATED[1], "bank"), (ACME, "acme")] {
        let signature = signed(secret, now_s(), &body);
        let told = call(&shop, provider, &signature, JSON, body.clone()).await;
        assert_eq!(told.status, 200, "{provider}: {}", told.body);
    }
    assert_eq!(order_state(&shop, &id).await, "paid");
    assert_eq!(shop.audit().await["clean"], true);
    shop.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_other_events_are_not() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    let id = shop.order(&ada, 1, 1).await;
    let tell_so = async |provider: &str, kind: &str, body: String| {
        let signature = signed(ACME, now_s(), &body);
        call(&shop, provider, &signature, kind, body).await
    };
    let notice = paid("p1", &id, "99.00");
    let mut without_event = notice.clone();
    without_event.as_object_mut().unwrap().remove("event");
    let large = json!({ "event": "paid", "paymentId": "p".repeat(20_000) });
    let long = paid(&"p".repeat(129), &id, "99.00");
    for (provider, kind, body, expected) in [
        ("other", JSON, notice.to_string(), (404, 10003)),
        ("ACME", JSON, notice.to_string(), (404, 10003)),
        ("acme", "text/plain", notice.to_string(), (415, 10006)),
        ("acme", JSON, large.to_string(), (413, 10005)),
        ("acme", JSON, long.to_string(), (400, 10001)),
        ("acme", JSON, without_event.to_string(), (400, 10001)),
        ("acme", JSON, "[".to_owned(), (400, 10001)),
        (
            "acme",
            FORM,
            "event=paid&event=paid".to_owned(),
            (400, 10001),
        ),
        (
            "acme",
            JSON,
            paid("p1", "7-1-99", "99.00").to_string(),
            (404, 10003),
        ),
    ] {
        let told = tell_so(provider, kind, body).await;
        assert_eq!((told.status, told.code()), expected, "{provider} {kind}");
    }
    let other = tell_so(
        "acme",
        JSON,
        json!({ "event": "refunded", "orderId": id }).to_string(),
    )
    .await;
    assert_eq!(other.status, 200);
    assert_eq!(
        other.data(),
        &json!({ "event": "refunded", "ignored": true })
    );
    assert_eq!(order_state(&shop, &id).await, "written");
    shop.stop().await;
}

#[tokio::test]
async fn a_payment_of_the_wrong_amount_goes_back_and_the_order_can_still_be_paid() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    let id = shop.order(&ada, 1, 1).await;
    for _ in 0..2 {
        let short = tell(&shop, &paid("p1", &id, "98.00")).await;
        assert_eq!(outcome(&short), ("refund_due", "written"));
    }
    // An id stands for one payment of one order.
    let mended = tell(&shop, &paid("p1", &id, "99.00")).await;
    assert_eq!((mended.status, mended.code()), (400, 10001));
    let whole = tell(&shop, &paid("p2", &id, "99.00")).await;
    assert_eq!(outcome(&whole), ("accepted", "paid"));
    let refunds = shop.get("/admin/refunds", OPERATOR).await.data().clone();
    let refund = &refunds["refunds"][0];
    assert!(refund["since"].as_i64().unwrap() > 0);
    assert_eq!(
        refunds,
        json!({
            "refunds": [{
                "reference": "acme:p1", "orderId": id, "amount": "98.00",
                "since": refund["since"], "orderState": "paid",
            }],
            "next": null,
        })
    );
    let other = shop.order(&ada, 2, 1).await;
    let elsewhere = tell(&shop, &paid("p2", &other, "99.00")).await;
    assert_eq!((elsewhere.status, elsewhere.code()), (400, 10001));
    assert_eq!(order_state(&shop, &other).await, "written");
    assert_eq!(shop.audit().await["clean"], true);
    shop.stop().await;
}

#[tokio::test]
async fn a_payment_for_an_order_that_is_not_written_yet_is_told_again() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    // The order writer fails, and tries again and again.
    shop.tamper("ALTER TABLE stock_movements RENAME TO stock_movements_away")
        .await;
    let token = shop.enter(&ada, 1).await;
    let made = shop.create(&ada, &token, "key", 1).await;
    let id = made.data()["orderId"].as_str().unwrap().to_owned();
    let early = tell(&shop, &paid("p1", &id, "99.00")).await;
    assert_eq!((early.status, early.code()), (409, 30010));
    assert_eq!(early.header("retry-after"), "1");
    shop.tamper("ALTER TABLE stock_movements_away RENAME TO stock_movements")
        .await;
    shop.wait_for(&ada, &id, "written").await;
    let again = tell(&shop, &paid("p1", &id, "99.00")).await;
    assert_eq!(outcome(&again), ("accepted", "paid"));
    assert_eq!(shop.audit().await["clean"], true);
    shop.stop().await;
}

#[tokio::test]
async fn a_late_payment_reserves_again_while_units_are_left_and_is_refunded_after_that() {
    let shop = shop_without_patience().await;
    let mut orders = Vec::new();
    for (jti, tel) in [(1, "10001"), (2, "10002"), (3, "10003")] {
        orders.push(expired(&shop, tel, jti).await);
    }
    // Two orders of two find units among the five, the third one does not.
    for (n, (buyer, id)) in orders[..2].iter().enumerate() {
        let payment = format!("p{n}");
        let late = tell(&shop, &paid(&payment, id, "198.00")).await;
        assert_eq!(late.status, 200, "{}", late.body);
        shop.wait_for(buyer, id, "paid").await;
        for _ in 0..2 {
            let again = tell(&shop, &paid(&payment, id, "198.00")).await;
            assert_eq!(outcome(&again), ("accepted", "paid"));
        }
    }
    let (_, third) = &orders[2];
    for _ in 0..2 {
        let refused = tell(&shop, &paid("p2", third, "198.00")).await;
        assert_eq!(outcome(&refused), ("refund_due", "refund_due"));
    }
    let short = tell(&shop, &paid("p3", third, "1.00")).await;
    assert_eq!(outcome(&short), ("refund_due", "refund_due"));
    let report = shop.audit().await;
    assert_eq!(report["clean"], true, "{report}");
    let books = &report["promos"][0]["books"];
    assert_eq!(
        (&books["paid"], &books["available"]),
        (&json!(4), &json!(1))
    );
    assert_eq!(
        report["promos"][0]["payments"],
        json!({
            "accepted": 2, "reservedAgain": 2, "late": 0, "refundDue": 2, "refundDueOrders": 1,
        })
    );
    let ask = async |query: &str| shop.get(&format!("/admin/refunds{query}"), OPERATOR).await;
    let first = ask("?max=1").await.data().clone();
    assert_eq!(first["refunds"][0]["reference"], "acme:p2");
    let (since, after) = (&first["next"]["since"], first["next"]["after"].as_str());
    let second = ask(&format!("?max=1&since={since}&after={}", after.unwrap())).await;
    assert_eq!(second.data()["refunds"][0]["reference"], "acme:p3");
    assert_eq!(second.data()["next"], Value::Null);
    for query in ["?max=0", "?max=1001", "?since=-1", "?since=x"] {
        assert_eq!(ask(query).await.code(), 10001, "{query}");
    }
    let buyers = shop.get("/admin/refunds", &orders[0].0.token).await;
    assert_eq!((buyers.status, buyers.code()), (403, 20004));
    shop.stop().await;
}

#[tokio::test]
async fn the_audit_names_a_late_payment_that_nobody_settles() {
    let shop = shop_without_patience().await;
    let (_, id) = expired(&shop, "10001", 1).await;
    let (dir, engine) = shop.stop().await;
    let settings = LedgerSettings::sqlite(dir.path(), "ledger.db");
    let (ledger, order) = (Ledger::open(&settings).await.unwrap(), id.parse().unwrap());
    let (now, total) = (SystemClock.now(), "198.00".parse().unwrap());
    let reference = "acme:p1".to_owned();
    let late = ledger.receive_payment(&reference, order, total, now).await;
    assert_eq!(late.unwrap().state.name(), "late");
    // The shop may have stopped between a release and its being written.
    let metrics = Metrics::new().unwrap();
    let writer = OrderWriter::new(engine.clone(), ledger.clone(), metrics.clone(), 100);
    writer.drain().await.unwrap();
    let report = async || audit(engine.as_ref(), &ledger, None, Duration::ZERO).await;
    let found = report().await.unwrap();
    let words = found.promos[0].faults.iter().map(|fault| fault.0.as_str());
    let words: Vec<&str> = words.collect();
    assert!(!found.clean);
    assert_eq!(words.len(), 1, "{words:?}");
    assert!(words[0].starts_with("late: payment acme:p1 came at"));
    assert_eq!(found.promos[0].payments.late, 1);

    let late = LatePayment { reference, order };
    settle_late(&engine, &ledger, &metrics, &late, now)
        .await
        .unwrap();
    writer.drain().await.unwrap();
    let settled = report().await.unwrap();
    assert!(settled.clean, "{settled:?}");
    let payments = settled.promos[0].payments;
    assert_eq!((payments.late, payments.reserved_again), (0, 1));
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
    let now = SystemClock.now();
    let total = "99.00".parse().unwrap();
    ledger
        .receive_payment("acme:p1", id.parse().unwrap(), total, now)
        .await
        .unwrap();
    shop.wait_for(&ada, &id, "paid").await;
    let again = tell(&shop, &paid("p1", &id, "99.00")).await;
    assert_eq!(outcome(&again), ("accepted", "paid"));
    assert_eq!(shop.audit().await["clean"], true);
    shop.stop().await;
}
