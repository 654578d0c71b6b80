//! What happens on one connection, request after request: whichever way they take, it goes on.

use std::time::Duration;

use lua_free_rules::units::Millis;
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::harness::{ITEM, PROMO, Plan, Shop, access, cookie, keys, session, until};
use crate::peer::{Mode, Peer};
use crate::wire::Wire;

/// Long enough for a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// An order of that buyer as it is sent.
fn order(buyer: i64) -> String {
    let token = access(buyer).mint(&keys()).unwrap();
    let body = json!({"itemId": ITEM, "promoId": PROMO, "token": token}).to_string();
    let (cookie, length) = (cookie(session(buyer)), body.len());
    format!(
        "POST /order/create HTTP/1.1\r\nHost: shop\r\nCookie: {cookie}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop\r\n{more}\r\n")
}

async fn open(shop: &Shop) -> Option<u32> {
    let metrics = shop.metrics().await;
    let mut lines = metrics.lines();
    let open = lines.find_map(|line| line.strip_prefix("floodgate_edge_connections "))?;
    open.parse().ok()
}

#[tokio::test]
async fn a_connection_goes_on_whichever_way_its_requests_take() {
    let peer = Peer::start().await;
    let shop = Plan::new(&[&peer]).start().await;
    let signed_in = format!("Cookie: {}\r\n", cookie(session(1)));
    let chunked = "POST /order/create HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\n{}\r\n0\r\n\r\n";
    // Answered at once, after an order server was asked, passed on, and by Pingora.
    let kinds = [
        (get("/", ""), 200),
        (get("/resources/none.html", ""), 404),
        (get("/item/get?id=3", ""), 200),
        (get("/item/get?id=404", ""), 404),
        (order(1), 200),
        (get("/user/get", ""), 401),
        (get("/user/get", &signed_in), 200),
        (get("/%69tem/get?id=3", ""), 404),
        (chunked.to_owned(), 401),
    ];
    for seed in 0..8 {
        let mut dice = Dice::new(seed);
        let mut wire = Wire::connect(shop.edge.listen).await;
        for _ in 0..60 {
            // Mostly one at a time; now and then the next comes with it, or some of it is late.
            let count = 1 + dice.below(5) / 4;
            let asked: Vec<_> = (0..count)
                .map(|_| &kinds[dice.below(kinds.len())])
                .collect();
            let is_lone = count == 1 || asked.iter().all(|(text, _)| !text.contains("chunked"));
            let sent: String = asked.iter().map(|(text, _)| text.as_str()).collect();
            if is_lone && dice.below(4) == 0 {
                let (first, last) = sent.split_at(dice.below(sent.len()));
                wire.send(first).await;
                sleep(Duration::from_millis(1)).await;
                wire.send(last).await;
            } else {
                wire.send(&sent).await;
            }
            for (text, status) in asked {
                let reply = timeout(SOON, wire.reply(false)).await.unwrap();
                // Pingora closes a connection on which more came than its request.
                let Some(reply) = reply else {
                    assert!(count > 1, "{text}");
                    wire = Wire::connect(shop.edge.listen).await;
                    break;
                };
                assert_eq!(reply.status, *status, "{text}");
            }
        }
        until(async || open(&shop).await == Some(1)).await;
    }
    until(async || open(&shop).await == Some(0)).await;
}

#[tokio::test]
async fn what_comes_while_an_order_is_waited_for_is_answered_after_it() {
    let peer = Peer::start().await;
    let mut plan = Plan::new(&[&peer]);
    // What one thread has answered, it has seen after what came before.
    plan.edge.threads = 1;
    let shop = plan.start().await;
    let mut wire = Wire::connect(shop.edge.listen).await;
    for _ in 0..3 {
        peer.set(Mode::Hold);
        wire.send(order(1)).await;
        peer.arrived().await;
        wire.send(get("/resources/none.html", "")).await;
        // One that is answered meanwhile shows that nobody waits for the other.
        let answer = shop.get("/").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        peer.release(1);
        let mut statuses = Vec::new();
        for _ in 0..2 {
            let reply = timeout(SOON, wire.reply(false)).await.unwrap();
            statuses.push(reply.unwrap().status);
        }
        assert_eq!(statuses, [200, 404]);
    }
}

#[tokio::test]
async fn there_are_no_more_connections_than_there_may_be_and_each_place_is_given_back() {
    let peer = Peer::start().await;
    let mut plan = Plan::new(&[&peer]);
    plan.edge.limits.connections_per_address_max = 2;
    // Longer than a busy machine takes to open three.
    plan.edge.limits.idle_timeout = Millis::seconds(2);
    plan.edge.limits.read_timeout = Millis::new(500);
    let shop = plan.start().await;
    let listen = shop.edge.listen;
    // Each ends in another way.
    let closing = "Connection: close\r\n";
    for request in [
        String::new(),
        "GET /".to_owned(),
        get("/", ""),
        get("/", closing),
        get("/resources/none.html", closing),
        get("/%69tem", closing),
        get("/%69tem", ""),
        get("/", "").repeat(3),
        order(1),
    ] {
        until(async || open(&shop).await == Some(0)).await;
        let mut both = [Wire::connect(listen).await, Wire::connect(listen).await];
        until(async || open(&shop).await == Some(2)).await;
        let mut third = Wire::connect(listen).await;
        assert_eq!(
            timeout(SOON, third.rest()).await.unwrap(),
            b"",
            "closed at once"
        );
        for wire in &mut both {
            wire.send(&request).await;
        }
        let [mut first, second] = both;
        // One client goes away, the other waits until he is let go.
        drop(second);
        timeout(SOON, first.rest()).await.unwrap();
    }
    until(async || open(&shop).await == Some(0)).await;
}

#[tokio::test]
async fn a_client_that_says_no_more_is_answered_and_let_go() {
    let peer = Peer::start().await;
    let shop = Plan::new(&[&peer]).start().await;
    for round in 0..40 {
        for request in [get("/", ""), get("/item/get?id=3", ""), order(1)] {
            let mut wire = Wire::connect(shop.edge.listen).await;
            wire.send(request).await;
            if round % 2 == 0 {
                tokio::task::yield_now().await;
            }
            wire.end_sending().await;
            let answer = timeout(SOON, wire.rest()).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        }
    }
    until(async || open(&shop).await == Some(0)).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_no_place_at_an_order_server_and_is_let_go() {
    const ORDERS: usize = 400;
    let peer = Peer::start().await;
    let mut plan = Plan::new(&[&peer]);
    plan.edge.limits.in_flight_max = 1;
    plan.edge.limits.read_timeout = Millis::seconds(2);
    let shop = plan.start().await;
    peer.set(Mode::Long);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let stream: TcpStream = socket.connect(shop.edge.listen).await.unwrap();
    let mut wire = Wire::of(stream);
    wire.send(order(1).repeat(ORDERS)).await;
    // When no more orders are taken up, an answer waits for the client to read.
    until(async || {
        let before = peer.seen().len();
        sleep(Duration::from_millis(200)).await;
        before > 0 && peer.seen().len() == before
    })
    .await;
    assert!(peer.seen().len() < ORDERS, "the client is waited for");
    let token = access(2).mint(&keys()).unwrap();
    let answer = shop.order(2, &token).send().await.unwrap();
    assert_eq!(answer.status(), 200, "there is a place for another");
    let gone = "floodgate_edge_answers_total{outcome=\"gone\",route=\"order_create\"} 1";
    until(async || shop.metrics().await.contains(gone)).await;
}
