//! What takes long, and what happens when the clock is set back.

use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::Millis;

use super::*;
use crate::Control;
use crate::conformance::sale::{Sale, past_use_ms, refusal, request};

type EmbeddedSale = Sale<EmbeddedHome>;

fn rows(sale: &EmbeddedSale, table: &str) -> i64 {
    let db = schema::open_reader(&file(sale.home.directory.path())).unwrap();
    db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
        row.get(0)
    })
    .unwrap()
}

#[tokio::test]
async fn keys_are_kept_until_nobody_can_ask_and_reservations_beyond() {
    let sale = EmbeddedSale::open(|_| ()).await;
    let mut session = sale.sign_in(1).await;
    let access = sale.enter(session).await.unwrap();
    let request = request(session, access, 1);
    let made = sale
        .engine
        .reserve(request.clone())
        .await
        .unwrap()
        .reservation;
    let terms = sale.promo().await.terms;
    let end = terms
        .ends_at
        .plus_ms(terms.pay_within.ms())
        .plus_ms(86_400_000);
    let ask = async |sale: &EmbeddedSale, session| {
        let mut request = request.clone();
        request.session = session;
        sale.engine.reserve(request).await
    };
    sale.home.clock.set(end.plus_ms(-1));
    session = sale.sign_in(1).await;
    sale.engine.tend().await.unwrap();
    assert_eq!(ask(&sale, session).await.unwrap().reservation, made);
    sale.home.clock.set(end);
    sale.engine.tend().await.unwrap();
    let answer = ask(&sale, session).await;
    assert_eq!(refusal(answer), Refusal::NotOpen { opens_in_s: None });
    assert_eq!(
        rows(
            &sale,
            "reservations WHERE coalesce(key, body, jti) IS NOT NULL"
        ),
        0
    );
    // A late release still finds its reservation.
    assert_eq!(
        sale.engine.reservation(made.order).await.unwrap(),
        Some(made)
    );
    assert!(sale.release(&made).await.unwrap());
    assert_eq!(rows(&sale, "holdings"), 0);
}

#[tokio::test]
async fn upkeep_forgets_all_that_is_over_in_one_call() {
    let sale = EmbeddedSale::open(|it| {
        it.stock = 2_000;
        it.token_ttl = Millis::seconds(5);
    })
    .await;
    for buyer in 0..1_200 {
        let session = sale.sign_in(buyer).await;
        let challenge = sale.challenge().await;
        sale.enter_with(session, Some(challenge)).await.unwrap();
    }
    assert_eq!(sale.promo().await.places_issued, 1_200);
    sale.engine.tend().await.unwrap();
    let kept = ["sessions", "challenges", "holdings"].map(|table| rows(&sale, table));
    assert_eq!(kept, [1_200; 3]);
    sale.home.advance_ms(4_000_000).await;
    sale.engine.tend().await.unwrap();
    let kept = ["sessions", "challenges", "holdings"].map(|table| rows(&sale, table));
    assert_eq!(kept, [0; 3]);
    assert_eq!(sale.promo().await.places_issued, 0);
}

#[tokio::test]
async fn a_place_that_was_taken_back_stays_so_when_the_clock_is_set_back() {
    let sale = EmbeddedSale::open(|it| {
        it.stock = 1;
        it.door = 1;
        it.token_ttl = Millis::seconds(1);
    })
    .await;
    let (first, second) = (sale.sign_in(1).await, sale.sign_in(2).await);
    let old = sale.enter(first).await.unwrap();
    let begun = sale.now().await;
    sale.home.advance_ms(past_use_ms(1_000)).await;
    let new = sale.enter(second).await.unwrap();
    sale.home.clock.set(begun);
    let answer = sale.engine.reserve(request(first, old, 1)).await;
    assert_eq!(refusal(answer), Refusal::TokenInvalid);
    assert_eq!(refusal(sale.enter(first).await), Refusal::DoorFull);
    sale.engine.reserve(request(second, new, 1)).await.unwrap();
}

#[tokio::test]
async fn a_challenge_stays_spent_when_the_clock_is_set_back_a_little() {
    let sale = EmbeddedSale::open(|_| ()).await;
    let challenge = sale.challenge().await;
    assert!(
        sale.engine
            .spend(crate::conformance::sale::PROMO, challenge)
            .await
            .unwrap()
    );
    sale.home.advance_ms(61_000).await;
    sale.engine.tend().await.unwrap();
    sale.home.clock.advance_ms(-2_000);
    let answer = sale
        .enter_with(sale.sign_in(1).await, Some(challenge))
        .await;
    assert_eq!(refusal(answer), Refusal::ChallengeFailed);
}

#[tokio::test]
async fn a_clock_set_back_neither_resets_a_sale_nor_hides_its_stock() {
    let sale = EmbeddedSale::open(|it| it.stock = 1).await;
    let made = sale.buy(1, 1).await.unwrap();
    sale.home.advance_ms(2_000).await;
    sale.release(&made.reservation).await.unwrap();
    let again = sale.buy(2, 1).await.unwrap();
    sale.home.clock.advance_ms(-3_600_000);
    // Before its start by the clock, but it has sold.
    let answer = sale.publish("other", |_| ()).await;
    assert_eq!(refusal(answer), Refusal::NotAllowed);
    sale.release(&again.reservation).await.unwrap();
    let promo = sale.promo().await;
    assert!(
        !promo.sold_out,
        "the last time it was told lies in the future"
    );
    assert_eq!(promo.sold_epoch.0, again.sold_epoch.0 + 1);
    let answer = sale.enter(sale.sign_in(3).await).await;
    assert!(matches!(
        refusal(answer),
        Refusal::NotOpen {
            opens_in_s: Some(_)
        }
    ));
    sale.check_events(1).await;
    sale.engine
        .control(crate::conformance::sale::PROMO, Control::Close)
        .await
        .unwrap();
}
