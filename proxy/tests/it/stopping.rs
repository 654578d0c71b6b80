//! Stopping: what is in flight is finished, what is idle is not waited for.

use std::time::Duration;

use reqwest::StatusCode;

use crate::harness::{Plan, access, keys, until};
use crate::peer::{Mode, Peer};
use crate::wire::Wire;

/// Longer than any test may take: to wait for it would be to hang.
const GRACE: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_request_in_flight_is_finished_and_idle_connections_are_closed() {
    let peer = Peer::start().await;
    let shop = Plan::new(&[&peer]).start().await;
    let mut idle = Wire::connect(shop.edge.listen).await;
    assert_eq!(idle.ask("GET /").await.status, 200);
    peer.set(Mode::Hold);
    let token = access(1).mint(&keys()).unwrap();
    let order = tokio::spawn(shop.order(1, &token).send());
    peer.arrived().await;
    let (listen, admin) = (shop.edge.listen, shop.edge.admin);
    let stopping = tokio::spawn(shop.edge.stop(GRACE));
    assert!(
        idle.reply(false).await.is_none(),
        "idle connections are closed"
    );
    assert!(!stopping.is_finished());
    let ready = reqwest::get(format!("http://{admin}/ready")).await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let ready: serde_json::Value = ready.json().await.unwrap();
    assert_eq!(
        (&ready["ready"], &ready["draining"]),
        (&false.into(), &true.into())
    );
    peer.release(1);
    assert_eq!(order.await.unwrap().unwrap().status(), StatusCode::OK);
    stopping.await.unwrap();
    assert!(tokio::net::TcpStream::connect(listen).await.is_err());
}

/// What the edge answers by itself may have to be waited for, too.
#[tokio::test]
async fn an_answer_that_is_waited_for_is_the_last_on_its_connection() {
    for fast_path in [true, false] {
        let peer = Peer::start().await;
        let mut plan = Plan::new(&[&peer]);
        plan.edge.fast_path = fast_path;
        let shop = plan.start().await;
        peer.set(Mode::Hold);
        let mut wire = Wire::connect(shop.edge.listen).await;
        wire.send("GET /item/get?id=3 HTTP/1.1\r\nHost: shop\r\n\r\n")
            .await;
        peer.arrived().await;
        let listen = shop.edge.listen;
        let stopping = tokio::spawn(shop.edge.stop(GRACE));
        // That stopping has begun shows at the listener.
        until(async || tokio::net::TcpStream::connect(listen).await.is_err()).await;
        peer.release(1);
        let answer = wire.reply(false).await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(wire.reply(false).await.is_none());
        stopping.await.unwrap();
    }
}

#[tokio::test]
async fn grace_has_an_end() {
    let peer = Peer::start().await;
    let shop = Plan::new(&[&peer]).start().await;
    peer.set(Mode::Hold);
    let token = access(1).mint(&keys()).unwrap();
    let _order = tokio::spawn(shop.order(1, &token).send());
    peer.arrived().await;
    shop.edge.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn the_admin_listener_tells_how_it_is() {
    let shop = Plan::new(&[]).start().await;
    let ask = async |path: &str| {
        let url = format!("http://{}{path}", shop.edge.admin);
        shop.client.get(url).send().await.unwrap()
    };
    assert_eq!(ask("/live").await.status(), StatusCode::OK);
    assert_eq!(ask("/else").await.status(), StatusCode::NOT_FOUND);
    let ready: serde_json::Value = ask("/ready").await.json().await.unwrap();
    assert_eq!(
        (&ready["ready"], &ready["promos"]),
        (&true.into(), &1.into())
    );
    shop.get("/").send().await.unwrap();
    let counted = "floodgate_edge_answers_total{outcome=\"ok\",route=\"page\"} 1";
    until(async || shop.metrics().await.contains(counted)).await;
}
