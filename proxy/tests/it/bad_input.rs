//! What is malformed, oversized or slow: a clear refusal, a bounded cost.

use std::time::Duration;

use lua_free_rules::config::Size;
use lua_free_rules::units::Millis;
use serde_json::json;

use crate::harness::{ITEM, PROMO, Plan, cookie, refusal, session, until};
use crate::peer::Peer;
use crate::wire::Wire;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

#[tokio::test]
async fn bad_bodies_get_their_codes() {
    let peer = Peer::start().await;
    let shop = Plan::new(&[&peer]).start().await;
    let long = format!("{{\"promoId\":7,\"x\":\"{}\"}}", "x".repeat(17_000));
    let table: [(&str, &[u8], u64); 12] = [
        (JSON, b"", 10001),
        (JSON, b"{", 10001),
        (JSON, b"[1]", 10001),
        (JSON, b"{\"promoId\":\"\xff\"}", 10001),
        (JSON, b"{\"promoId\":-1}", 10001),
        (JSON, b"{\"promoId\":1.5}", 10001),
        (JSON, b"{\"promoId\":99999999999999999999}", 10001),
        (FORM, b"promoId=%ff", 10001),
        (FORM, b"promoId=7&promoId=8", 10001),
        ("text/xml", b"<a/>", 10006),
        ("", b"promoId=7", 10006),
        (JSON, long.as_bytes(), 10005),
    ];
    for path in [
        "/order/generateverifycode",
        "/order/generatetoken",
        "/order/create",
    ] {
        for (kind, body, code) in table {
            let request = shop
                .client
                .post(shop.url(path))
                .header("content-type", kind)
                .header("cookie", cookie(session(1)))
                .body(body.to_vec());
            let answer = refusal(request).await;
            let text = String::from_utf8_lossy(&body[..body.len().min(40)]);
            assert_eq!(answer.1, code, "{path} {kind} {text}");
        }
    }
    assert_eq!(peer.seen().len(), 0);
}

#[tokio::test]
async fn bad_queries_and_methods_get_their_codes() {
    let shop = Plan::new(&[]).start().await;
    let mut wire = Wire::connect(shop.edge.listen).await;
    let long = format!("GET /item/get?id={}", "1".repeat(5_000));
    for (line, status, code) in [
        ("GET /item/get", 400, 10001),
        ("GET /item/get?id=", 400, 10001),
        ("GET /item/get?id=x", 400, 10001),
        ("GET /item/get?id=0", 400, 10001),
        ("GET /item/get?id=%ff", 400, 10001),
        ("GET /item/get?id=1&id=2", 400, 10001),
        ("GET /promo/state?id=9", 404, 10003),
        ("GET /nothing", 404, 10003),
        ("DELETE /item/get?id=1", 405, 10004),
        ("GET /order/create", 405, 10004),
        ("BREW /", 405, 10004),
        (long.as_str(), 413, 10005),
    ] {
        let answer = wire.ask(line).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{line}");
    }
    let refused = wire.ask("PUT /order/create").await;
    assert_eq!(refused.header("allow"), Some("POST"));
}

#[tokio::test]
async fn oversized_headers_and_bodies_are_refused_before_an_order_server_hears_of_them() {
    let peer = Peer::start().await;
    let mut plan = Plan::new(&[&peer]);
    plan.edge.limits.headers_max = Size(1_000);
    let shop = plan.start().await;
    let big = shop.get("/").header("x-big", "x".repeat(1_000));
    assert_eq!(refusal(big).await.1, 10005);
    let mut wire = Wire::connect(shop.edge.listen).await;
    wire.send("POST /user/login HTTP/1.1\r\nHost: shop\r\nContent-Length: 999999999\r\n\r\n")
        .await;
    let answer = wire.reply(false).await.unwrap();
    assert_eq!((answer.status, answer.code()), (413, 10005));
    let mut wire = Wire::connect(shop.edge.listen).await;
    wire.send("POST /user/login HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    for _ in 0..5 {
        wire.send(format!("1000\r\n{}\r\n", "x".repeat(4_096)))
            .await;
    }
    let answer = wire.reply(false).await.unwrap();
    assert_eq!((answer.status, answer.code()), (413, 10005));
    assert_eq!(peer.seen().len(), 0);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_answered() {
    let peer = Peer::start().await;
    let shop = Plan::new(&[&peer]).start().await;
    let mut wire = Wire::connect(shop.edge.listen).await;
    wire.send("POST /user/login HTTP/1.1\r\nHost: shop\r\nContent-Length: 50\r\n\r\n{\"tel\":")
        .await;
    wire.end_sending().await;
    let answer = wire.reply(false).await.unwrap();
    assert_eq!((answer.status, answer.code()), (400, 10001));
    assert!(wire.reply(false).await.is_none());
    assert_eq!(peer.seen().len(), 0);
}

/// The client waits for a go-ahead; the edge must not wait for the body in turn.
#[tokio::test]
async fn a_refusal_comes_without_the_body_that_waits_for_a_go_ahead() {
    let mut plan = Plan::new(&[]);
    plan.edge.limits.read_timeout = Millis::seconds(300);
    let shop = plan.start().await;
    let mut wire = Wire::connect(shop.edge.listen).await;
    wire.send(
        "POST /nothing HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    )
    .await;
    let answer = wire.reply(false).await.unwrap();
    assert_eq!((answer.status, answer.code()), (404, 10003));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(wire.reply(false).await.is_none());
}

#[tokio::test]
async fn what_another_site_makes_a_browser_send_is_refused() {
    let peer = Peer::start().await;
    let shop = Plan::new(&[&peer]).start().await;
    let host = shop.edge.listen.to_string();
    let own = format!("http://{host}");
    let (pay, webhook) = ("/order/pay", "/payment/webhook/demo");
    let foreign = "https://evil.example";
    for (path, name, value, code) in [
        (pay, "sec-fetch-site", "cross-site", 20004),
        (pay, "sec-fetch-site", "same-site", 20004),
        (pay, "sec-fetch-site", "same-origin", 0),
        (pay, "origin", foreign, 20004),
        (pay, "origin", "null", 20004),
        (pay, "origin", own.as_str(), 0),
        (webhook, "origin", foreign, 0),
    ] {
        let body = json!({"id": "7-1-1"});
        let request = shop.post_as(1, path, &body).header(name, value);
        assert_eq!(refusal(request).await.1, code, "{path} {name}: {value}");
    }
    let text = session(1).mint(&crate::harness::keys()).unwrap();
    let bearer = shop
        .post("/order/pay", &json!({"id": "7-1-1"}))
        .bearer_auth(text);
    assert_eq!(refusal(bearer.header("origin", foreign)).await.1, 0);
    assert_eq!(peer.seen().len(), 4);
}

#[tokio::test]
async fn bad_framing_is_400() {
    let shop = Plan::new(&[]).start().await;
    for head in [
        "Content-Length: x\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Transfer-Encoding: gzip\r\n",
        "no colon\r\n",
    ] {
        let mut wire = Wire::connect(shop.edge.listen).await;
        wire.send(format!(
            "POST /user/login HTTP/1.1\r\nHost: shop\r\n{head}\r\n"
        ))
        .await;
        assert_eq!(wire.reply(false).await.unwrap().status, 400, "{head}");
    }
}

#[tokio::test]
async fn slow_clients_are_let_go() {
    let peer = Peer::start().await;
    let mut plan = Plan::new(&[&peer]);
    plan.edge.limits.read_timeout = Millis::new(100);
    plan.edge.limits.idle_timeout = Millis::new(100);
    let shop = plan.start().await;
    let mut slow_body = Wire::connect(shop.edge.listen).await;
    slow_body
        .send("POST /user/login HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\n1")
        .await;
    let answer = slow_body.reply(false).await.unwrap();
    assert_eq!((answer.status, answer.code()), (400, 10001));
    assert!(slow_body.reply(false).await.is_none());
    let mut slow_header = Wire::connect(shop.edge.listen).await;
    slow_header.send("GET / HTTP/1.1\r\nHost:").await;
    assert!(slow_header.reply(false).await.is_none());
    let mut idle = Wire::connect(shop.edge.listen).await;
    assert_eq!(idle.ask("GET /").await.status, 200);
    assert!(idle.reply(false).await.is_none());
    assert_eq!(peer.seen().len(), 0);
}

/// Answers pile up until nothing more can be written; that has a limit in time.
#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    for fast_path in [true, false] {
        let mut plan = Plan::new(&[]);
        plan.edge.limits.read_timeout = Millis::new(100);
        plan.edge.fast_path = fast_path;
        let shop = plan.start().await;
        let mut wire = Wire::connect(shop.edge.listen).await;
        while wire
            .try_send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n".repeat(100))
            .await
        {}
        let gone = "{outcome=\"gone\",route=\"page\"} 1";
        until(async || {
            let metrics = shop.metrics().await;
            // Pingora does not read on while more than one request is there.
            metrics.contains("_requests_in_flight 0") && metrics.contains(gone) == fast_path
        })
        .await;
    }
}

/// One byte at a time keeps every single wait short; the whole still has a limit.
#[tokio::test]
async fn a_header_that_trickles_in_is_not_waited_for() {
    let mut plan = Plan::new(&[]);
    plan.edge.limits.read_timeout = Millis::new(100);
    plan.edge.limits.idle_timeout = Millis::new(100);
    let shop = plan.start().await;
    let mut wire = Wire::connect(shop.edge.listen).await;
    wire.send("GET / HTTP/1.1\r\nX: ").await;
    while wire.try_send("x").await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(wire.reply(false).await.is_none());
}

#[tokio::test]
async fn refusals_keep_the_connection_open() {
    let shop = Plan::new(&[]).start().await;
    let mut wire = Wire::connect(shop.edge.listen).await;
    let body = json!({"itemId": ITEM, "promoId": PROMO, "token": "x"}).to_string();
    for path in [
        "/order/create",
        "/order/pay",
        "/item/create",
        "/nothing",
        "/item/get",
    ] {
        let length = body.len();
        wire.send(format!(
            "POST {path} HTTP/1.1\r\nHost: shop\r\nContent-Type: {JSON}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
        .await;
        let answer = wire.reply(false).await.unwrap();
        assert!(answer.code() > 0, "{path}");
        assert_eq!(answer.header("connection"), Some("keep-alive"), "{path}");
    }
    assert_eq!(wire.ask("GET /").await.status, 200);
}
