//! Challenges and access tokens: each refusal, one attempt for each challenge, one place for each buyer.

use altcha::{SolveChallengeOptions, solve_challenge};
use engine::Control;
use lua_free_rules::challenge::Kind;
use lua_free_rules::token::Access;
use lua_free_rules::units::{BuyerId, PromoId};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{ITEM, PROMO, Plan, Shop, cookie, data, keys, refusal, session, until};

const CHALLENGE: &str = "/order/generateverifycode";
const TOKEN: &str = "/order/generatetoken";

async fn challenge(shop: &Shop, buyer: i64, kind: &str) -> Value {
    let body = json!({"promoId": PROMO, "kind": kind});
    let answer = shop.post_as(buyer, CHALLENGE, &body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    data(answer).await
}

fn solve(issued: &Value) -> (altcha::Challenge, altcha::Solution) {
    let challenge: altcha::Challenge = serde_json::from_value(issued["altcha"].clone()).unwrap();
    let solution = solve_challenge(SolveChallengeOptions::new(&challenge));
    let solution = solution.unwrap().unwrap();
    (challenge, solution)
}

fn answered(challenge: &Value, answer: &str) -> Value {
    json!({"promoId": PROMO, "itemId": ITEM, "challenge": challenge["challenge"], "answer": answer})
}

async fn with_altcha() -> Shop {
    let mut plan = Plan::new(&[]);
    plan.challenges = vec![Kind::Altcha, Kind::Image];
    let shop = plan.start().await;
    shop.sign_in(1).await;
    shop.sign_in(2).await;
    shop
}

#[tokio::test]
async fn solving_the_puzzle_gives_a_token_for_this_buyer() {
    let shop = with_altcha().await;
    let issued = challenge(&shop, 1, "altcha").await;
    assert_eq!(issued["kind"], "altcha");
    let (_, solution) = solve(&issued);
    let body = answered(&issued, &solution.derived_key);
    let answer = shop.post_as(1, TOKEN, &body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let granted = data(answer).await;
    let token = granted["token"].as_str().unwrap();
    let access = Access::verify(token, &keys(), crate::harness::NOW, 0).unwrap();
    assert_eq!(access.buyer, BuyerId(1));
    assert_eq!(granted["expiresAt"], access.expires_at.0);
    // Asking again with another challenge returns the live token and leaves that challenge unspent.
    let issued = challenge(&shop, 1, "altcha").await;
    let body = answered(&issued, &solve(&issued).1.derived_key);
    for _ in 0..2 {
        let again = data(shop.post_as(1, TOKEN, &body).send().await.unwrap()).await;
        assert_eq!(again["token"], token);
    }
}

#[tokio::test]
async fn a_widget_may_send_its_whole_payload() {
    use base64::Engine as _;
    let shop = with_altcha().await;
    let issued = challenge(&shop, 1, "altcha").await;
    let (challenge, solution) = solve(&issued);
    let payload = altcha::Payload {
        challenge,
        solution,
    };
    let payload = serde_json::to_vec(&payload).unwrap();
    let payload = base64::engine::general_purpose::STANDARD.encode(payload);
    let body = answered(&issued, &payload);
    assert_eq!(refusal(shop.post_as(1, TOKEN, &body)).await.1, 0);
}

#[tokio::test]
async fn a_wrong_answer_spends_the_challenge() {
    let shop = with_altcha().await;
    let issued = challenge(&shop, 1, "altcha").await;
    let right = answered(&issued, &solve(&issued).1.derived_key);
    let wrong = answered(&issued, "00");
    let failed = (StatusCode::FORBIDDEN, 30004);
    assert_eq!(refusal(shop.post_as(1, TOKEN, &wrong)).await, failed);
    assert_eq!(refusal(shop.post_as(1, TOKEN, &right)).await, failed);
}

#[tokio::test]
async fn a_challenge_is_for_one_session_and_a_while() {
    let shop = with_altcha().await;
    let issued = challenge(&shop, 1, "altcha").await;
    let right = answered(&issued, &solve(&issued).1.derived_key);
    assert_eq!(refusal(shop.post_as(2, TOKEN, &right)).await.1, 30004);
    let none = json!({"promoId": PROMO, "itemId": ITEM, "answer": "x"});
    assert_eq!(refusal(shop.post_as(1, TOKEN, &none)).await.1, 10001);
    shop.clock.advance_ms(120_000);
    until(async || refusal(shop.post_as(1, TOKEN, &right)).await.1 == 30004).await;
}

#[tokio::test]
async fn a_plain_form_gets_the_picture_and_the_challenge_as_a_cookie() {
    let shop = with_altcha().await;
    let get = shop
        .get(&format!("{CHALLENGE}?promoId={PROMO}"))
        .header("accept", "image/avif,image/*;q=0.8")
        .header("cookie", cookie(session(1)));
    let picture = get.send().await.unwrap();
    assert_eq!(picture.headers()["content-type"], "image/jpeg");
    let set = picture.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in [
        "floodgate_challenge=",
        "HttpOnly",
        "SameSite=Lax",
        "Path=/order",
    ] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure"), "a plain listener on loopback");
    assert!(picture.bytes().await.unwrap().starts_with(&[0xff, 0xd8]));
    let envelope = set.split(';').next().unwrap();
    let form = shop
        .client
        .post(shop.url(TOKEN))
        .header("cookie", format!("{}; {envelope}", cookie(session(1))))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("promoId={PROMO}&itemId={ITEM}&answer=wrong"));
    assert_eq!(refusal(form).await.1, 30004);
    let data_url = challenge(&shop, 1, "image").await["image"].clone();
    assert!(
        data_url
            .as_str()
            .unwrap()
            .starts_with("data:image/jpeg;base64,")
    );
}

#[tokio::test]
async fn each_refusal_of_a_token_is_told() {
    let mut plan = Plan::new(&[]);
    plan.stock = 1;
    plan.door = 1;
    plan.starts_in_ms = 2_500;
    let shop = plan.start().await;
    let body = json!({"promoId": PROMO, "itemId": ITEM});
    let code = async |buyer, body: &Value| refusal(shop.post_as(buyer, TOKEN, body)).await.1;
    assert_eq!(
        refusal(shop.post(TOKEN, &body)).await,
        (StatusCode::UNAUTHORIZED, 20003)
    );
    let early = shop.post_as(1, TOKEN, &body).send().await.unwrap();
    assert_eq!(early.status(), StatusCode::CONFLICT);
    assert_eq!(early.headers()["retry-after"], "3");
    shop.clock.advance_ms(2_500);
    assert_eq!(code(1, &body).await, 20003, "signed, but without a record");
    for buyer in 1..=2 {
        shop.sign_in(buyer).await;
    }
    assert_eq!(
        code(1, &json!({"promoId": 99, "itemId": ITEM})).await,
        10003
    );
    assert_eq!(
        code(1, &json!({"promoId": PROMO, "itemId": 99})).await,
        10001
    );
    assert_eq!(code(1, &body).await, 0);
    assert_eq!(code(2, &body).await, 30007, "the door is full");
    shop.engine.sign_out(session(1)).await.unwrap();
    assert_eq!(code(1, &body).await, 20003, "signed out");
    let control = |control| shop.engine.control(PromoId(PROMO), control);
    control(Control::Pause).await.unwrap();
    until(async || code(2, &body).await == 30009).await;
    control(Control::Close).await.unwrap();
    until(async || code(2, &body).await == 30003).await;
}

#[tokio::test]
async fn a_promo_without_a_challenge_says_so() {
    let shop = Plan::new(&[]).start().await;
    let issued = challenge(&shop, 1, "none").await;
    assert_eq!(
        (&issued["kind"], &issued["challenge"]),
        (&json!("none"), &json!("none"))
    );
    let wrong = json!({"promoId": PROMO, "kind": "image"});
    assert_eq!(refusal(shop.post_as(1, CHALLENGE, &wrong)).await.1, 10001);
}
