//! A Redis that comes back empty, or without its last steps, is rebuilt from the ledger; here the ledger is
//! the list of events that were acknowledged.

use std::collections::BTreeMap;

use lua_free_rules::promo::Status;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{Generation, PromoId};

use super::*;
use crate::conformance::sale::{PROMO, Sale, keyed, refusal, release};
use crate::{Change, Control, Event, OrderStream as _, Past, Recovery as _};

/// What an order writer would have written.
#[derive(Default)]
struct Ledger(Vec<Event>);

impl Ledger {
    async fn write(&mut self, engine: &Redis) {
        loop {
            let entries = engine.read(1_000, Duration::ZERO).await.unwrap();
            if entries.is_empty() {
                return;
            }
            let events = entries
                .iter()
                .map(|it| serde_json::from_str(&it.payload).unwrap());
            self.0.extend(events);
            let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
            engine.acknowledge(&ids).await.unwrap();
        }
    }

    fn past(&self) -> Vec<Past> {
        let mut all: BTreeMap<PromoId, Past> = BTreeMap::new();
        for event in &self.0 {
            let past = all
                .entry(event.promo)
                .or_insert_with(|| Past::new(event.promo));
            past.apply(event);
        }
        all.into_values().collect()
    }

    async fn rebuild(&mut self, engine: &Redis) {
        assert!(engine.is_lost().await.unwrap());
        assert!(engine.begin_rebuild("writer").await.unwrap());
        assert!(!engine.begin_rebuild("other").await.unwrap());
        engine.rewind().await.unwrap();
        self.write(engine).await;
        assert_eq!(engine.backlog().await.unwrap().entries, 0);
        engine.rebuild("writer", self.past()).await.unwrap();
        assert!(!engine.is_lost().await.unwrap());
    }

    /// Every generation is numbered without a gap and adds up to what the engine says.
    async fn check(&self, sale: &Sale<RedisHome>) {
        for past in self.past() {
            for (number, generation) in &past.generations {
                let told = sale.engine.snapshot(past.promo, *number).await.unwrap();
                assert_eq!(
                    i64::from(told.available),
                    generation.available,
                    "{number:?}"
                );
                assert_eq!(told.sequence, generation.sequence);
                assert_eq!(told.terms.stock, generation.terms.stock);
                let events = self.0.iter().filter(|event| event.generation == *number);
                assert_eq!(events.count() as i64, generation.sequence.0);
            }
        }
    }
}

/// Ten units; buyer 1 has two, buyer 2 one that he gave back, buyer 3 one.
async fn in_mid_sale() -> (Sale<RedisHome>, Ledger) {
    let sale = Sale::<RedisHome>::open(|it| it.door = 1).await;
    let mut ledger = Ledger::default();
    sale.buy(1, 2).await.unwrap();
    let back = sale.buy(2, 1).await.unwrap().reservation;
    ledger.write(&sale.home.engine).await;
    sale.release(&back).await.unwrap();
    sale.buy(3, 1).await.unwrap();
    (sale, ledger)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_redis_goes_on_in_a_new_generation() {
    let (mut sale, mut ledger) = in_mid_sale().await;
    let session = sale.sign_in(4).await;
    let old_token = sale.enter(session).await.unwrap();
    let before = sale.promo().await;
    sale.home.server.restart();
    ledger.rebuild(&sale.home.engine).await;

    let after = sale.promo().await;
    assert_eq!(after.generation, Generation(2));
    assert_eq!(
        (after.status, after.available),
        (Status::Open, before.available)
    );
    assert_eq!(after.terms.stock, before.available);
    assert!(after.sold_epoch > before.sold_epoch);
    assert_eq!((after.places_issued, after.places_used), (0, 0));
    // The session is still there, the token must be asked for again.
    let answer = sale.engine.reserve(keyed(session, old_token, 1, "k")).await;
    assert_eq!(refusal(answer), Refusal::TokenInvalid);
    let token = sale.enter(session).await.unwrap();
    let order = sale
        .engine
        .reserve(keyed(session, token, 1, "k"))
        .await
        .unwrap();
    assert_eq!(order.reservation.order.to_string(), "7-2-1");
    ledger.write(&sale.home.engine).await;
    ledger.check(&sale).await;
    // Whoever did it has given the right back: the next time it may be another process at once.
    sale.home.server.restart();
    assert!(sale.home.engine.begin_rebuild("another").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_redis_is_rebuilt_with_limits_keys_and_orders() {
    let (mut sale, mut ledger) = in_mid_sale().await;
    let session = sale.sign_in(5).await;
    let token = sale.enter(session).await.unwrap();
    let request = keyed(session, token, 1, "mine");
    let first = sale.engine.reserve(request.clone()).await.unwrap();
    ledger.write(&sale.home.engine).await;
    sale.home.server.kill();
    sale.home.server.forget();
    sale.home.server.restart();
    ledger.rebuild(&sale.home.engine).await;

    // Its stream begins anew; its numbers do not.
    let stands = sale.promo().await;
    assert_eq!((stands.generation, stands.available), (Generation(2), 6));
    // Buyers sign in again. The same key finds the same order, under whatever session.
    sale.engine.sign_in(session).await.unwrap();
    let again = sale.engine.reserve(request.clone()).await.unwrap();
    assert!(again.repeated);
    assert_eq!(again.reservation, first.reservation);
    let mut other = request;
    other.body.push('0');
    assert_eq!(
        refusal(sale.engine.reserve(other).await),
        Refusal::KeyReused
    );
    // Who was at his limit still is; who gave back may buy.
    assert_eq!(
        refusal(sale.enter(sale.sign_in(1).await).await),
        Refusal::PerBuyerLimit
    );
    sale.buy(2, 2).await.unwrap();
    assert_eq!(
        sale.enter(sale.sign_in(3).await).await.unwrap().amount_max,
        1
    );

    // What comes back from before is sold now, and its buyer may buy as much again.
    let order = sale
        .engine
        .reservation(first.reservation.order)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(order, first.reservation);
    assert!(sale.engine.release(release(&order)).await.unwrap());
    assert!(!sale.engine.release(release(&order)).await.unwrap());
    let told = sale.promo().await;
    assert_eq!((told.terms.stock, told.available), (7, 5));
    assert_eq!(sale.enter(session).await.unwrap().amount_max, 2);
    let late = sale.engine.reserve_again(order.order, "late").await;
    assert_eq!(refusal(late), Refusal::SoldOut);
    ledger.write(&sale.home.engine).await;
    ledger.check(&sale).await;

    // And once more: what comes back now goes to the third generation.
    sale.home.server.kill();
    sale.home.server.forget();
    sale.home.server.restart();
    ledger.rebuild(&sale.home.engine).await;
    let third = sale.promo().await;
    assert_eq!((third.generation, third.available), (Generation(3), 5));
    let of_first = ledger.0.iter().find_map(|event| match &event.change {
        Change::Reserved { reservation, .. } if reservation.buyer.0 == 1 => Some(*reservation),
        _ => None,
    });
    assert!(sale.release(&of_first.unwrap()).await.unwrap());
    assert_eq!(sale.promo().await.available, 7);
    sale.buy(1, 2).await.unwrap();
    ledger.write(&sale.home.engine).await;
    ledger.check(&sale).await;
    // Ten were published. Held: buyer 1 has two, 2 two, 3 one.
    assert_eq!(sale.promo().await.available, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_is_over_stays_over_and_a_paused_one_paused() {
    for (control, status, generation) in [
        (Control::Close, Status::Closed, 1),
        (Control::Pause, Status::Paused, 2),
    ] {
        let (mut sale, mut ledger) = in_mid_sale().await;
        sale.engine.control(PROMO, control).await.unwrap();
        sale.home.server.restart();
        ledger.rebuild(&sale.home.engine).await;
        let told = sale.promo().await;
        assert_eq!(
            (told.status, told.generation),
            (status, Generation(generation))
        );
        assert_eq!(told.available, 7);
        ledger.write(&sale.home.engine).await;
        ledger.check(&sale).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_replaced_in_mid_rebuild_opens_nothing() {
    let (mut sale, mut ledger) = in_mid_sale().await;
    ledger.write(&sale.home.engine).await;
    sale.home.server.restart();
    let engine = &sale.home.engine;
    assert!(engine.begin_rebuild("writer").await.unwrap());
    ledger.write(engine).await;
    // His minute is over, another process has begun, and done it all; the sale goes on.
    let other = Redis::open(Options::new(sale.home.server.url(), "other"))
        .await
        .unwrap();
    let [key, _] = engine.link.keys.lease("rebuild");
    let mut end = redis::cmd("DEL");
    end.arg(key);
    let _: i64 = engine
        .link
        .ask_on(&end, link::Repeat::Safe, link::Memory::Any)
        .await
        .unwrap();
    assert!(other.begin_rebuild("other").await.unwrap());
    other.rebuild("other", ledger.past()).await.unwrap();
    sale.buy(8, 2).await.unwrap();
    let stands = sale.promo().await;
    // What the first one brings now is of a while ago: nothing of it is taken.
    let late = engine.rebuild("writer", ledger.past()).await;
    assert_eq!(refusal(late), Refusal::NotAllowed);
    assert_eq!(
        refusal(engine.mark(PROMO, "writer").await),
        Refusal::NotAllowed
    );
    assert_eq!(sale.promo().await, stands);
    assert_eq!(stands.available, 5);
}
