//! Places: issued, used, taken back; challenges.

use lua_free_rules::challenge::Attempt;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::LEEWAY_S;
use lua_free_rules::units::{BuyerId, Generation, Millis, PromoId};

use super::Home;
use super::sale::{PROMO, Sale, nonce, past_use_ms, refusal, request};
use crate::{Control, Entry};

async fn places<H: Home>(sale: &Sale<H>) -> (u64, u64) {
    let promo = sale.promo().await;
    (promo.places_issued, promo.places_used)
}

/// Asking again returns the live token as it is, charges nothing, and leaves the challenge unspent.
pub async fn asking_again_returns_the_live_token<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    let session = sale.sign_in(1).await;
    let first = sale.enter(session).await.unwrap();
    assert_eq!(first.buyer, BuyerId(1));
    assert_eq!((first.promo, first.generation), (PROMO, Generation(1)));
    assert_eq!(
        (first.item, first.amount_max),
        (sale.promo().await.terms.item, 2)
    );
    assert_eq!(first.issued_at.0 % 1_000, 0);
    assert_eq!(first.expires_at.0 % 1_000, 0);
    assert!(first.expires_at > first.issued_at);
    let challenge = sale.challenge().await;
    // From another session too: the place is the buyer's.
    for session in [session, sale.sign_in(1).await] {
        let again = sale.enter_with(session, Some(challenge)).await.unwrap();
        assert_eq!(again, first);
    }
    assert_eq!(places(&sale).await, (1, 0));
    assert!(
        sale.engine.spend(PROMO, challenge).await.unwrap(),
        "it was unspent"
    );
}

/// Each refusal of the door, those that come first first.
pub async fn the_door_refuses_in_order<H: Home>() {
    let sale = Sale::<H>::none().await;
    let session = sale.sign_in(1).await;
    let mut stranger = session;
    stranger.id = nonce();
    assert_eq!(refusal(sale.enter(stranger).await), Refusal::NotSignedIn);
    let mut thief = session;
    thief.buyer = BuyerId(2);
    assert_eq!(refusal(sale.enter(thief).await), Refusal::NotSignedIn);
    assert_eq!(refusal(sale.enter(session).await), Refusal::NotFound);
    sale.publish("later", |it| it.starts_at = it.starts_at.plus_ms(90_000))
        .await
        .unwrap();
    let early = refusal(sale.enter(session).await);
    assert!(
        matches!(
            early,
            Refusal::NotOpen {
                opens_in_s: Some(1..=90)
            }
        ),
        "{early:?}"
    );
    sale.publish("now", |it| it.stock = 2).await.unwrap();
    sale.engine.control(PROMO, Control::Pause).await.unwrap();
    assert_eq!(refusal(sale.enter(session).await), Refusal::Paused);
    sale.engine.control(PROMO, Control::Resume).await.unwrap();
    sale.buy(1, 2).await.unwrap();
    // Nothing is left, and he is at his limit: sold out is what everyone is told.
    assert_eq!(refusal(sale.enter(session).await), Refusal::SoldOut);
    sale.engine
        .control(PROMO, Control::AddStock(1))
        .await
        .unwrap();
    assert_eq!(refusal(sale.enter(session).await), Refusal::PerBuyerLimit);
    let other = sale.sign_in(2).await;
    let mut elsewhere = Entry {
        promo: PromoId(99),
        session: other,
        attempt: None,
        jti: nonce(),
    };
    let answer = sale.engine.enter(elsewhere.clone()).await;
    assert_eq!(refusal(answer), Refusal::NotFound);
    elsewhere.promo = PROMO;
    sale.engine.enter(elsewhere).await.unwrap();
    sale.engine.control(PROMO, Control::Close).await.unwrap();
    let closed = refusal(sale.enter(other).await);
    assert_eq!(closed, Refusal::NotOpen { opens_in_s: None });
}

/// A full door refuses, and the challenge can be used later.
pub async fn a_full_door_leaves_the_challenge_unspent<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.stock = 2;
        it.door = 1;
    })
    .await;
    for buyer in [1, 2] {
        sale.enter(sale.sign_in(buyer).await).await.unwrap();
    }
    let late = sale.sign_in(3).await;
    let challenge = sale.challenge().await;
    for _ in 0..2 {
        let answer = sale.enter_with(late, Some(challenge)).await;
        assert_eq!(refusal(answer), Refusal::DoorFull);
    }
    assert_eq!(places(&sale).await, (2, 0));
    sale.engine
        .control(PROMO, Control::AddStock(1))
        .await
        .unwrap();
    sale.enter_with(late, Some(challenge)).await.unwrap();
    assert_eq!(places(&sale).await, (3, 0));
    assert!(
        !sale.engine.spend(PROMO, challenge).await.unwrap(),
        "now it is spent"
    );
}

/// A place whose token expired unused goes to the next buyer, not before the leeway is over; the
/// old token is worth nothing from that moment on.
pub async fn an_expired_place_goes_to_the_next_buyer<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.stock = 1;
        it.door = 1;
        it.token_ttl = Millis::seconds(1);
    })
    .await;
    let (first, second) = (sale.sign_in(1).await, sale.sign_in(2).await);
    let old = sale.enter(first).await.unwrap();
    assert_eq!(refusal(sale.enter(second).await), Refusal::DoorFull);
    sale.home.advance_ms(past_use_ms(1_000)).await;
    let new = sale.enter(second).await.unwrap();
    let answer = sale.engine.reserve(request(first, old, 1)).await;
    assert_eq!(refusal(answer), Refusal::TokenInvalid);
    assert_eq!(refusal(sale.enter(first).await), Refusal::DoorFull);
    sale.engine.reserve(request(second, new, 1)).await.unwrap();
    assert_eq!(places(&sale).await, (0, 1));
}

/// Until its leeway is over a token can be used, and so long its place is nobody else's.
pub async fn a_token_is_good_until_its_leeway_is_over<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.stock = 1;
        it.door = 1;
        it.token_ttl = Millis::seconds(1);
    })
    .await;
    let (session, other) = (sale.sign_in(1).await, sale.sign_in(2).await);
    let access = sale.enter(session).await.unwrap();
    sale.home.advance_ms(1_000).await;
    assert!(sale.now().await >= access.expires_at);
    sale.engine.tend().await.unwrap();
    assert_eq!(refusal(sale.enter(other).await), Refusal::DoorFull);
    assert_eq!(places(&sale).await, (1, 0));
    sale.engine
        .reserve(request(session, access, 1))
        .await
        .unwrap();
}

/// While his limit leaves units, a buyer whose token was used gets another on the same place.
pub async fn a_used_place_gets_a_new_token<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.stock = 2;
        it.door = 1;
    })
    .await;
    let session = sale.sign_in(1).await;
    let first = sale.enter(session).await.unwrap();
    sale.engine
        .reserve(request(session, first, 1))
        .await
        .unwrap();
    assert_eq!(places(&sale).await, (0, 1));
    sale.enter(sale.sign_in(2).await).await.unwrap();
    // The door is full: his place is his own.
    let challenge = sale.challenge().await;
    let second = sale.enter_with(session, Some(challenge)).await.unwrap();
    assert_ne!(second.jti, first.jti);
    assert_eq!(second.amount_max, 1);
    assert!(!sale.engine.spend(PROMO, challenge).await.unwrap());
    assert_eq!(places(&sale).await, (1, 1));
    assert_eq!(sale.enter(session).await.unwrap(), second);
    sale.engine
        .reserve(request(session, second, 1))
        .await
        .unwrap();
    assert_eq!(places(&sale).await, (1, 1));
}

/// A buyer whose orders all ended unpaid gives his place back.
pub async fn a_place_whose_orders_all_ended_goes_back<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.stock = 2;
        it.door = 1;
    })
    .await;
    let session = sale.sign_in(1).await;
    let mut orders = Vec::new();
    for _ in 0..2 {
        let access = sale.enter(session).await.unwrap();
        let reserved = sale
            .engine
            .reserve(request(session, access, 1))
            .await
            .unwrap();
        orders.push(reserved.reservation);
    }
    sale.release(&orders[0]).await.unwrap();
    assert_eq!(places(&sale).await, (0, 1), "one order still holds a unit");
    sale.release(&orders[1]).await.unwrap();
    assert_eq!(places(&sale).await, (0, 0));
    for buyer in [2, 3] {
        sale.enter(sale.sign_in(buyer).await).await.unwrap();
    }
    assert_eq!(refusal(sale.enter(session).await), Refusal::DoorFull);
}

/// If a second token is alive when the last order ends, the place is issued to it.
pub async fn a_place_with_a_live_second_token_stays_issued<H: Home>() {
    let sale = Sale::<H>::open(|it| it.token_ttl = Millis::seconds(2)).await;
    let session = sale.sign_in(1).await;
    let first = sale.enter(session).await.unwrap();
    let order = sale
        .engine
        .reserve(request(session, first, 1))
        .await
        .unwrap();
    let second = sale.enter(session).await.unwrap();
    sale.release(&order.reservation).await.unwrap();
    assert_eq!(places(&sale).await, (1, 0));
    sale.engine
        .reserve(request(session, second, 1))
        .await
        .unwrap();
    assert_eq!(places(&sale).await, (0, 1));
    // And if it expired before, the place goes back whole.
    let other = sale.sign_in(2).await;
    let first = sale.enter(other).await.unwrap();
    let order = sale.engine.reserve(request(other, first, 1)).await.unwrap();
    let second = sale.enter(other).await.unwrap();
    sale.home.advance_ms(past_use_ms(2_000)).await;
    sale.release(&order.reservation).await.unwrap();
    assert_eq!(places(&sale).await, (0, 1));
    let answer = sale.engine.reserve(request(other, second, 1)).await;
    assert_eq!(refusal(answer), Refusal::TokenInvalid);
}

/// A second token that expires unused does not free the place that was used.
pub async fn an_unused_second_token_does_not_free_a_used_place<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.stock = 2;
        it.door = 1;
        it.token_ttl = Millis::seconds(1);
    })
    .await;
    let session = sale.sign_in(1).await;
    let first = sale.enter(session).await.unwrap();
    sale.engine
        .reserve(request(session, first, 1))
        .await
        .unwrap();
    sale.enter(session).await.unwrap();
    sale.home.advance_ms(past_use_ms(1_000)).await;
    sale.engine.tend().await.unwrap();
    assert_eq!(places(&sale).await, (0, 1));
    sale.enter(sale.sign_in(2).await).await.unwrap();
    let answer = sale.enter(sale.sign_in(3).await).await;
    assert_eq!(refusal(answer), Refusal::DoorFull);
    assert_eq!(places(&sale).await, (1, 1));
}

/// One challenge lets one buyer in, whoever else brings it at the same time.
pub async fn a_challenge_is_spent_once<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    let challenge = sale.challenge().await;
    let mut tries = tokio::task::JoinSet::new();
    for buyer in 1..=16 {
        let entry = Entry {
            promo: PROMO,
            session: sale.sign_in(buyer).await,
            attempt: Some(challenge),
            jti: nonce(),
        };
        let engine = sale.engine.clone();
        tries.spawn(async move { engine.enter(entry).await });
    }
    let answers = tries.join_all().await;
    let (passed, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(passed.len(), 1);
    for answer in refused {
        assert_eq!(refusal(answer), Refusal::ChallengeFailed);
    }
    assert_eq!(places(&sale).await, (1, 0));
    // A wrong answer spends it too, once.
    let wrong = sale.challenge().await;
    assert!(sale.engine.spend(PROMO, wrong).await.unwrap());
    assert!(!sale.engine.spend(PROMO, wrong).await.unwrap());
    let session = sale.sign_in(50).await;
    let answer = sale.enter_with(session, Some(wrong)).await;
    assert_eq!(refusal(answer), Refusal::ChallengeFailed);
    let expired = Attempt {
        id: nonce(),
        expires_at: sale.now().await,
    };
    let answer = sale.enter_with(session, Some(expired)).await;
    assert_eq!(refusal(answer), Refusal::ChallengeFailed);
    assert_eq!(places(&sale).await, (1, 0));
}

/// Once his token has expired, a buyer gets a new one on the place he has; the old one is dead.
pub async fn an_expired_token_is_replaced_on_its_place<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.stock = 1;
        it.door = 1;
        it.token_ttl = Millis::seconds(1);
    })
    .await;
    let session = sale.sign_in(1).await;
    let old = sale.enter(session).await.unwrap();
    sale.home.advance_ms(1_000).await;
    let challenge = sale.challenge().await;
    let new = sale.enter_with(session, Some(challenge)).await.unwrap();
    assert_ne!(new.jti, old.jti);
    assert!(!sale.engine.spend(PROMO, challenge).await.unwrap());
    assert_eq!(places(&sale).await, (1, 0));
    let answer = sale.engine.reserve(request(session, old, 1)).await;
    assert_eq!(refusal(answer), Refusal::TokenInvalid);
    sale.engine.reserve(request(session, new, 1)).await.unwrap();
    assert_eq!(places(&sale).await, (0, 1));
}

/// A token never outlives the sale.
pub async fn a_token_ends_with_the_sale<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.ends_at = it.starts_at.plus_ms(5_000);
        it.token_ttl = Millis::seconds(u64::MAX / 1_000);
    })
    .await;
    let access = sale.enter(sale.sign_in(1).await).await.unwrap();
    let ends_at = sale.promo().await.terms.ends_at;
    assert_eq!(access.expires_at.seconds(), ends_at.seconds());
    assert_eq!(access.expires_at.0 % 1_000, 0);
}

/// Around the moment at which tokens expire, buyers use theirs while others want their places: a
/// place is used or taken back, never both.
pub async fn taking_back_never_races_a_use<H: Home>() {
    const PLACES: u64 = 20;
    let sale = Sale::<H>::open(|it| {
        it.stock = 20;
        it.door = 1;
        it.per_buyer = 1;
        it.token_ttl = Millis::seconds(1);
    })
    .await;
    let mut holders = Vec::new();
    for buyer in 0..20 {
        let session = sale.sign_in(buyer).await;
        holders.push((session, sale.enter(session).await.unwrap()));
    }
    let mut ordered = 0;
    for (step, (session, access)) in holders.into_iter().enumerate() {
        let newcomer = sale.sign_in(1_000 + step as i64).await;
        let entry = Entry {
            promo: PROMO,
            session: newcomer,
            attempt: None,
            jti: nonce(),
        };
        let (used, entered) = tokio::join!(
            sale.engine.reserve(request(session, access, 1)),
            sale.engine.enter(entry)
        );
        match used {
            Ok(_) => ordered += 1,
            Err(_) => assert_eq!(refusal(used), Refusal::TokenInvalid),
        }
        if entered.is_err() {
            assert_eq!(refusal(entered), Refusal::DoorFull);
        }
        let (issued, used) = places(&sale).await;
        assert_eq!(used, ordered);
        assert!(issued + used <= PLACES, "{issued} + {used}");
        sale.home.advance_ms(200).await;
    }
    assert!((1..20).contains(&ordered), "{ordered} came in time");
    sale.home
        .advance_ms(1_000 + LEEWAY_S.unsigned_abs() * 1_000)
        .await;
    sale.engine.tend().await.unwrap();
    assert_eq!(places(&sale).await, (0, ordered));
}

/// From sign-out on, nothing accepts the session: not the door, not an order, not even the look-up
/// of an earlier one. Another session of the buyer is not touched.
pub async fn signing_out_ends_everything<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    let (session, other) = (sale.sign_in(1).await, sale.sign_in(1).await);
    let used = sale.enter(session).await.unwrap();
    let order = sale
        .engine
        .reserve(request(session, used, 1))
        .await
        .unwrap();
    let access = sale.enter(session).await.unwrap();
    assert!(sale.engine.is_signed_in(session).await.unwrap());
    let mut thief = session;
    thief.buyer = BuyerId(2);
    assert!(!sale.engine.is_signed_in(thief).await.unwrap());
    sale.engine.sign_out(thief).await.unwrap();
    assert!(sale.engine.is_signed_in(session).await.unwrap());
    for _ in 0..2 {
        sale.engine.sign_out(session).await.unwrap();
        assert!(!sale.engine.is_signed_in(session).await.unwrap());
        assert_eq!(refusal(sale.enter(session).await), Refusal::NotSignedIn);
        for access in [used, access] {
            let answer = sale.engine.reserve(request(session, access, 1)).await;
            assert_eq!(refusal(answer), Refusal::NotSignedIn);
        }
    }
    let again = sale.engine.reserve(request(other, used, 1)).await.unwrap();
    assert_eq!(again.reservation, order.reservation);
    // A session that has ended is like one signed out.
    let mut short = session;
    short.id = nonce();
    short.expires_at = sale.now().await.plus_ms(500);
    sale.engine.sign_in(short).await.unwrap();
    sale.home.advance_ms(500).await;
    assert!(!sale.engine.is_signed_in(short).await.unwrap());
    assert_eq!(refusal(sale.enter(short).await), Refusal::NotSignedIn);
    sale.engine.tend().await.unwrap();
    assert!(sale.engine.is_signed_in(other).await.unwrap());
}
