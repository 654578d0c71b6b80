//! Readers that are gone, that hang, and a Redis that loses what a reader has in hand.

use super::*;
use crate::conformance::sale::{PROMO, Sale};
use crate::{OrderStream as _, Recovery as _, StreamEntry};

/// More than a reader that is gone may keep its entries from the others.
const SOON: Duration = Duration::from_secs(10);

async fn another(sale: &Sale<RedisHome>, node: &str) -> Redis {
    let options = Options::new(sale.home.server.url(), node);
    Redis::open(options).await.unwrap()
}

async fn read(engine: &Redis) -> Vec<StreamEntry> {
    engine.read(100, Duration::ZERO).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_reader_had_comes_to_another_one_soon() {
    let sale = Sale::<RedisHome>::open(|_| ()).await;
    sale.buy(1, 1).await.unwrap();
    sale.buy(2, 1).await.unwrap();
    let (alive, dead) = (another(&sale, "alive").await, another(&sale, "dead").await);
    let read_there = read(&dead).await;
    assert_eq!(read_there.len(), 3);
    sale.buy(3, 1).await.unwrap();
    // It is alive while it holds them, however long that takes, so nobody takes them.
    let looking = alive.read(100, Duration::from_secs(7)).await.unwrap();
    assert_eq!(looking.len(), 1);
    assert!(
        alive
            .read(100, Duration::from_secs(6))
            .await
            .unwrap()
            .is_empty()
    );
    drop(dead);
    let taken = tokio::time::timeout(SOON, alive.read(100, Duration::MAX));
    assert_eq!(taken.await.unwrap().unwrap(), read_there);
    // Taken once: the same look again brings nothing.
    assert!(
        alive
            .read(100, Duration::from_secs(2))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_gone_is_forgotten_if_it_has_nothing_in_hand() {
    let sale = Sale::<RedisHome>::open(|_| ()).await;
    let done = another(&sale, "done").await;
    let ids: Vec<_> = read(&done).await.iter().map(|entry| entry.id).collect();
    done.acknowledge(&ids).await.unwrap();
    sale.buy(1, 1).await.unwrap();
    let full = another(&sale, "full").await;
    assert_eq!(read(&full).await.len(), 1);
    drop((done, full));
    let engine = &sale.home.engine;
    let known = async || {
        let mut info = redis::cmd("XINFO");
        let key = engine.link.keys.stream(PROMO);
        info.arg("CONSUMERS").arg(key).arg(stream::GROUP);
        let all: Vec<std::collections::HashMap<String, redis::Value>> = engine
            .link
            .ask_on(&info, link::Repeat::Safe, link::Memory::Any)
            .await
            .unwrap();
        let names = all.into_iter().map(|mut it| {
            let name = it.remove("name").unwrap();
            redis::from_redis_value::<String>(name).unwrap()
        });
        names.collect::<std::collections::BTreeSet<_>>()
    };
    // Looked at, so that the stream is one of those that are looked after.
    assert!(read(engine).await.is_empty());
    engine.reader.forget_gone(Duration::ZERO).await.unwrap();
    assert!(
        known().await.contains("done"),
        "it said just now that it is alive"
    );
    let gone = async {
        while known().await.contains("done") {
            tokio::time::sleep(Duration::from_millis(50)).await;
            engine.reader.forget_gone(Duration::ZERO).await.unwrap();
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
    let left = known().await;
    assert!(left.contains("full") && left.contains("reader"), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_hand_outlives_a_redis_that_lost_it() {
    let mut sale = Sale::<RedisHome>::open(|_| ()).await;
    sale.buy(1, 1).await.unwrap();
    sale.buy(2, 1).await.unwrap();
    let engine = Arc::clone(&sale.home.engine);
    let before = read(&engine).await;
    engine.acknowledge(&[before[0].id]).await.unwrap();
    sale.home.server.kill();
    sale.home.server.forget();
    sale.home.server.restart();
    // The rest comes again to who is set back, and can be set aside as it was.
    engine.rewind().await.unwrap();
    assert_eq!(read(&engine).await, before[1..]);
    engine.set_aside(before[1].id, "late").await.unwrap();
    let dead = engine.dead_letters(10).await.unwrap();
    assert_eq!(
        dead.len(),
        0,
        "Redis knows of no promo before it was rebuilt"
    );
    assert!(engine.begin_rebuild("reader").await.unwrap());
    let mut past = crate::Past::new(PROMO);
    past.apply(&serde_json::from_str(&before[0].payload).unwrap());
    engine.rebuild("reader", vec![past]).await.unwrap();
    engine.set_aside(before[2].id, "late").await.unwrap();
    let dead = engine.dead_letters(10).await.unwrap();
    let payloads: Vec<_> = dead.iter().map(|letter| &letter.payload).collect();
    assert_eq!(payloads, [&before[1].payload, &before[2].payload]);
    assert_eq!(sale.promo().await.available, 10);
}
