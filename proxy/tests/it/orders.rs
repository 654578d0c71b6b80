//! The gate in front of order creation: what is refused never reaches an order server; what passes
//! arrives as it was sent.

use lua_free_rules::token::{Access, Session};
use lua_free_rules::units::{ItemId, PromoId};
use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{
    ITEM, NOW, OPERATOR, PROMO, Plan, access, cookie, keys, other_keys, refusal, session,
};
use crate::peer::{Mode, Peer};
use crate::wire::Wire;

#[tokio::test]
async fn an_admitted_order_arrives_unchanged_with_the_clients_address() {
    let peer = Peer::start().await;
    let shop = Plan::new(&[&peer]).start().await;
    let token = access(1).mint(&keys()).unwrap();
    let sent = format!("promoId={PROMO}&itemId={ITEM}&amount=2&token={token}");
    let answer = shop
        .client
        .post(shop.url("/order/create"))
        .header("cookie", cookie(session(1)))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("idempotency-key", "k-1")
        .header("x-forwarded-for", "198.51.100.1")
        .header("x_forwarded_for", "198.51.100.1")
        .header("x-forwarded-port", "1")
        .header("floodgate-sold-out", "7;1;99;1")
        .header("floodgate-else", "x")
        .header("floodgate-signature", "t=1,v1=00")
        .body(sent.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let seen = peer.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].body, sent);
    let headers = &seen[0].headers;
    assert_eq!(headers["idempotency-key"], "k-1");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert!(!headers.contains_key("x_forwarded_for"));
    assert!(!headers.contains_key("x-forwarded-port"));
    assert_eq!(headers["x-forwarded-proto"], "http");
    let ours = headers.keys().map(http::HeaderName::as_str);
    let ours: Vec<_> = ours.filter(|name| name.starts_with("floodgate")).collect();
    assert_eq!(ours, ["floodgate-signature"], "the one that proves itself");
}

#[tokio::test]
async fn what_is_refused_never_reaches_an_order_server() {
    let peer = Peer::start().await;
    let shop = Plan::new(&[&peer]).start().await;
    let mint = |change: fn(&mut Access)| {
        let mut grant = access(1);
        change(&mut grant);
        grant.mint(&keys()).unwrap()
    };
    let good = mint(|_| ());
    let mut altered = good.clone().into_bytes();
    let middle = altered.len() / 2;
    altered[middle] = if altered[middle] == b'A' { b'B' } else { b'A' };
    let invalid = [
        String::from_utf8(altered).unwrap(),
        "a".repeat(2_000),
        "not.a.token".to_owned(),
        String::new(),
        mint(|grant| grant.expires_at = NOW.plus_ms(-700_000)),
        mint(|grant| grant.issued_at = NOW.plus_ms(60_000)),
        mint(|grant| grant.promo = PromoId(8)),
        mint(|grant| grant.item = ItemId(4)),
        access(2).mint(&keys()).unwrap(),
        access(1).mint(&other_keys()).unwrap(),
        session(1).mint(&keys()).unwrap(),
    ];
    for token in &invalid {
        let answer = refusal(shop.order(1, token)).await;
        assert_eq!(answer, (StatusCode::FORBIDDEN, 30005), "{token}");
    }
    let body = json!({"itemId": ITEM, "promoId": PROMO, "amount": 3, "token": good});
    assert_eq!(
        refusal(shop.post_as(1, "/order/create", &body)).await.1,
        30006
    );
    let unsigned = shop.post("/order/create", &body);
    assert_eq!(refusal(unsigned).await, (StatusCode::UNAUTHORIZED, 20003));
    let ended = Session {
        expires_at: NOW,
        ..session(1)
    };
    let ended = shop
        .post("/order/create", &body)
        .header("cookie", cookie(ended));
    assert_eq!(refusal(ended).await.1, 20003);
    for path in ["/order/pay", "/order/cancel", "/user/logout"] {
        assert_eq!(
            refusal(shop.post(path, &json!({}))).await.1,
            20003,
            "{path}"
        );
    }
    for path in ["/order/get?id=7-1-1", "/order/list", "/user/get"] {
        assert_eq!(refusal(shop.get(path)).await.1, 20003, "{path}");
    }
    assert_eq!(peer.seen().len(), 0);
    assert!(
        !shop
            .metrics()
            .await
            .contains("floodgate_edge_upstream_requests_total{")
    );
}

#[tokio::test]
async fn an_order_of_a_client_that_has_ended_its_side_is_answered() {
    let peer = Peer::start().await;
    let shop = Plan::new(&[&peer]).start().await;
    peer.set(Mode::Hold);
    let token = access(1).mint(&keys()).unwrap();
    let body = json!({"itemId": ITEM, "promoId": PROMO, "token": token}).to_string();
    let mut wire = Wire::connect(shop.edge.listen).await;
    let (cookie, length) = (cookie(session(1)), body.len());
    wire.send(format!(
        "POST /order/create HTTP/1.1\r\nHost: shop\r\nCookie: {cookie}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
    .await;
    wire.end_sending().await;
    peer.arrived().await;
    let metrics = shop.metrics().await;
    let upstream = peer.address;
    let busy = format!("floodgate_edge_upstream_in_flight{{upstream=\"{upstream}\"}} 1");
    assert!(metrics.contains(&busy), "{metrics}");
    peer.release(1);
    assert_eq!(wire.reply(false).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_token_that_has_just_expired_may_still_ask_for_its_order() {
    let peer = Peer::start().await;
    let shop = Plan::new(&[&peer]).start().await;
    let token = access(1).mint(&keys()).unwrap();
    shop.clock.advance_ms(60_000 + 599_000);
    assert_eq!(refusal(shop.order(1, &token)).await.1, 0);
    shop.clock.advance_ms(4_000);
    assert_eq!(refusal(shop.order(1, &token)).await.1, 30005);
    assert_eq!(peer.count("/order/create"), 1);
}

#[tokio::test]
async fn operator_routes_need_the_operators_token() {
    let peer = Peer::start().await;
    let shop = Plan::new(&[&peer]).start().await;
    let asked = |path: &str, token: Option<&str>| {
        let request = shop.post(path, &json!({}));
        refusal(match token {
            Some(token) => request.bearer_auth(token),
            None => request.header("cookie", cookie(session(1))),
        })
    };
    for path in [
        "/item/create",
        "/item/update",
        "/item/publishpromo",
        "/admin/promo/close",
    ] {
        let missing = asked(path, None).await;
        assert_eq!(missing, (StatusCode::UNAUTHORIZED, 20003), "{path}");
        let wrong = asked(path, Some("operator-token-of-the-tesT")).await;
        assert_eq!(wrong, (StatusCode::FORBIDDEN, 20004), "{path}");
    }
    assert_eq!(peer.seen().len(), 0);
    assert_eq!(asked("/item/publishpromo?id=7", Some(OPERATOR)).await.1, 0);
    assert_eq!(peer.count("/item/publishpromo?id=7"), 1);
}
