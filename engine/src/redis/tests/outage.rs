//! A Redis that is away for a while, and settings that can never work.

use floodgate_servers::redis::Fsync;
use lua_free_rules::units::BuyerId;

use super::*;
use crate::conformance::sale::{Sale, keyed, refusal};
use crate::{
    Clock as _, EngineError, Sessions as _, Signal, Signals as _, Stock as _, SystemClock,
};

fn options(server: &Server) -> Options {
    let mut options = Options::new(server.url(), "reader");
    options.patience = Duration::from_millis(300);
    options
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_throws_keys_away_is_refused() {
    let server = Server::with(Fsync::Always, &["--maxmemory-policy", "allkeys-lru"]);
    let opened = Redis::open(options(&server)).await;
    assert!(matches!(opened.err(), Some(OpenError::Eviction(policy)) if policy == "allkeys-lru"));
    let opened = Redis::open(Options::new("http://127.0.0.1", "reader")).await;
    assert!(matches!(opened.err(), Some(OpenError::Address(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_does_not_let_us_in_is_no_outage() {
    let server = Server::with(Fsync::Always, &["--requirepass", "right"]);
    for password in [None, Some("wrong".to_owned())] {
        let opened = Redis::open(Options {
            password,
            ..options(&server)
        });
        assert!(matches!(opened.await.err(), Some(OpenError::Refused(_))));
    }
    let opened = Redis::open(Options {
        password: Some("right".to_owned()),
        ..options(&server)
    });
    assert!(opened.await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_notices_that_redis_has_fallen_silent() {
    let server = Server::start();
    let engine = Redis::open(options(&server)).await.unwrap();
    let mut signals = engine.listen();
    // It listens: what was told before is not known.
    assert_eq!(signals.recv().await, Ok(Signal::Missed));
    // As if the way were cut: no connection ends, and nothing is said on any.
    server.freeze();
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.thaw();
    assert_eq!(signals.recv().await, Ok(Signal::Missed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_asked_before_the_memory_was_found_good() {
    let mut server = Server::start();
    let engine = Redis::open(options(&server)).await.unwrap();
    let unavailable = |answer: Result<bool>| matches!(answer, Err(EngineError::Unavailable(_)));
    let session = lua_free_rules::token::Session {
        buyer: BuyerId(1),
        id: crate::conformance::sale::nonce(),
        expires_at: SystemClock.now().plus_ms(60_000),
    };
    assert!(unavailable(engine.is_signed_in(session).await));
    engine.vouch().await.unwrap();
    assert_eq!(engine.is_signed_in(session).await, Ok(false));
    engine.sign_in(session).await.unwrap();
    // The same files, another run: until somebody says that they are whole, nobody is asked.
    server.restart();
    assert!(unavailable(engine.is_signed_in(session).await));
    engine.vouch().await.unwrap();
    assert_eq!(engine.is_signed_in(session).await, Ok(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_or_is_away_is_an_outage_and_comes_back_by_itself() {
    let sale = Sale::<RedisHome>::open(|_| ()).await;
    let impatient = Arc::new(Redis::open(options(&sale.home.server)).await.unwrap());
    let session = sale.sign_in(1).await;
    let access = sale.enter(session).await.unwrap();
    let request = keyed(session, access, 1, "k");
    sale.home.server.freeze();
    let answer = impatient.reserve(request.clone()).await;
    assert!(
        matches!(answer, Err(EngineError::Unavailable(_))),
        "{answer:?}"
    );
    sale.home.server.thaw();
    // What was not answered may have been done, once: asking again finds it or does it.
    let reserved = impatient.reserve(request.clone()).await.unwrap();
    let again = sale.engine.reserve(request).await.unwrap();
    assert!(again.repeated);
    assert_eq!(again.reservation, reserved.reservation);
    assert_eq!(sale.promo().await.available, 9);
    sale.check_events(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_memory_takes_no_new_order_and_loses_none() {
    let server = Server::with(Fsync::Always, &["--maxmemory", "3mb"]);
    let home = RedisHome::on(server, u64::MAX).await;
    let engine = home.engine();
    let sale = Sale { home, engine };
    sale.publish("a", |it| it.stock = 100_000).await.unwrap();
    let mut orders = 0_u32;
    let full = loop {
        assert!(orders < 50_000, "the memory never filled");
        let session = lua_free_rules::token::Session {
            buyer: BuyerId(i64::from(orders)),
            id: crate::conformance::sale::nonce(),
            expires_at: SystemClock.now().plus_ms(600_000),
        };
        let bought = async {
            sale.engine.sign_in(session).await?;
            let access = sale.enter(session).await?;
            sale.engine.reserve(keyed(session, access, 1, "k")).await
        };
        match bought.await {
            Ok(_) => orders += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(
        refusal::<()>(Err(full)),
        lua_free_rules::refusal::Refusal::Overloaded
    );
    let promo = sale.engine.promos().await.unwrap().1.remove(0);
    assert_eq!(promo.available, 100_000 - orders);
    assert_eq!(
        sale.engine.backlog().await.unwrap().entries,
        u64::from(orders) + 1
    );
}
