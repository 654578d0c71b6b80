//! One order for each key and token; limits; who may not order.

use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{BuyerId, Generation, Millis, OrderId, ReservationNumber, Sequence};

use super::Home;
use super::sale::{PROMO, Sale, keyed, nonce, past_use_ms, refusal, release, request};
use crate::{Change, Control, EntryId, Reserve, Reserved};

/// A reservation takes units, moves the place to used, and leaves its event.
pub async fn a_reservation_takes_units<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    let session = sale.sign_in(1).await;
    let access = sale.enter(session).await.unwrap();
    let asked = keyed(session, access, 2, "k");
    let reserved = sale.engine.reserve(asked.clone()).await.unwrap();
    assert!(!reserved.repeated && !reserved.sold_out);
    let made = reserved.reservation;
    assert_eq!(made.order.to_string(), "7-1-1");
    assert_eq!(made.number, ReservationNumber(1));
    assert_eq!((made.buyer, made.amount), (BuyerId(1), 2));
    assert_eq!(made.sequence, Sequence(2));
    let promo = sale.promo().await;
    assert_eq!(
        (made.item, made.price),
        (promo.terms.item, promo.terms.price)
    );
    assert_eq!(made.pay_within, promo.terms.pay_within);
    assert_eq!((promo.available, promo.sequence), (8, Sequence(2)));
    assert_eq!((promo.places_issued, promo.places_used), (0, 1));
    let found = sale.engine.reservation(made.order).await.unwrap();
    assert_eq!(found, Some(made));
    let next = sale.buy(2, 1).await.unwrap().reservation;
    assert_eq!(next.order.number, ReservationNumber(2));
    let missing = OrderId {
        number: ReservationNumber(3),
        ..made.order
    };
    assert_eq!(sale.engine.reservation(missing).await.unwrap(), None);
    let events = sale.events().await;
    let told = Change::Reserved {
        reservation: made,
        key: asked.key,
        body: asked.body,
        jti: access.jti,
    };
    assert_eq!(events[1].change, told);
    assert_eq!(events[1].at, made.made_at);
    sale.check_events(1).await;
}

/// A buyer holds at most his limit, over all his orders.
pub async fn a_buyer_gets_no_more_than_his_limit<H: Home>() {
    let sale = Sale::<H>::open(|it| it.per_buyer = 3).await;
    let session = sale.sign_in(1).await;
    let access = sale.enter(session).await.unwrap();
    let answer = sale.engine.reserve(request(session, access, 4)).await;
    assert_eq!(refusal(answer), Refusal::PerBuyerLimit);
    let answer = sale.engine.reserve(request(session, access, 0)).await;
    assert!(matches!(refusal(answer), Refusal::BadParameter(_)));
    // What was refused used neither the token nor the key.
    sale.engine
        .reserve(request(session, access, 2))
        .await
        .unwrap();
    let access = sale.enter(session).await.unwrap();
    assert_eq!(access.amount_max, 1);
    let answer = sale.engine.reserve(request(session, access, 2)).await;
    assert_eq!(refusal(answer), Refusal::PerBuyerLimit);
    sale.engine
        .reserve(request(session, access, 1))
        .await
        .unwrap();
    assert_eq!(refusal(sale.enter(session).await), Refusal::PerBuyerLimit);
    assert_eq!(sale.promo().await.available, 7);
    sale.check_events(1).await;
}

/// Amounts near the ends of their range are compared, not wrapped.
pub async fn large_amounts_do_not_wrap<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.stock = u32::MAX;
        it.door = u32::MAX;
        it.per_buyer = u32::MAX;
    })
    .await;
    let session = sale.sign_in(1).await;
    let access = sale.enter(session).await.unwrap();
    sale.engine
        .reserve(request(session, access, u32::MAX - 2))
        .await
        .unwrap();
    let access = sale.enter(session).await.unwrap();
    assert_eq!(access.amount_max, 2);
    for amount in [3, u32::MAX - 1, u32::MAX] {
        let answer = sale.engine.reserve(request(session, access, amount)).await;
        assert_eq!(refusal(answer), Refusal::PerBuyerLimit);
    }
    let other = sale.sign_in(2).await;
    let access = sale.enter(other).await.unwrap();
    let answer = sale.engine.reserve(request(other, access, u32::MAX)).await;
    assert!(matches!(refusal(answer), Refusal::BadParameter(_)));
    let last = sale
        .engine
        .reserve(request(other, access, 2))
        .await
        .unwrap();
    assert!(last.sold_out);
    assert_eq!(sale.promo().await.available, 0);
    sale.check_events(1).await;
}

/// Asking again with the same key and body gives the same order, many times at once too.
pub async fn the_same_key_gives_the_same_order<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    let session = sale.sign_in(1).await;
    let access = sale.enter(session).await.unwrap();
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (engine, request) = (sale.engine.clone(), keyed(session, access, 1, "k"));
        tries.spawn(async move { engine.reserve(request).await.unwrap() });
    }
    let answers: Vec<Reserved> = tries.join_all().await;
    assert_eq!(answers.iter().filter(|it| !it.repeated).count(), 1);
    assert!(
        answers
            .iter()
            .all(|it| it.reservation == answers[0].reservation)
    );
    assert_eq!(sale.promo().await.available, 9);
    // Another buyer's key is another key, even if it reads the same.
    let other = sale.sign_in(2).await;
    let access = sale.enter(other).await.unwrap();
    let reserved = sale
        .engine
        .reserve(keyed(other, access, 1, "k"))
        .await
        .unwrap();
    assert!(!reserved.repeated);
    sale.check_events(1).await;
}

async fn bought<H: Home>(sale: &Sale<H>) -> (Reserve, Reserved) {
    let session = sale.sign_in(1).await;
    let access = sale.enter(session).await.unwrap();
    let request = keyed(session, access, 2, "lost-answer");
    let reserved = sale.engine.reserve(request.clone()).await.unwrap();
    (request, reserved)
}

#[track_caller]
fn assert_repeats(again: Reserved, first: Reserved) {
    assert!(again.repeated);
    assert_eq!(again.reservation, first.reservation);
}

/// An order that was accepted is found also after the sale sold out, paused and closed.
pub async fn the_same_order_also_after_sell_out_and_close<H: Home>() {
    let sale = Sale::<H>::open(|it| it.stock = 2).await;
    let (request, first) = bought(&sale).await;
    assert!(first.sold_out);
    let again = sale.engine.reserve(request.clone()).await.unwrap();
    assert_repeats(again, first);
    assert_eq!((again.sold_out, again.sold_epoch), (true, first.sold_epoch));
    for control in [Control::Pause, Control::Close] {
        sale.engine.control(PROMO, control).await.unwrap();
        assert_repeats(sale.engine.reserve(request.clone()).await.unwrap(), first);
    }
    // And after its units went back.
    assert!(sale.release(&first.reservation).await.unwrap());
    assert_repeats(sale.engine.reserve(request).await.unwrap(), first);
    sale.check_events(1).await;
}

/// And after its token expired and the sale ended.
pub async fn the_same_order_also_after_expiry_and_end<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.ends_at = it.starts_at.plus_ms(past_use_ms(2_000) as i64);
        it.token_ttl = Millis::seconds(1);
    })
    .await;
    let (request, first) = bought(&sale).await;
    sale.home.advance_ms(past_use_ms(1_000)).await;
    sale.engine.tend().await.unwrap();
    assert_repeats(sale.engine.reserve(request.clone()).await.unwrap(), first);
    sale.home.advance_ms(1_500).await;
    sale.engine.tend().await.unwrap();
    assert_repeats(sale.engine.reserve(request).await.unwrap(), first);
    let late = sale.sign_in(2).await;
    let closed = refusal(sale.enter(late).await);
    assert_eq!(closed, Refusal::NotOpen { opens_in_s: None });
}

/// The same key with another body is refused, whatever token comes with it.
pub async fn a_key_with_another_body_is_refused<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    let session = sale.sign_in(1).await;
    let access = sale.enter(session).await.unwrap();
    sale.engine
        .reserve(keyed(session, access, 1, "k"))
        .await
        .unwrap();
    let fresh = sale.enter(session).await.unwrap();
    for access in [access, fresh] {
        let answer = sale.engine.reserve(keyed(session, access, 2, "k")).await;
        assert_eq!(refusal(answer), Refusal::KeyReused);
    }
    assert_eq!(sale.promo().await.available, 9);
}

/// A token that was used gives its order, under whatever key and body it comes again.
pub async fn a_used_token_gives_its_order<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    let session = sale.sign_in(1).await;
    let access = sale.enter(session).await.unwrap();
    let first = sale
        .engine
        .reserve(keyed(session, access, 1, "a"))
        .await
        .unwrap();
    for request in [
        keyed(session, access, 1, "b"),
        keyed(session, access, 2, "c"),
        request(session, access, 1),
    ] {
        assert_repeats(sale.engine.reserve(request).await.unwrap(), first);
    }
    // Also when a newer token has taken its place and was used.
    let newer = sale.enter(session).await.unwrap();
    let second = sale
        .engine
        .reserve(keyed(session, newer, 1, "d"))
        .await
        .unwrap();
    assert_ne!(second.reservation.order, first.reservation.order);
    let again = sale.engine.reserve(keyed(session, access, 1, "e")).await;
    assert_repeats(again.unwrap(), first);
    assert_eq!(sale.promo().await.available, 8);
}

/// A key is the buyer's in this promo, not in one generation of it.
pub async fn a_key_outlives_its_generation<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    let (request, first) = bought(&sale).await;
    sale.engine.control(PROMO, Control::Close).await.unwrap();
    sale.publish("second", |_| ()).await.unwrap();
    assert_repeats(sale.engine.reserve(request).await.unwrap(), first);
    assert_eq!(sale.promo().await.available, 10);
}

/// Fewer units left than asked for is not sold out, and the smaller request passes.
pub async fn too_few_units_is_not_sold_out<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.stock = 3;
        it.per_buyer = 3;
    })
    .await;
    let (session, late) = (sale.sign_in(2).await, sale.sign_in(3).await);
    let access = sale.enter(session).await.unwrap();
    let unused = sale.enter(late).await.unwrap();
    sale.buy(1, 1).await.unwrap();
    let answer = refusal(sale.engine.reserve(request(session, access, 3)).await);
    let Refusal::BadParameter(words) = answer else {
        panic!("{answer:?}");
    };
    assert!(words.contains("only 2 left"), "{words}");
    assert!(!sale.promo().await.sold_out);
    let last = sale
        .engine
        .reserve(request(session, access, 2))
        .await
        .unwrap();
    assert!(last.sold_out);
    let answer = sale.engine.reserve(request(late, unused, 1)).await;
    assert_eq!(refusal(answer), Refusal::SoldOut);
    sale.check_events(1).await;
}

/// Only the current token of the buyer's own place, with his own session, makes an order.
pub async fn a_token_must_be_the_places_own<H: Home>() {
    let sale = Sale::<H>::open(|it| it.token_ttl = Millis::seconds(1)).await;
    let (session, other) = (sale.sign_in(1).await, sale.sign_in(2).await);
    let access = sale.enter(session).await.unwrap();
    sale.enter(other).await.unwrap();
    let mut drawn = access;
    drawn.jti = nonce();
    let mut another_item = access;
    another_item.item.0 += 1;
    let mut longer = access;
    longer.expires_at = longer.expires_at.plus_ms(3_600_000);
    let mut another_buyer = access;
    another_buyer.buyer = BuyerId(2);
    for (session, access) in [
        (session, drawn),
        (session, another_item),
        (session, another_buyer),
        (other, access),
        (other, another_buyer),
    ] {
        let answer = sale.engine.reserve(request(session, access, 1)).await;
        assert_eq!(refusal(answer), Refusal::TokenInvalid, "{access:?}");
    }
    sale.home.advance_ms(past_use_ms(1_000)).await;
    for access in [access, longer] {
        let answer = sale.engine.reserve(request(session, access, 1)).await;
        assert_eq!(refusal(answer), Refusal::TokenInvalid, "{access:?}");
    }
    let mut elsewhere = access;
    elsewhere.promo.0 += 1;
    let answer = sale.engine.reserve(request(session, elsewhere, 1)).await;
    assert_eq!(refusal(answer), Refusal::NotFound);
    assert_eq!(sale.promo().await.available, 10);
}

/// A token of an earlier generation makes no order in the next.
pub async fn a_token_of_an_earlier_generation_is_refused<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    let session = sale.sign_in(1).await;
    let old = sale.enter(session).await.unwrap();
    sale.engine.control(PROMO, Control::Close).await.unwrap();
    sale.publish("second", |_| ()).await.unwrap();
    let mut raised = old;
    raised.generation = Generation(2);
    for access in [old, raised] {
        let answer = sale.engine.reserve(request(session, access, 1)).await;
        assert_eq!(refusal(answer), Refusal::TokenInvalid);
    }
    let new = sale.enter(session).await.unwrap();
    assert_eq!(new.generation, Generation(2));
    let reserved = sale.engine.reserve(request(session, new, 1)).await.unwrap();
    assert_eq!(reserved.reservation.order.to_string(), "7-2-1");
    assert_eq!(sale.generation(1).await.available, 10);
}

/// Pause, close and the end stop new orders, also for those who hold a token.
pub async fn the_window_and_the_operator_are_obeyed<H: Home>() {
    let sale = Sale::<H>::open(|it| it.ends_at = it.starts_at.plus_ms(3_000)).await;
    let session = sale.sign_in(1).await;
    let access = sale.enter(session).await.unwrap();
    sale.engine.control(PROMO, Control::Pause).await.unwrap();
    let answer = sale.engine.reserve(request(session, access, 1)).await;
    assert_eq!(refusal(answer), Refusal::Paused);
    sale.engine.control(PROMO, Control::Resume).await.unwrap();
    sale.engine
        .reserve(request(session, access, 1))
        .await
        .unwrap();
    let access = sale.enter(session).await.unwrap();
    sale.home.advance_ms(3_000).await;
    // Within the leeway of the token, but the sale is over.
    let answer = sale.engine.reserve(request(session, access, 1)).await;
    assert_eq!(refusal(answer), Refusal::NotOpen { opens_in_s: None });
    sale.engine.control(PROMO, Control::Close).await.unwrap();
    let answer = sale.engine.reserve(request(session, access, 1)).await;
    assert_eq!(refusal(answer), Refusal::NotOpen { opens_in_s: None });
    assert_eq!(sale.promo().await.available, 9);
}

/// At its bound the stream takes no new order; what was ordered before is still found, units still
/// come back, and late payments still reserve.
pub async fn a_full_stream_takes_no_new_order<H: Home>() {
    let sale = Sale::<H>::bounded(3).await;
    sale.publish("a", |_| ()).await.unwrap();
    let (request_1, first) = bought(&sale).await;
    sale.buy(2, 1).await.unwrap();
    let session = sale.sign_in(3).await;
    let access = sale.enter(session).await.unwrap();
    let answer = sale.engine.reserve(request(session, access, 1)).await;
    assert_eq!(refusal(answer), Refusal::Overloaded);
    assert_repeats(sale.engine.reserve(request_1).await.unwrap(), first);
    assert!(
        sale.engine
            .release(release(&first.reservation))
            .await
            .unwrap()
    );
    let order = first.reservation.order;
    sale.engine.reserve_again(order, "late").await.unwrap();
    assert_eq!(sale.engine.backlog().await.unwrap().entries, 5);
    // As the ledger catches up, orders are taken again. A bound that was passed is known again
    // after a crash.
    let sale = sale.crash().await;
    let answer = sale.engine.reserve(request(session, access, 1)).await;
    assert_eq!(refusal(answer), Refusal::Overloaded);
    let entries = sale
        .engine
        .read(3, std::time::Duration::ZERO)
        .await
        .unwrap();
    let ids: Vec<EntryId> = entries.iter().map(|entry| entry.id).collect();
    sale.engine.acknowledge(&ids[..2]).await.unwrap();
    let answer = sale.engine.reserve(request(session, access, 1)).await;
    assert_eq!(refusal(answer), Refusal::Overloaded);
    sale.engine.acknowledge(&ids).await.unwrap();
    sale.engine.acknowledge(&ids).await.unwrap();
    assert_eq!(sale.engine.backlog().await.unwrap().entries, 2);
    sale.engine
        .reserve(request(session, access, 1))
        .await
        .unwrap();
    assert_eq!(sale.engine.backlog().await.unwrap().entries, 3);
}

/// Texts from outside have a bound.
pub async fn oversized_texts_are_refused<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    let session = sale.sign_in(1).await;
    let access = sale.enter(session).await.unwrap();
    let long = "k".repeat(1_000);
    let mut big_body = request(session, access, 1);
    big_body.body = long.clone();
    for request in [keyed(session, access, 1, &long), big_body] {
        let answer = sale.engine.reserve(request).await;
        assert!(matches!(refusal(answer), Refusal::BadParameter(_)));
    }
    // Any text within the bound is taken as it is.
    let odd = "'\"\u{0}%_ \u{1f600}";
    let first = sale
        .engine
        .reserve(keyed(session, access, 1, odd))
        .await
        .unwrap();
    let again = sale
        .engine
        .reserve(keyed(session, access, 1, odd))
        .await
        .unwrap();
    assert_repeats(again, first);
    sale.release(&first.reservation).await.unwrap();
    let order = first.reservation.order;
    let answer = sale.engine.reserve_again(order, &long).await;
    assert!(matches!(refusal(answer), Refusal::BadParameter(_)));
}
