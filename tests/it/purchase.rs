//! One purchase: tokens, challenges, keys, sessions, payment, and what must not work.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::buyer::Buyer;
use crate::house::{House, Plan, answer, code, open_promo, promo, until};
use crate::relay::Relay;

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_submits_give_the_same_order() {
    let house = House::open(&Plan::new(&[open_promo(1, 1)]));
    let (buyer, other) = (house.buyer().await, house.buyer().await);
    let token = buyer.token(1).await;
    let sent = join_all((0..20).map(|_| buyer.order(1, &token, Some("a-key")))).await;
    let order = sent[0].1["data"]["orderId"].clone();
    for (status, body) in &sent {
        assert_eq!((*status, &body["data"]["orderId"]), (202, &order), "{body}");
    }
    // Sold out now; the same request still finds its order, also under another key.
    for key in [Some("a-key"), Some("another"), None] {
        let (status, body) = buyer.order(1, &token, key).await;
        assert_eq!((status, &body["data"]["orderId"]), (202, &order), "{body}");
    }
    let (status, body) = buyer
        .order_of(
            json!({ "itemId": 1, "promoId": 1, "amount": 1, "token": token, "note": 1 }),
            Some("a-key"),
        )
        .await;
    assert_eq!((status, &body["data"]["orderId"]), (202, &order), "{body}");
    // After close.
    let (status, body) = house
        .operate("/admin/promo/close", json!({ "promoId": 1 }))
        .await;
    assert_eq!(status, 200, "{body}");
    let (status, body) = buyer.order(1, &token, Some("a-key")).await;
    assert_eq!((status, &body["data"]["orderId"]), (202, &order), "{body}");
    // Another buyer is not helped by any of it.
    let (status, body) = other.order(1, &token, Some("a-key")).await;
    assert_eq!((status, code(&body)), (403, 30005));
    house.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_names_one_request() {
    let house = House::open(&Plan::new(&[promo(
        1,
        10,
        "starts_in = \"0s\"",
        "per_buyer = 3",
    )]));
    let buyer = house.buyer().await;
    let token = buyer.token(1).await;
    let body = |amount: u32| json!({ "itemId": 1, "promoId": 1, "amount": amount, "token": token });
    assert_eq!(buyer.order_of(body(1), Some("k")).await.0, 202);
    let (status, refused) = buyer.order_of(body(2), Some("k")).await;
    assert_eq!((status, code(&refused)), (422, 30011));
    let second = buyer.token(1).await;
    assert_ne!(
        second, token,
        "a used place gives a new token while units are left"
    );
    let two = json!({ "itemId": 1, "promoId": 1, "amount": 2, "token": second });
    assert_eq!(buyer.order_of(two, Some("k2")).await.0, 202);
    let (status, refused) = buyer.ask(1).await;
    assert_eq!((status, code(&refused)), (409, 30006), "three is the limit");
    house.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_finds_its_order_and_buys_nothing_new() {
    let house = House::open(&Plan::new(&[promo(
        1,
        10,
        "starts_in = \"0s\"",
        "[token]\nttl = \"5s\"",
    )]));
    let (buyer, idle) = (house.buyer().await, house.buyer().await);
    let (token, unused) = (buyer.token(1).await, idle.token(1).await);
    let (status, made) = buyer.order(1, &token, Some("k")).await;
    assert_eq!(status, 202, "{made}");
    let refused = until("the unused token to expire", || async {
        // Another amount than the token allows would be refused before; one that is asked for a
        // second time returns the live token until it has expired.
        let (_, body) = idle.ask(1).await;
        let now = body["data"]["token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if now == unused {
            None
        } else {
            Some(idle.order(1, &unused, None).await)
        }
    })
    .await;
    assert_eq!((refused.0, code(&refused.1)), (403, 30005), "{}", refused.1);
    let (status, again) = buyer.order(1, &token, Some("k")).await;
    assert_eq!(
        (status, &again["data"]["orderId"]),
        (202, &made["data"]["orderId"]),
        "{again}"
    );
    house.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_202_is_retried() {
    let relay = Relay::open().await;
    let house = House::open(&Plan::new(&[open_promo(1, 5)]).upstreams(&[relay.address]));
    relay.lead_to(house.orders[0]);
    wait_for_orders(&house).await;
    let buyer = house.buyer().await;
    let token = buyer.token(1).await;
    relay.swallow_answers(true);
    let (status, body) = buyer.order(1, &token, Some("k")).await;
    assert_eq!((status, code(&body)), (503, 30008), "{body}");
    relay.swallow_answers(false);
    let order = until("the retry to be answered", || async {
        let (status, body) = buyer.order(1, &token, Some("k")).await;
        (status == 202).then(|| body["data"]["orderId"].as_str().unwrap().to_owned())
    })
    .await;
    buyer.until_state(&order, "written").await;
    let (_, list) = buyer.get("/order/list").await;
    assert_eq!(
        list["data"].as_array().unwrap().len(),
        1,
        "one order, however often it was sent"
    );
    house.assert_clean();
}

/// Waits until the edge's order servers answer.
pub async fn wait_for_orders(house: &House) {
    until("the order servers to be seen", || async {
        let response = house
            .http
            .post(house.url("/user/getotp"))
            .json(&json!({ "tel": "x" }));
        (response.send().await.unwrap().status() == 400).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_out_ends_tokens_and_orders() {
    let house = House::open(&Plan::new(&[open_promo(1, 5)]));
    let buyer = house.buyer().await;
    let token = buyer.token(1).await;
    assert_eq!(buyer.get("/user/get").await.0, 200);
    assert_eq!(buyer.post("/user/logout", json!({})).await.0, 200);
    assert_eq!(buyer.get("/user/get").await.0, 401);
    for (status, body) in [buyer.ask(1).await, buyer.order(1, &token, None).await] {
        assert_eq!((status, code(&body)), (401, 20003), "{body}");
    }
    let mut again = buyer.clone();
    again.session.clear();
    again.sign_in().await;
    assert_eq!(
        again.token(1).await,
        token,
        "the place and its live token are still the buyer's"
    );
    assert_eq!(again.order(1, &token, None).await.0, 202);
    house.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_for_one_buyer_promo_and_item() {
    let plan = Plan::new(&[
        open_promo(1, 5),
        "id = 2\nitem = 2\nstarts_in = \"0s\"\nlasts = \"1h\"\nprice = \"9.00\"\nstock = 5\nchallenge = \"none\"\n".to_owned(),
    ]);
    let house = House::open(&plan);
    let (buyer, other) = (house.buyer().await, house.buyer().await);
    let token = buyer.token(1).await;
    let sent_up = house.orders_sent_up().await;
    let flipped = |at: usize| {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let body = |item: i64, promo: i64, token: &str| json!({ "itemId": item, "promoId": promo, "amount": 1, "token": token });
    let tries: Vec<(&Buyer, Value)> = vec![
        (&other, body(1, 1, &token)),
        (&buyer, body(2, 2, &token)),
        (&buyer, body(2, 1, &token)),
        (&buyer, body(1, 1, &flipped(token.len() / 2))),
        (&buyer, body(1, 1, &flipped(token.len() - 2))),
        (&buyer, body(1, 1, &flipped(3))),
        (&buyer, body(1, 1, &"x".repeat(5_000))),
        (&buyer, body(1, 1, &buyer.session)),
        (&buyer, body(1, 1, "")),
        (&buyer, json!({ "itemId": 1, "promoId": 1, "amount": 1 })),
    ];
    for (who, body) in tries {
        let (status, answer) = who.order_of(body.clone(), None).await;
        assert_eq!((status, code(&answer)), (403, 30005), "{body} -> {answer}");
    }
    assert_eq!(
        house.orders_sent_up().await,
        sent_up,
        "none of them reached an order server"
    );
    assert_eq!(buyer.order(1, &token, None).await.0, 202);
    house.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_good_for_one_attempt() {
    let altcha = promo(
        1,
        5,
        "starts_in = \"0s\"",
        "challenge = [\"altcha\", \"image\"]",
    );
    let house = House::open(&Plan::new(&[altcha]));
    let (buyer, other) = (house.buyer().await, house.buyer().await);

    // No answer, a wrong one, and then the right one to a challenge that was spent.
    let (status, body) = buyer.ask(1).await;
    assert_eq!((status, code(&body)), (400, 10001), "{body}");
    let (challenge, right) = solved(&buyer).await;
    for given in ["00", right.as_str()] {
        let (status, body) = answered(&buyer, &challenge, given).await;
        assert_eq!((status, code(&body)), (403, 30004), "{body}");
    }

    // Another's challenge does not help; nor does an answer sent twice at once.
    let (challenge, right) = solved(&buyer).await;
    let (status, body) = answered(&other, &challenge, &right).await;
    assert_eq!((status, code(&body)), (403, 30004), "{body}");
    let twice = join_all((0..2).map(|_| answered(&buyer, &challenge, &right))).await;
    let tokens: Vec<_> = twice
        .iter()
        .filter_map(|(_, body)| body["data"]["token"].as_str())
        .collect();
    assert!(!tokens.is_empty(), "{twice:?}");
    assert!(
        tokens.iter().all(|token| *token == tokens[0]),
        "one place, one live token"
    );
    let (status, body) = buyer.order(1, tokens[0], None).await;
    assert_eq!(status, 202, "{body}");

    // A picture is offered too; a wrong code spends it.
    let (status, body) = other
        .post(
            "/order/generateverifycode",
            json!({ "promoId": 1, "kind": "image" }),
        )
        .await;
    assert_eq!(status, 200, "{body}");
    assert!(
        body["data"]["image"]
            .as_str()
            .unwrap()
            .starts_with("data:image/png;base64,")
    );
    let challenge = body["data"]["challenge"].as_str().unwrap().to_owned();
    assert_eq!(code(&answered(&other, &challenge, "?????").await.1), 30004);
    let picture = house
        .http
        .get(house.url("/order/generateverifycode?promoId=1"))
        .header("Accept", "image/*")
        .bearer_auth(&other.session)
        .send()
        .await
        .unwrap();
    assert_eq!(picture.status(), 200);
    assert_eq!(picture.headers()["content-type"], "image/png");
    let cookie = picture.headers()["set-cookie"].to_str().unwrap();
    assert!(
        cookie.contains("floodgate_challenge=") && cookie.contains("HttpOnly"),
        "{cookie}"
    );
    assert!(picture.bytes().await.unwrap().starts_with(b"\x89PNG"));
    house.assert_clean();
}

/// An ALTCHA challenge and its answer, found as the page finds it.
async fn solved(buyer: &Buyer) -> (String, String) {
    let (status, body) = buyer
        .post(
            "/order/generateverifycode",
            json!({ "promoId": 1, "kind": "altcha" }),
        )
        .await;
    assert_eq!(status, 200, "{body}");
    let puzzle: altcha::Challenge = serde_json::from_value(body["data"]["altcha"].clone()).unwrap();
    let solution = tokio::task::spawn_blocking(move || {
        altcha::solve_challenge(altcha::SolveChallengeOptions::new(&puzzle))
            .unwrap()
            .unwrap()
    })
    .await
    .unwrap();
    (
        body["data"]["challenge"].as_str().unwrap().to_owned(),
        solution.derived_key,
    )
}

async fn answered(buyer: &Buyer, challenge: &str, answer: &str) -> (u16, Value) {
    let body = json!({ "promoId": 1, "itemId": 1, "challenge": challenge, "answer": answer });
    buyer.post("/order/generatetoken", body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_paid_or_it_expires_never_both() {
    let promo = promo(
        1,
        40,
        "starts_in = \"0s\"",
        "pay_within = \"10s\"\nper_buyer = 1",
    );
    let house = House::open(&Plan::new(&[promo]));
    let buyers = house.buyers(40).await;
    let orders = join_all(buyers.iter().map(|buyer| buyer.buy(1))).await;
    // Everyone pays as near to the deadline as can be, half of them just after it.
    let ended = join_all(buyers.iter().zip(&orders).enumerate().map(
        |(at, (buyer, order))| async move {
            let written = buyer.until_state(order, "written").await;
            let pay_by = written["payBy"].as_i64().unwrap();
            let offset = i64::try_from(at).unwrap() * 10 - 300;
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap();
            let wait = pay_by + offset - i64::try_from(now.as_millis()).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(wait.max(0).unsigned_abs())).await;
            let (status, body) = buyer.post("/order/pay", json!({ "orderId": order })).await;
            if status == 200 {
                buyer.until_state(order, "paid").await;
                true
            } else {
                assert_eq!(code(&body), 30010, "{body}");
                buyer.until_state(order, "expired").await;
                false
            }
        },
    ))
    .await;
    let paid = ended.iter().filter(|paid| **paid).count();
    until("the unpaid units to come back", || async {
        let (_, item) = buyers[0].get("/item/get?id=1").await;
        (item["data"]["stock"].as_u64() == Some((40 - paid) as u64)).then_some(())
    })
    .await;
    house.assert_clean();
}

/// A form without any script works too: form bodies, cookies instead of bearer tokens.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_form_buys_too() {
    let house = House::open(&Plan::new(&[open_promo(1, 5)]));
    let buyer = house.buyer().await;
    let form = |path: &str, body: &'static str| {
        house
            .http
            .post(house.url(path))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header(
                "Cookie",
                format!("theme=dark; floodgate_session={}", buyer.session),
            )
            .body(body)
            .send()
    };
    let (status, body) = answer(
        form("/order/generatetoken", "promoId=1&itemId=1")
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(status, 200, "{body}");
    let token = body["data"]["token"].as_str().unwrap();
    let sent = format!("itemId=1&promoId=1&amount=1&token={token}");
    let (status, body) = answer(form("/order/create", sent.leak()).await.unwrap()).await;
    assert_eq!(status, 202, "{body}");
    let login = house
        .http
        .post(house.url("/user/login"))
        .form(&[
            ("tel", buyer.tel.as_str()),
            ("password", crate::buyer::PASSWORD),
        ])
        .send()
        .await
        .unwrap();
    let cookie = login.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in ["floodgate_session=", "HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(
        !cookie.contains("Secure"),
        "a plain loopback listener cannot set Secure cookies"
    );
    house.assert_clean();
}
