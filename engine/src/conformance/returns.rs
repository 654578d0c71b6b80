//! Releases, late payments, and what buyers are told of stock that comes back.

use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{BuyerId, OrderId, ReservationNumber, Sequence};

use super::Home;
use super::sale::{PROMO, Sale, refusal, release, request};
use crate::{Change, Control, Release};

/// A release gives units back once, however often it is repeated.
pub async fn a_release_is_applied_once<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    let made = sale.buy(1, 2).await.unwrap().reservation;
    let other = sale.buy(2, 1).await.unwrap().reservation;
    assert!(sale.release(&made).await.unwrap());
    for _ in 0..3 {
        assert!(!sale.release(&made).await.unwrap());
    }
    assert_eq!(sale.promo().await.available, 9);
    let unknown = [
        Release {
            order: OrderId {
                number: ReservationNumber(9),
                ..made.order
            },
            number: ReservationNumber(9),
        },
        // A reservation, but of another order.
        Release {
            order: made.order,
            number: other.number,
        },
    ];
    for release in unknown {
        let answer = sale.engine.release(release).await;
        assert_eq!(refusal(answer), Refusal::NotFound);
    }
    let events = sale.events().await;
    let last = events.last().unwrap();
    assert_eq!(
        last.change,
        Change::Released {
            release: release(&made),
            amount: 2
        }
    );
    sale.check_events(1).await;
    // He may buy again.
    sale.buy(1, 2).await.unwrap();
}

/// Also when the repetitions come at the same time.
pub async fn a_release_repeated_at_once_is_applied_once<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    let made = sale.buy(1, 2).await.unwrap().reservation;
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let engine = sale.engine.clone();
        tries.spawn(async move { engine.release(release(&made)).await.unwrap() });
    }
    let done = tries.join_all().await.into_iter().filter(|done| *done);
    assert_eq!(done.count(), 1);
    assert_eq!(sale.promo().await.available, 10);
    sale.check_events(1).await;
}

/// A release of an order of an earlier generation changes that generation only.
pub async fn a_release_of_an_earlier_generation_stays_there<H: Home>() {
    let sale = Sale::<H>::open(|it| it.stock = 2).await;
    let made = sale.buy(1, 2).await.unwrap().reservation;
    sale.engine.control(PROMO, Control::Close).await.unwrap();
    sale.publish("second", |it| it.stock = 5).await.unwrap();
    sale.buy(1, 2).await.unwrap();
    let before = sale.promo().await;
    assert!(sale.release(&made).await.unwrap());
    assert_eq!(sale.promo().await, before);
    let first = sale.generation(1).await;
    assert_eq!((first.available, first.sequence), (2, Sequence(3)));
    assert_eq!((first.places_issued, first.places_used), (0, 0));
    // His limit in the second generation is as it was.
    let session = sale.sign_in(1).await;
    assert_eq!(refusal(sale.enter(session).await), Refusal::PerBuyerLimit);
    // They may have been published again: a late payment does not find them.
    let again = sale.engine.reserve_again(made.order, "late").await;
    assert_eq!(refusal(again), Refusal::SoldOut);
    assert_eq!(sale.generation(1).await.available, 2);
    sale.check_events(1).await;
    sale.check_events(2).await;
}

/// A late payment reserves again, under a new number, once for each payment; not while the order
/// still holds its units.
pub async fn a_late_payment_reserves_again<H: Home>() {
    let sale = Sale::<H>::open(|it| it.ends_at = it.starts_at.plus_ms(1_000)).await;
    let made = sale.buy(1, 2).await.unwrap().reservation;
    let order = made.order;
    let early = sale.engine.reserve_again(order, "p1").await;
    assert_eq!(refusal(early), Refusal::NotAllowed);
    sale.release(&made).await.unwrap();
    sale.home.advance_ms(1_000).await;
    let again = sale.engine.reserve_again(order, "p1").await.unwrap();
    assert_eq!((again.order, again.number), (order, ReservationNumber(2)));
    assert_eq!((again.buyer, again.amount), (BuyerId(1), 2));
    assert_eq!((again.price, again.item), (made.price, made.item));
    for _ in 0..2 {
        let repeated = sale.engine.reserve_again(order, "p1").await.unwrap();
        assert_eq!(repeated, again);
    }
    let answer = sale.engine.reserve_again(order, "p2").await;
    assert_eq!(refusal(answer), Refusal::NotAllowed);
    assert_eq!(sale.promo().await.available, 8);
    // The old number stays released; the new one is released once.
    assert!(!sale.release(&made).await.unwrap());
    assert!(sale.release(&again).await.unwrap());
    assert!(!sale.release(&again).await.unwrap());
    let third = sale.engine.reserve_again(order, "p2").await.unwrap();
    assert_eq!(third.number, ReservationNumber(3));
    assert_eq!(sale.engine.reservation(order).await.unwrap(), Some(made));
    let unknown = OrderId {
        number: ReservationNumber(2),
        ..order
    };
    let answer = sale.engine.reserve_again(unknown, "p1").await;
    assert_eq!(refusal(answer), Refusal::NotFound);
    let events = sale.events().await;
    let change = &events.last().unwrap().change;
    assert!(matches!(change, Change::ReservedAgain { payment, .. } if payment == "p2"));
    sale.check_events(1).await;
}

/// Stock and the buyer's limit bind a late payment too.
pub async fn a_late_payment_obeys_stock_and_limit<H: Home>() {
    let sale = Sale::<H>::open(|it| it.stock = 4).await;
    let first = sale.buy(1, 2).await.unwrap().reservation;
    sale.release(&first).await.unwrap();
    // He has bought anew, and is at his limit.
    let second = sale.buy(1, 2).await.unwrap().reservation;
    let answer = sale.engine.reserve_again(first.order, "p").await;
    assert_eq!(refusal(answer), Refusal::PerBuyerLimit);
    sale.release(&second).await.unwrap();
    sale.buy(2, 2).await.unwrap();
    sale.buy(3, 1).await.unwrap();
    let answer = sale.engine.reserve_again(first.order, "p").await;
    assert_eq!(
        refusal(answer),
        Refusal::SoldOut,
        "one unit is left, two are owed"
    );
    sale.buy(4, 1).await.unwrap();
    let answer = sale.engine.reserve_again(first.order, "p").await;
    assert_eq!(refusal(answer), Refusal::SoldOut);
    sale.engine
        .control(PROMO, Control::AddStock(2))
        .await
        .unwrap();
    sale.engine.reserve_again(first.order, "p").await.unwrap();
    assert!(sale.promo().await.sold_out);
    // What he holds again counts for his limit at the door.
    sale.engine
        .control(PROMO, Control::AddStock(2))
        .await
        .unwrap();
    let session = sale.sign_in(1).await;
    assert_eq!(refusal(sale.enter(session).await), Refusal::PerBuyerLimit);
    sale.check_events(1).await;
}

/// The epoch rises by one at each change between sold out and available.
pub async fn the_epoch_rises_with_each_change<H: Home>() {
    let sale = Sale::<H>::open(|it| it.stock = 2).await;
    let mut epoch = sale.promo().await.sold_epoch.0;
    let waiting = sale.sign_in(9).await;
    let access = sale.enter(waiting).await.unwrap();
    for buyer in 1..=2 {
        let made = sale.buy(buyer, 2).await.unwrap();
        assert!(made.sold_out);
        assert_eq!(made.sold_epoch.0, epoch + 1);
        let answer = sale.engine.reserve(request(waiting, access, 1)).await;
        assert_eq!(refusal(answer), Refusal::SoldOut);
        let promo = sale.promo().await;
        assert_eq!((promo.sold_out, promo.sold_epoch.0), (true, epoch + 1));
        sale.home.advance_ms(1_001).await;
        sale.release(&made.reservation).await.unwrap();
        let promo = sale.promo().await;
        assert_eq!((promo.sold_out, promo.sold_epoch.0), (false, epoch + 2));
        epoch += 2;
        sale.home.advance_ms(1_001).await;
    }
    // Nothing changes between: nothing is told.
    sale.engine.tend().await.unwrap();
    sale.buy(3, 1).await.unwrap();
    assert_eq!(sale.promo().await.sold_epoch.0, epoch);
}

/// Stock that returns can be bought at once, but is told at most once a second.
pub async fn stock_that_returns_is_told_at_most_once_a_second<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.stock = 1;
        it.door = 1_000;
    })
    .await;
    let begun = sale.now().await;
    let mut reopened = 0;
    let mut last = sale.promo().await;
    for buyer in 0..40 {
        let made = sale.buy(buyer, 1).await.unwrap();
        assert!(made.sold_out);
        sale.release(&made.reservation).await.unwrap();
        sale.engine.tend().await.unwrap();
        let promo = sale.promo().await;
        assert_eq!(promo.available, 1);
        assert!(promo.sold_epoch >= last.sold_epoch);
        // Even epochs are available, odd ones sold out.
        assert_eq!(promo.sold_epoch.0 % 2 == 1, promo.sold_out);
        reopened += i64::from(!promo.sold_out);
        last = promo;
        sale.home.advance_ms(50).await;
    }
    let seconds = sale.now().await.ms_since(begun) / 1_000;
    assert!(
        (1..=seconds + 1).contains(&reopened),
        "{reopened} in {seconds} s"
    );
    // What could not be told at once is told by the upkeep.
    let made = sale.buy(100, 1).await.unwrap();
    sale.release(&made.reservation).await.unwrap();
    sale.home.advance_ms(1_001).await;
    sale.engine.tend().await.unwrap();
    assert!(!sale.promo().await.sold_out);
    sale.check_events(1).await;
}

/// A new generation is available; the epoch goes on where it was.
pub async fn the_epoch_never_falls_across_generations<H: Home>() {
    let sale = Sale::<H>::open(|it| it.stock = 1).await;
    let sold = sale.buy(1, 1).await.unwrap();
    sale.engine.control(PROMO, Control::Close).await.unwrap();
    sale.publish("second", |it| it.stock = 1).await.unwrap();
    let promo = sale.promo().await;
    assert!(!promo.sold_out);
    assert_eq!(promo.sold_epoch.0, sold.sold_epoch.0 + 1);
    sale.engine.control(PROMO, Control::Close).await.unwrap();
    sale.publish("third", |it| it.stock = 1).await.unwrap();
    assert_eq!(sale.promo().await.sold_epoch, promo.sold_epoch);
    let sold = sale.buy(1, 1).await.unwrap();
    assert_eq!(sold.sold_epoch.0, promo.sold_epoch.0 + 1);
}
