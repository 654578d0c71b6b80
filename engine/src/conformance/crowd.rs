//! All of it at once: many buyers, several requests of each at the same time, and a crash.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{BuyerId, Generation, OrderId};
use tokio::task::JoinSet;

use super::Home;
use super::sale::{PROMO, Sale, keyed, nonce, refusal, release};
use crate::{Change, EngineError, Entry, Event, Reservation, Reserved, SharedEngine};

const BUYERS: i64 = 200;
const STOCK: u32 = 30;
const PER_BUYER: u32 = 2;

/// One of a buyer's tabs: gets a token, orders one unit, again and again until he is refused for
/// good. Some give back what they ordered.
async fn shop(
    engine: SharedEngine,
    session: lua_free_rules::token::Session,
    tab: usize,
    gives_back: bool,
) -> Vec<Reserved> {
    let mut orders = Vec::new();
    for round in 0..4 {
        let entry = Entry {
            promo: PROMO,
            session,
            attempt: None,
            jti: nonce(),
        };
        let access = match engine.enter(entry).await {
            Ok(access) => access,
            Err(EngineError::Refused(
                Refusal::SoldOut | Refusal::DoorFull | Refusal::PerBuyerLimit,
            )) => continue,
            Err(other) => panic!("{other:?}"),
        };
        let key = format!("{tab}-{round}");
        match engine.reserve(keyed(session, access, 1, &key)).await {
            Ok(reserved) => {
                let again = engine.reserve(keyed(session, access, 1, &key)).await;
                assert_eq!(again.unwrap().reservation, reserved.reservation);
                orders.push(reserved);
                if gives_back && round % 2 == 0 {
                    engine
                        .release(release(&reserved.reservation))
                        .await
                        .unwrap();
                }
            }
            // Another tab was faster, or its order used the token that this one held.
            Err(EngineError::Refused(
                Refusal::SoldOut | Refusal::PerBuyerLimit | Refusal::TokenInvalid,
            )) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    orders
}

/// Looks at the promo while the crowd runs: the door's bound holds at every moment.
async fn watch(engine: SharedEngine, done: Arc<AtomicBool>) -> u64 {
    let mut looks = 0;
    while !done.load(Ordering::SeqCst) {
        let promo = engine.snapshot(PROMO, Generation(1)).await.unwrap();
        let places = promo.places_issued + promo.places_used;
        assert!(places <= promo.terms.places(), "{places} places");
        assert!(promo.available <= promo.terms.stock);
        looks += 1;
        tokio::task::yield_now().await;
    }
    looks
}

async fn run<H: Home>(sale: &Sale<H>, gives_back: bool) -> Vec<Reserved> {
    let mut tabs = JoinSet::new();
    for buyer in 0..BUYERS {
        let session = sale.sign_in(buyer).await;
        for tab in 0..3 {
            tabs.spawn(shop(sale.engine.clone(), session, tab, gives_back));
        }
    }
    let done = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch(sale.engine.clone(), done.clone()));
    let orders = tabs.join_all().await.into_iter().flatten().collect();
    done.store(true, Ordering::SeqCst);
    assert!(watching.await.unwrap() > 0);
    orders
}

/// Replays all events and checks, at each one, stock and every buyer's limit. Returns the reservations
/// of the orders that were made.
fn replay(events: &[Event]) -> HashMap<OrderId, Reservation> {
    let (mut available, mut orders) = (0, HashMap::new());
    let mut held: HashMap<BuyerId, i64> = HashMap::new();
    let mut owners = HashMap::new();
    for event in events {
        available += event.change.delta();
        assert!(
            (0..=i64::from(STOCK)).contains(&available),
            "{available} units"
        );
        match &event.change {
            Change::Reserved {
                reservation: made, ..
            } => {
                let twin = orders.insert(made.order, *made);
                assert_eq!(twin, None, "order {} came twice", made.order);
                owners.insert(made.order, made.buyer);
                let held = held.entry(made.buyer).or_default();
                *held += i64::from(made.amount);
                assert!(*held <= i64::from(PER_BUYER), "{} holds {held}", made.buyer);
            }
            Change::Released { release, amount } => {
                *held.entry(owners[&release.order]).or_default() -= i64::from(*amount);
            }
            Change::Published { .. } | Change::Added { .. } => {}
            Change::ReservedAgain { .. } => panic!("nobody paid late"),
        }
    }
    assert!(held.values().all(|held| *held >= 0));
    orders
}

/// What the buyers were told.
fn reservations(orders: &[Reserved]) -> HashMap<OrderId, Reservation> {
    let told = orders.iter().map(|it| it.reservation);
    told.map(|made| (made.order, made)).collect()
}

/// All ask before any buys: the door fills to its last place and no further, each buyer has one
/// place and one token, and of those admitted as many buy as there are units.
pub async fn a_crowd_at_the_door_fills_it_exactly<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    let mut tabs = JoinSet::new();
    for buyer in 0..BUYERS {
        let session = sale.sign_in(buyer).await;
        for _ in 0..2 {
            let entry = Entry {
                promo: PROMO,
                session,
                attempt: None,
                jti: nonce(),
            };
            let engine = sale.engine.clone();
            tabs.spawn(async move { (session, engine.enter(entry).await) });
        }
    }
    let mut admitted = HashMap::new();
    for (session, answer) in tabs.join_all().await {
        match answer {
            Ok(access) => {
                let (_, first) = *admitted.entry(access.buyer).or_insert((session, access));
                assert_eq!(access, first, "two tokens for one place");
            }
            Err(_) => assert_eq!(refusal(answer), Refusal::DoorFull),
        }
    }
    assert_eq!(admitted.len(), 50);
    let promo = sale.promo().await;
    assert_eq!((promo.places_issued, promo.places_used), (50, 0));
    let mut orders = JoinSet::new();
    for (session, access) in admitted.into_values() {
        let engine = sale.engine.clone();
        orders.spawn(async move { engine.reserve(keyed(session, access, 1, "k")).await });
    }
    let answers = orders.join_all().await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 10);
    for answer in refused {
        assert_eq!(refusal(answer), Refusal::SoldOut);
    }
    let promo = sale.promo().await;
    assert_eq!((promo.places_issued, promo.places_used), (40, 10));
    sale.check_events(1).await;
}

/// A crowd gets exactly the stock: no unit more, none less, none twice.
pub async fn a_crowd_gets_exactly_the_stock<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.stock = STOCK;
        it.per_buyer = PER_BUYER;
    })
    .await;
    let orders = run(&sale, false).await;
    let made = reservations(&orders);
    assert_eq!(made.len(), STOCK as usize);
    let promo = sale.promo().await;
    assert_eq!((promo.available, promo.sold_out), (0, true));
    assert!(orders.iter().any(|it| it.sold_out));
    sale.check_events(1).await;
    assert_eq!(replay(&sale.events().await), made);
}

/// Nor does a crowd that gives part of it back break anything.
pub async fn a_crowd_that_gives_back_breaks_nothing<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.stock = STOCK;
        it.per_buyer = PER_BUYER;
        it.door = 1;
    })
    .await;
    let orders = run(&sale, true).await;
    let made = reservations(&orders);
    sale.check_events(1).await;
    let events = sale.events().await;
    assert_eq!(replay(&events), made);
    assert!(made.len() > STOCK as usize, "units were sold again");
    // When all is given back, every unit and every used place is there again.
    for order in made.into_keys() {
        let number = order.number;
        sale.engine
            .release(crate::Release { order, number })
            .await
            .unwrap();
    }
    let promo = sale.promo().await;
    assert_eq!((promo.available, promo.places_used), (STOCK, 0));
    sale.check_events(1).await;
}

/// What was accepted is there after a crash, with its event, and is found under its key.
pub async fn accepted_orders_survive_a_crash<H: Home>() {
    let sale = Sale::<H>::open(|it| {
        it.stock = STOCK;
        it.per_buyer = PER_BUYER;
    })
    .await;
    let orders = run(&sale, true).await;
    let (session, other) = (sale.sign_in(1_001).await, sale.sign_in(1_002).await);
    let promo = sale.promo().await;
    sale.engine
        .control(PROMO, crate::Control::AddStock(4))
        .await
        .unwrap();
    let access = sale.enter(session).await.unwrap();
    let last = sale
        .engine
        .reserve(keyed(session, access, 1, "k"))
        .await
        .unwrap();
    let place = sale.enter(other).await.unwrap();
    let challenge = sale.challenge().await;
    sale.engine.spend(PROMO, challenge).await.unwrap();
    let before = sale.promo().await;

    let sale = sale.crash().await;
    assert_eq!(sale.promo().await, before);
    assert!(before.sold_epoch >= promo.sold_epoch);
    for reserved in orders.iter().chain([&last]) {
        let order = reserved.reservation.order;
        let found = sale.engine.reservation(order).await.unwrap();
        assert_eq!(found, Some(reserved.reservation));
    }
    let again = sale
        .engine
        .reserve(keyed(session, access, 1, "k"))
        .await
        .unwrap();
    assert!(again.repeated);
    assert_eq!(again.reservation, last.reservation);
    assert_eq!(sale.enter(other).await.unwrap(), place);
    assert!(!sale.engine.spend(PROMO, challenge).await.unwrap());
    sale.check_events(1).await;
    let stored: HashSet<OrderId> = sale
        .events()
        .await
        .into_iter()
        .filter_map(|event| event.change.reservation().map(|made| made.order))
        .collect();
    assert!(
        orders
            .iter()
            .all(|it| stored.contains(&it.reservation.order))
    );
}

/// Callers that go away while they wait harm nothing: their order was made whole or not at all.
pub async fn a_caller_that_goes_away_harms_nothing<H: Home>() {
    let sale = Sale::<H>::open(|it| it.stock = 40).await;
    let mut requests = Vec::new();
    for buyer in 0..40 {
        let session = sale.sign_in(buyer).await;
        let access = sale.enter(session).await.unwrap();
        let request = keyed(session, access, 1, "k");
        let engine = sale.engine.clone();
        let asked = request.clone();
        let task = tokio::spawn(async move { engine.reserve(asked).await });
        if buyer % 2 == 0 {
            tokio::task::yield_now().await;
        }
        task.abort();
        requests.push(request);
    }
    // Asking again makes the order or finds it: in the end each buyer has one.
    let mut orders = HashSet::new();
    for request in requests {
        let reserved = sale.engine.reserve(request).await.unwrap();
        assert!(orders.insert(reserved.reservation.order));
    }
    let promo = sale.promo().await;
    assert_eq!((promo.available, promo.places_used), (0, 40));
    sale.check_events(1).await;
    let session = sale.sign_in(99).await;
    assert_eq!(refusal(sale.enter(session).await), Refusal::SoldOut);
}
