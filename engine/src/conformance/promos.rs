//! Publishing, generations, steering.

use lua_free_rules::promo::Status;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{Generation, Millis, Money, PromoId, Sequence};

use super::Home;
use super::sale::{PROMO, Sale, refusal, terms};
use crate::{Change, Control, Publish, Published};

/// Publishing twice is publishing once.
pub async fn publishing_twice_is_publishing_once<H: Home>() {
    let sale = Sale::<H>::none().await;
    let (published, first) = sale.publish("a", |_| ()).await.unwrap();
    assert_eq!(published, Published::New);
    assert_eq!(first.generation, Generation(1));
    assert_eq!((first.available, first.sequence), (10, Sequence(1)));
    assert!(!first.sold_out);
    sale.buy(1, 2).await.unwrap();
    // The same proposal, its relative times resolved anew.
    let (again, stands) = sale.publish("a", |it| it.stock = 99).await.unwrap();
    assert_eq!(again, Published::Unchanged);
    assert_eq!(stands, sale.promo().await);
    assert_eq!((stands.available, stands.terms.stock), (8, 10));
    assert_eq!(stands.terms, first.terms);
    sale.check_events(1).await;
}

/// What `run` proposes at its start changes nothing once a promo was published.
pub async fn only_the_first_publishing<H: Home>() {
    let sale = Sale::<H>::none().await;
    let now = sale.now().await;
    let propose = |digest: &str| Publish {
        promo: PROMO,
        terms: terms(now),
        digest: digest.to_owned(),
        only_first: true,
    };
    let (first, _) = sale.engine.publish(propose("a")).await.unwrap();
    assert_eq!(first, Published::New);
    for state in ["open", "closed"] {
        let (again, promo) = sale.engine.publish(propose("b")).await.unwrap();
        assert_eq!(again, Published::Unchanged, "{state}");
        assert_eq!(promo.generation, Generation(1));
        sale.engine.control(PROMO, Control::Close).await.unwrap();
    }
}

/// A sale that has not begun is replaced, with its whole stock.
pub async fn a_sale_that_has_not_begun_is_replaced<H: Home>() {
    let sale = Sale::<H>::none().await;
    let later = |it: &mut lua_free_rules::promo::Terms| {
        it.starts_at = it.starts_at.plus_ms(300_000);
    };
    sale.publish("a", later).await.unwrap();
    let (published, promo) = sale
        .publish("b", |it| {
            later(it);
            it.stock = 3;
        })
        .await
        .unwrap();
    assert_eq!(published, Published::New);
    assert_eq!(promo.generation, Generation(2));
    assert_eq!((promo.available, promo.sequence), (3, Sequence(1)));
    assert_eq!(sale.promo().await, promo);
    assert_eq!(sale.generation(1).await.available, 10);
    let events = sale.events().await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].generation, Generation(2));
    let told = Change::Published {
        stock: 3,
        terms: Box::new(promo.terms),
        digest: "b".to_owned(),
    };
    assert_eq!(events[1].change, told);
}

/// A running sale is never reset, paused or not.
pub async fn a_running_sale_is_never_reset<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    sale.buy(1, 1).await.unwrap();
    let answer = sale.publish("other", |it| it.stock = 99).await;
    assert_eq!(refusal(answer), Refusal::NotAllowed);
    sale.engine.control(PROMO, Control::Pause).await.unwrap();
    let answer = sale.publish("other", |it| it.stock = 99).await;
    assert_eq!(refusal(answer), Refusal::NotAllowed);
    let promo = sale.promo().await;
    assert_eq!((promo.generation, promo.available), (Generation(1), 9));
    assert_eq!(sale.events().await.len(), 2);
}

/// A sale that was closed or has ended is followed by the next generation, also under the same
/// digest.
pub async fn a_sale_that_is_over_is_followed_by_the_next<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    sale.buy(1, 2).await.unwrap();
    sale.engine.control(PROMO, Control::Close).await.unwrap();
    let short = |it: &mut lua_free_rules::promo::Terms| it.ends_at = it.starts_at.plus_ms(1_000);
    let (published, second) = sale.publish("first", short).await.unwrap();
    assert_eq!(published, Published::New);
    assert_eq!((second.generation, second.available), (Generation(2), 10));
    assert_eq!(
        (second.status, second.sequence),
        (Status::Open, Sequence(1))
    );
    sale.home.advance_ms(1_000).await;
    let (published, third) = sale.publish("first", |_| ()).await.unwrap();
    assert_eq!(published, Published::New);
    assert_eq!(third.generation, Generation(3));
    assert_eq!(sale.generation(1).await.available, 8);
    // The buyer of the first generation may buy in the third.
    sale.buy(1, 2).await.unwrap();
    let missing = sale.engine.snapshot(PROMO, Generation(4)).await;
    assert_eq!(refusal(missing), Refusal::NotFound);
    let missing = sale.engine.snapshot(PromoId(8), Generation(1)).await;
    assert_eq!(refusal(missing), Refusal::NotFound);
}

/// Terms that cannot sell are refused, and nothing is published.
pub async fn terms_that_cannot_sell_are_refused<H: Home>() {
    let sale = Sale::<H>::none().await;
    let bad: [fn(&mut lua_free_rules::promo::Terms); 7] = [
        |it| it.stock = 0,
        |it| it.price = Money::default(),
        |it| it.door = 0,
        |it| it.per_buyer = 0,
        |it| it.token_ttl = Millis::new(999),
        |it| it.ends_at = it.starts_at,
        |it| {
            it.starts_at = it.starts_at.plus_ms(-2_000);
            it.ends_at = it.starts_at.plus_ms(1_000);
        },
    ];
    for (index, change) in bad.into_iter().enumerate() {
        let answer = refusal(sale.publish("bad", change).await);
        assert!(matches!(answer, Refusal::BadParameter(_)), "{index}");
    }
    assert!(sale.engine.promos().await.unwrap().1.is_empty());
    assert!(sale.events().await.is_empty());
}

/// An operator pauses, resumes and closes; again is the same as once.
pub async fn an_operator_pauses_resumes_and_closes<H: Home>() {
    let sale = Sale::<H>::none().await;
    let answer = sale.engine.control(PROMO, Control::Pause).await;
    assert_eq!(refusal(answer), Refusal::NotFound);
    sale.publish("a", |_| ()).await.unwrap();
    for (control, status) in [
        (Control::Pause, Status::Paused),
        (Control::Pause, Status::Paused),
        (Control::Resume, Status::Open),
        (Control::Resume, Status::Open),
        (Control::Close, Status::Closed),
        (Control::Close, Status::Closed),
    ] {
        let promo = sale.engine.control(PROMO, control).await.unwrap();
        assert_eq!(promo.status, status);
        assert_eq!(sale.promo().await, promo);
    }
    for control in [Control::Pause, Control::Resume, Control::AddStock(1)] {
        let answer = sale.engine.control(PROMO, control).await;
        assert_eq!(refusal(answer), Refusal::NotAllowed, "{control:?}");
    }
    assert_eq!(sale.promo().await.status, Status::Closed);
    assert_eq!(sale.events().await.len(), 1);
}

/// An operator adds stock, and with it places.
pub async fn an_operator_adds_stock<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    for units in [0, u32::MAX, u32::MAX - 9] {
        let answer = sale.engine.control(PROMO, Control::AddStock(units)).await;
        assert!(matches!(refusal(answer), Refusal::BadParameter(_)));
    }
    let promo = sale
        .engine
        .control(PROMO, Control::AddStock(5))
        .await
        .unwrap();
    assert_eq!((promo.terms.stock, promo.available), (15, 15));
    assert_eq!(promo.terms.places(), 75);
    assert_eq!(promo.sequence, Sequence(2));
    sale.check_events(1).await;
}
