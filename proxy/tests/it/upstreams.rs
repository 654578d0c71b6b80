//! Order servers that fail, fill up, or have something to tell.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lua_free_rules::units::{Millis, PromoId};
use reqwest::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::{Plan, access, cookie, data, keys, refusal, session, until};
use crate::peer::{Mode, Peer};
use crate::wire::Wire;

const BUSY: (StatusCode, u64) = (StatusCode::SERVICE_UNAVAILABLE, 30008);

#[tokio::test]
async fn an_order_that_is_cut_off_goes_to_another_order_server() {
    let (bad, good) = (Peer::start().await, Peer::start().await);
    let shop = Plan::new(&[&bad, &good]).start().await;
    bad.set(Mode::Cut);
    let token = access(1).mint(&keys()).unwrap();
    for _ in 0..4 {
        assert_eq!(refusal(shop.order(1, &token)).await.1, 0);
    }
    assert_eq!(good.count("/order/create"), 4);
    assert!(bad.count("/order/create") > 0);
    for (cut, sent) in bad.seen().iter().zip(good.seen()) {
        assert_eq!(cut.body, sent.body);
    }
    let read = || shop.get("/order/list").header("cookie", cookie(session(1)));
    for _ in 0..4 {
        assert_eq!(refusal(read()).await.1, 0);
    }
}

/// An order server that answers every request, whatever it is, with these bytes, and counts them; checks,
/// which it answers likewise, left out.
struct Stubborn {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Stubborn {
    /// `goes_on` tells whether it keeps the connection.
    async fn start(answer: &'static str, goes_on: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let counted = counted.clone();
                tokio::spawn(async move {
                    let mut request = [0; 4_096];
                    while let Ok(1..) = stream.read(&mut request).await {
                        if request.starts_with(b"{") {
                            continue; // a body that came apart from its header
                        }
                        if !request.starts_with(b"GET /live ") {
                            counted.fetch_add(1, Ordering::Relaxed);
                        }
                        let _ = stream.write_all(answer.as_bytes()).await;
                        if !goes_on {
                            break;
                        }
                    }
                });
            }
        });
        Self {
            address,
            asked,
            serving,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

const BROKEN_OFF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";

/// The client is still there: the order server is to blame, and the metric says so.
#[tokio::test]
async fn an_answer_that_breaks_off_is_not_booked_as_a_client_that_went_away() {
    let server = Stubborn::start(BROKEN_OFF, false).await;
    let mut plan = Plan::new(&[]);
    plan.upstreams.push(server.address);
    let shop = plan.start().await;
    let list = shop.get("/order/list").header("cookie", cookie(session(1)));
    assert!(list.send().await.unwrap().bytes().await.is_err());
    let booked = "floodgate_edge_answers_total{outcome=\"broken_off\",route=\"order_list\"} 1";
    until(async || shop.metrics().await.contains(booked)).await;
}

/// The client has not got its first byte yet, and the order's key makes two of them one.
#[tokio::test]
async fn an_order_whose_answer_breaks_off_goes_to_another_order_server() {
    let (server, good) = (
        Stubborn::start(BROKEN_OFF, false).await,
        Peer::start().await,
    );
    let mut plan = Plan::new(&[&good]);
    plan.upstreams.push(server.address);
    let shop = plan.start().await;
    let token = access(1).mint(&keys()).unwrap();
    for _ in 0..4 {
        assert_eq!(refusal(shop.order(1, &token)).await, (StatusCode::OK, 0));
    }
    assert_eq!(good.count("/order/create"), 4);
    assert!(server.asked() > 0);
}

#[tokio::test]
async fn an_order_server_that_answers_in_chunks_serves_too() {
    let chunked = "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let server = Stubborn::start(chunked, true).await;
    let mut plan = Plan::new(&[]);
    plan.upstreams.push(server.address);
    let shop = plan.start().await;
    let token = access(1).mint(&keys()).unwrap();
    for _ in 0..3 {
        let answer = shop.order(1, &token).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        assert_eq!(answer.text().await.unwrap(), "{}");
    }
    assert_eq!(server.asked(), 4, "only the first was sent twice");
}

#[tokio::test]
async fn what_an_order_server_sends_unasked_is_no_answer() {
    // The second half of what it sends would be the answer to the next order.
    let twice = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2";
    let server = Stubborn::start(twice, true).await;
    let mut plan = Plan::new(&[]);
    plan.upstreams.push(server.address);
    let shop = plan.start().await;
    let token = access(1).mint(&keys()).unwrap();
    for _ in 0..4 {
        let answer = shop.order(1, &token).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "1");
    }
    assert_eq!(server.asked(), 4);
}

#[tokio::test]
async fn an_order_server_that_does_not_answer_in_time_is_left_for_another() {
    let (silent, good) = (Peer::start().await, Peer::start().await);
    let mut plan = Plan::new(&[&silent, &good]);
    plan.edge.limits.upstream_timeout = Millis::new(200);
    let shop = plan.start().await;
    silent.set(Mode::Hold);
    let token = access(1).mint(&keys()).unwrap();
    for _ in 0..4 {
        assert_eq!(refusal(shop.order(1, &token)).await, (StatusCode::OK, 0));
    }
    assert_eq!(good.count("/order/create"), 4);
    assert!(silent.count("/order/create") > 0);
}

#[tokio::test]
async fn a_connection_that_the_order_server_has_closed_costs_no_order() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1";
    let server = Stubborn::start(answer, false).await;
    let mut plan = Plan::new(&[]);
    plan.upstreams.push(server.address);
    let shop = plan.start().await;
    let token = access(1).mint(&keys()).unwrap();
    for _ in 0..8 {
        let answer = shop.order(1, &token).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "1");
    }
    assert_eq!(server.asked(), 8);
}

#[tokio::test]
async fn another_post_is_never_sent_twice() {
    let (one, two) = (Peer::start().await, Peer::start().await);
    let shop = Plan::new(&[&one, &two]).start().await;
    one.set(Mode::Cut);
    two.set(Mode::Cut);
    assert_eq!(
        refusal(shop.post_as(1, "/order/pay", &json!({"id": "7-1-1"}))).await,
        BUSY
    );
    assert_eq!(one.count("/order/pay") + two.count("/order/pay"), 1);
    let token = access(1).mint(&keys()).unwrap();
    assert_eq!(refusal(shop.order(1, &token)).await, BUSY);
    assert_eq!(one.count("/order/create") + two.count("/order/create"), 2);
}

#[tokio::test]
async fn any_request_that_was_not_sent_goes_to_another_order_server() {
    let (gone, good) = (Peer::start().await, Peer::start().await);
    let shop = Plan::new(&[&gone, &good]).start().await;
    gone.stop().await;
    for _ in 0..4 {
        let pay = shop.post_as(1, "/order/pay", &json!({"id": "7-1-1"}));
        assert_eq!(refusal(pay).await.1, 0);
    }
    assert_eq!(good.count("/order/pay"), 4);
}

#[tokio::test]
async fn a_crash_that_leaves_pooled_connections_dead_costs_no_order() {
    let (one, two) = (Peer::start().await, Peer::start().await);
    let shop = Plan::new(&[&one, &two]).start().await;
    let token = access(1).mint(&keys()).unwrap();
    for _ in 0..3 {
        let at_once: Vec<_> = (0..16)
            .map(|_| tokio::spawn(refusal(shop.order(1, &token))))
            .collect();
        for order in at_once {
            assert_eq!(order.await.unwrap().1, 0);
        }
    }
    one.stop().await;
    for _ in 0..16 {
        assert_eq!(refusal(shop.order(1, &token)).await.1, 0);
    }
}

#[tokio::test]
async fn requests_beyond_the_cap_are_told_to_come_back() {
    let peer = Peer::start().await;
    let mut plan = Plan::new(&[&peer]);
    plan.edge.limits.in_flight_max = 2;
    let shop = plan.start().await;
    let token = access(1).mint(&keys()).unwrap();
    peer.set(Mode::Hold);
    let held: Vec<_> = (0..2)
        .map(|_| tokio::spawn(shop.order(1, &token).send()))
        .collect();
    peer.arrived().await;
    peer.arrived().await;
    let shed = shop.order(1, &token).send().await.unwrap();
    assert_eq!(shed.headers()["retry-after"], "1");
    assert_eq!(shed.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refusal(shop.get("/promo/state?id=7")).await.1, 0);
    peer.set(Mode::Answer);
    peer.release(2);
    for answer in held {
        assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    until(async || refusal(shop.order(1, &token)).await.1 == 0).await;
}

#[tokio::test]
async fn without_order_servers_the_shop_window_stays_open() {
    let (one, two) = (Peer::start().await, Peer::start().await);
    let shop = Plan::new(&[&one, &two]).start().await;
    assert_eq!(refusal(shop.get("/item/get?id=3")).await.1, 0);
    one.stop().await;
    two.stop().await;
    let token = access(1).mint(&keys()).unwrap();
    until(async || refusal(shop.order(1, &token)).await == BUSY).await;
    let mut wire = Wire::connect(shop.edge.listen).await;
    let body = json!({"itemId": 3, "promoId": 7, "token": token}).to_string();
    let cookie = cookie(session(1));
    for _ in 0..2 {
        let length = body.len();
        wire.send(format!(
            "POST /order/create HTTP/1.1\r\nHost: shop\r\nCookie: {cookie}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
        let answer = wire.reply(false).await.unwrap();
        assert_eq!((answer.status, answer.code()), (503, 30008));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
    for path in ["/", "/item/get?id=3", "/promo/state?id=7"] {
        assert_eq!(wire.ask(&format!("GET {path}")).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn an_order_server_says_sold_out_and_the_edge_answers_by_itself() {
    let peer = Peer::start().await;
    let shop = Plan::new(&[&peer]).start().await;
    shop.sign_in(1).await;
    let snapshot = shop.engine.promos().await.unwrap().1;
    assert_eq!(snapshot[0].promo, PromoId(7));
    let epoch = snapshot[0].sold_epoch.0 + 1;
    peer.set(Mode::SoldOut(epoch));
    let token = access(1).mint(&keys()).unwrap();
    let answer = shop.order(1, &token).send().await.unwrap();
    assert!(!answer.headers().contains_key("floodgate-sold-out"));
    let state = shop.get("/promo/state?id=7").send().await.unwrap();
    assert_eq!(data(state).await["soldOut"], true);
    let ask = shop.post_as(
        1,
        "/order/generatetoken",
        &json!({"promoId": 7, "itemId": 3}),
    );
    assert_eq!(refusal(ask).await, (StatusCode::CONFLICT, 30001));
}

#[tokio::test]
async fn an_order_server_that_is_back_is_found() {
    let peer = Peer::start().await;
    let mut plan = Plan::new(&[&peer]);
    let address = plan.upstreams[0];
    plan.upstreams.push("127.0.0.1:1".parse().unwrap());
    let shop = plan.start().await;
    let ready = async || {
        let url = format!("http://{}/ready", shop.edge.admin);
        let state: serde_json::Value = shop
            .client
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(state["ready"], true);
        state["upstreams"].clone()
    };
    until(async || {
        let state = ready().await;
        state[0]["healthy"] == true && state[1]["healthy"] == false
    })
    .await;
    assert_eq!(ready().await[0]["address"], address.to_string());
    let metrics = shop.metrics().await;
    assert!(
        metrics.contains("floodgate_edge_upstream_healthy"),
        "{metrics}"
    );
}
