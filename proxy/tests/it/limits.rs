//! How often: per address as far as it can be believed, per buyer, and for accounts.

use lua_free_rules::limit::Rate;
use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Plan, refusal};
use crate::peer::Peer;

const TWO: Rate = Rate {
    per_second: 1,
    burst: 2,
};
const LIMITED: (StatusCode, u64) = (StatusCode::TOO_MANY_REQUESTS, 30002);

#[tokio::test]
async fn a_client_cannot_write_himself_another_address() {
    let mut plan = Plan::new(&[]);
    plan.edge.rates.address = TWO;
    let shop = plan.start().await;
    let from = |address: &str| {
        refusal(
            shop.get("/promo/state?id=7")
                .header("x-forwarded-for", address),
        )
    };
    assert_eq!(from("198.51.100.1").await.1, 0);
    assert_eq!(from("198.51.100.2").await.1, 0);
    assert_eq!(from("198.51.100.3").await, LIMITED);
    let limited = shop.get("/").send().await.unwrap();
    assert_eq!(limited.headers()["retry-after"], "1");
    shop.clock.advance_ms(1_000);
    assert_eq!(from("198.51.100.4").await.1, 0);
}

#[tokio::test]
async fn a_trusted_proxy_tells_clients_apart_and_ipv6_by_64() {
    let mut plan = Plan::new(&[]);
    plan.edge.rates.address = TWO;
    plan.edge.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let shop = plan.start().await;
    let from = |address: &str| {
        refusal(
            shop.get("/promo/state?id=7")
                .header("x-forwarded-for", address),
        )
    };
    assert_eq!(from("198.51.100.1").await.1, 0);
    assert_eq!(from("198.51.100.1, 127.0.0.9").await.1, 0);
    assert_eq!(from("192.0.2.1, 198.51.100.1").await, LIMITED);
    assert_eq!(from("198.51.100.2").await.1, 0);
    assert_eq!(from("2001:db8::1").await.1, 0);
    assert_eq!(from("2001:db8::2").await.1, 0);
    assert_eq!(from("2001:db8::3").await, LIMITED);
    assert_eq!(from("2001:db8:0:1::3").await.1, 0);
}

#[tokio::test]
async fn a_rate_of_zero_means_zero() {
    let mut plan = Plan::new(&[]);
    plan.edge.rates.address = Rate {
        per_second: 0,
        burst: 0,
    };
    let shop = plan.start().await;
    assert_eq!(refusal(shop.get("/")).await, LIMITED);
}

#[tokio::test]
async fn accounts_and_buyers_have_limits_of_their_own() {
    let peer = Peer::start().await;
    let mut plan = Plan::new(&[&peer]);
    plan.edge.rates.accounts = TWO;
    plan.edge.rates.buyer = TWO;
    let shop = plan.start().await;
    let login = || refusal(shop.post("/user/login", &json!({"tel": "1", "password": "p"})));
    assert_eq!([login().await.1, login().await.1], [0, 0]);
    assert_eq!(login().await, LIMITED);
    assert_eq!(peer.count("/user/login"), 2);
    shop.sign_in(1).await;
    let ask = |buyer| {
        let body = json!({"promoId": 7});
        refusal(shop.post_as(buyer, "/order/generateverifycode", &body))
    };
    assert_eq!([ask(1).await.1, ask(1).await.1], [0, 0]);
    assert_eq!(ask(1).await, LIMITED);
    assert_eq!(ask(2).await.1, 0);
}
