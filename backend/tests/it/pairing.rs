//! Engine and ledger as a pair: units that were published again, two who settle the same payment, and
//! a file that was lost or restored without the other.

use std::sync::Arc;
use std::time::Duration;

use engine::embedded::{Embedded, Options};
use engine::{
    Clock as _, Entry, Publish, Release, Reservation, Reserve, SharedEngine, SystemClock,
};
use floodgate_backend::ledger::LatePayment;
use floodgate_backend::metrics::Metrics;
use floodgate_backend::payment::settle_late;
use floodgate_backend::writer::OrderWriter;
use floodgate_backend::{BackendError, audit, start};
use lua_free_rules::keys::{Key, KeyRing};
use lua_free_rules::order::State;
use lua_free_rules::token::Session;
use lua_free_rules::units::{BuyerId, ItemId, Nonce, Timestamp};
use serde_json::json;

use crate::harness::{OPERATOR, Shop, ledger_in, proposal, settings};

#[tokio::test]
async fn units_that_were_published_again_are_not_found_by_a_late_payment() {
    let mut sale = proposal();
    (sale.stock, sale.per_buyer) = (100, 100);
    let shop = Shop::with(vec![sale.clone()]).await;
    shop.publish(&sale).await;
    let (ada, eve) = (shop.buyer("10001").await, shop.buyer("10002").await);
    let adas = shop.order(&ada, 1, 100).await;
    let body = json!({ "orderId": adas });
    shop.post("/order/cancel", &ada.token, &body).await;
    while shop.engine.promos().await.unwrap().1[0].available < 100 {
        tokio::task::yield_now().await;
    }
    let closed = shop
        .post("/admin/promo/close", OPERATOR, &json!({ "promoId": 7 }))
        .await;
    assert_eq!(closed.status, 200, "{}", closed.body);
    let again = shop
        .post("/item/publishpromo?id=7", OPERATOR, &json!({}))
        .await;
    assert_eq!(again.data()["result"], "new", "{}", again.body);
    let eves = shop.order(&eve, 2, 100).await;
    let paid = shop
        .post("/order/pay", &eve.token, &json!({ "orderId": eves }))
        .await;
    assert_eq!(paid.status, 200, "{}", paid.body);
    let ledger = shop.ledger().await;
    let total = "9900.00".parse().unwrap();
    let order = adas.parse().unwrap();
    ledger
        .receive_payment("demo:late", order, total, SystemClock.now())
        .await
        .unwrap();
    shop.wait_for(&ada, &adas, "refund_due").await;
    assert_eq!(ledger.item(ItemId(3)).await.unwrap().unwrap().stock, 0);
    assert_eq!(shop.audit().await["clean"], true);
    shop.stop().await;
}

/// The engine refuses a late payment; before that is written, another settler finds units for it. The
/// refund stands and the units go back: the event is no dead letter.
#[tokio::test]
async fn two_who_settle_the_same_late_payment_do_not_lose_its_event() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("engine.db");
    let home = Embedded::open(&path, Arc::new(SystemClock), Options::default()).unwrap();
    let home = Arc::new(home);
    let engine: SharedEngine = home.clone();
    let ledger = ledger_in(dir.path()).await;
    let metrics = Metrics::new().unwrap();
    let writer = OrderWriter::new(home.clone(), ledger.clone(), metrics.clone(), 100);
    let mut sale = proposal();
    sale.per_buyer = 5;
    let (terms, digest) = (sale.terms(SystemClock.now()), sale.digest());
    let publish = Publish {
        promo: sale.id,
        terms,
        digest,
        only_first: true,
    };
    engine.publish(publish).await.unwrap();
    let buy = async |number: u8| {
        let (buyer, jti) = (BuyerId(number.into()), Nonce([number; 16]));
        let session = Session {
            buyer,
            id: jti,
            expires_at: Timestamp(4_000_000_000_000),
        };
        engine.sign_in(session).await.unwrap();
        let entry = Entry {
            promo: sale.id,
            session,
            attempt: None,
            jti,
        };
        let access = engine.enter(entry).await.unwrap();
        let (key, body) = (number.to_string(), String::new());
        let reserve = Reserve {
            access,
            session,
            amount: 5,
            key,
            body,
        };
        engine.reserve(reserve).await.unwrap().reservation
    };
    let give_up = async |made: Reservation| {
        ledger
            .cancel(made.order, made.buyer, SystemClock.now())
            .await
            .unwrap();
        let release = Release {
            order: made.order,
            number: made.number,
        };
        engine.release(release).await.unwrap();
    };
    let first = buy(1).await;
    writer.drain().await.unwrap();
    give_up(first).await;
    let second = buy(2).await;
    writer.drain().await.unwrap();
    let total = first.price.times(first.amount);
    ledger
        .receive_payment("demo:p1", first.order, total, SystemClock.now())
        .await
        .unwrap();
    let late = LatePayment {
        reference: "demo:p1".to_owned(),
        order: first.order,
    };
    engine
        .reserve_again(late.order, &late.reference)
        .await
        .unwrap_err();
    give_up(second).await;
    settle_late(&engine, &ledger, &metrics, &late, SystemClock.now())
        .await
        .unwrap();
    ledger.refuse_late(&late, SystemClock.now()).await.unwrap();
    writer.drain().await.unwrap();

    assert_eq!(engine.backlog().await.unwrap().dead_letters, 0);
    let order = ledger.order(first.order).await.unwrap().unwrap();
    assert_eq!(order.state, State::RefundDue);
    for release in ledger.pending_releases_of(first.order).await.unwrap() {
        engine.release(release).await.unwrap();
    }
    writer.drain().await.unwrap();
    assert_eq!(engine.promos().await.unwrap().1[0].available, 5);
    let report = audit(engine.as_ref(), &ledger, None, Duration::ZERO)
        .await
        .unwrap();
    assert!(report.clean, "{report:?}");
}

#[tokio::test]
async fn an_engine_that_was_lost_or_is_older_than_the_ledger_is_refused() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    shop.order(&ada, 1, 1).await;
    let (dir, engine) = shop.stop().await;
    drop(engine);
    let (file, copy) = (dir.path().join("engine.db"), dir.path().join("copy"));
    std::fs::copy(&file, &copy).unwrap();
    let reopen = async || {
        let engine = Embedded::open(&file, Arc::new(SystemClock), Options::default()).unwrap();
        let engine: SharedEngine = Arc::new(engine);
        let keys = KeyRing::new(vec![Key::new("k", &[7; 32]).unwrap()], "k").unwrap();
        let started = start(
            settings(dir.path(), keys.clone(), vec![proposal()]),
            engine.clone(),
        )
        .await;
        (started, engine, keys)
    };

    // As it was, it starts; one more order is sold.
    let (started, engine, _keys) = reopen().await;
    let running = started.unwrap();
    let session = Session {
        buyer: BuyerId(99),
        id: Nonce([99; 16]),
        expires_at: Timestamp(4_000_000_000_000),
    };
    engine.sign_in(session).await.unwrap();
    let entry = Entry {
        promo: proposal().id,
        session,
        attempt: None,
        jti: Nonce([98; 16]),
    };
    let access = engine.enter(entry).await.unwrap();
    let (key, body) = ("k".to_owned(), String::new());
    engine
        .reserve(Reserve {
            access,
            session,
            amount: 1,
            key,
            body,
        })
        .await
        .unwrap();
    running.stop(Duration::from_secs(10)).await;
    drop(engine);

    // Restored from the copy, then lost altogether: refused either way, before anything is sold.
    for (restored, told) in [
        (true, "the ledger has change"),
        (false, "does not know promo 7"),
    ] {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(dir.path().join(format!("engine.db{suffix}")));
        }
        if restored {
            std::fs::copy(&copy, &file).unwrap();
        }
        let (started, ..) = reopen().await;
        let Err(error) = started else {
            panic!("it started")
        };
        assert!(matches!(error, BackendError::Settings(_)), "{error}");
        assert!(error.to_string().contains(told), "{error}");
    }
}
