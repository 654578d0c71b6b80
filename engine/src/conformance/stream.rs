//! The order stream: delivery, redelivery, dead letters.

use std::time::Duration;

use super::Home;
use super::sale::{PROMO, Sale};
use crate::{Control, EntryId, StreamEntry};

/// An id that no event has.
const NEVER: EntryId = EntryId {
    stream: PROMO.0,
    number: i64::MAX,
};

async fn read<H: Home>(sale: &Sale<H>, max: usize) -> Vec<EntryId> {
    let entries = sale.engine.read(max, Duration::ZERO).await.unwrap();
    ids(&entries)
}

fn ids(entries: &[StreamEntry]) -> Vec<EntryId> {
    entries.iter().map(|entry| entry.id).collect()
}

/// Entries come in the order of the steps, each once until the reader is set back.
pub async fn entries_come_in_order_and_once<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    for buyer in 1..=4 {
        sale.buy(buyer, 1).await.unwrap();
    }
    let first = read(&sale, 2).await;
    let rest = read(&sale, 100).await;
    assert_eq!((first.len(), rest.len()), (2, 3));
    let all = [first, rest].concat();
    assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
    assert!(read(&sale, 100).await.is_empty());
    assert!(read(&sale, 0).await.is_empty());
    sale.engine.rewind().await.unwrap();
    assert_eq!(read(&sale, 100).await, all);
    sale.engine.acknowledge(&all[..2]).await.unwrap();
    sale.engine.acknowledge(&[all[3]]).await.unwrap();
    // Again, with an id that was never given, and in any order.
    sale.engine
        .acknowledge(&[all[3], NEVER, all[0]])
        .await
        .unwrap();
    sale.engine.rewind().await.unwrap();
    assert_eq!(read(&sale, 100).await, [all[2], all[4]]);
    let backlog = sale.engine.backlog().await.unwrap();
    assert_eq!((backlog.entries, backlog.dead_letters), (2, 0));
    assert!(backlog.oldest.is_some());
    sale.engine.acknowledge(&all).await.unwrap();
    sale.engine.acknowledge(&[]).await.unwrap();
    let backlog = sale.engine.backlog().await.unwrap();
    assert_eq!((backlog.entries, backlog.oldest), (0, None));
    // An id never comes twice.
    sale.buy(5, 1).await.unwrap();
    let next = read(&sale, 100).await;
    assert!(next.len() == 1 && next[0] > all[4], "{next:?}");
}

/// After a crash, everything that was not acknowledged comes again, as it was.
pub async fn what_was_not_acknowledged_comes_again<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    for buyer in 1..=3 {
        sale.buy(buyer, 1).await.unwrap();
    }
    let before = sale.engine.read(100, Duration::ZERO).await.unwrap();
    sale.engine.acknowledge(&[before[0].id]).await.unwrap();
    let sale = sale.crash().await;
    let after = sale.engine.read(100, Duration::ZERO).await.unwrap();
    assert_eq!(after, before[1..]);
    sale.engine.acknowledge(&ids(&after)).await.unwrap();
    let sale = sale.crash().await;
    assert!(read(&sale, 100).await.is_empty());
    sale.buy(4, 1).await.unwrap();
    let next = read(&sale, 100).await;
    assert!(next[0] > before[3].id, "an id came twice");
}

/// An entry that cannot be read is set aside with the reason; the rest goes on.
pub async fn an_entry_is_set_aside<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    sale.buy(1, 1).await.unwrap();
    let entries = sale.engine.read(100, Duration::ZERO).await.unwrap();
    for _ in 0..2 {
        sale.engine
            .set_aside(entries[0].id, "unreadable")
            .await
            .unwrap();
    }
    sale.engine.set_aside(NEVER, "never was").await.unwrap();
    sale.engine.rewind().await.unwrap();
    assert_eq!(read(&sale, 100).await, [entries[1].id]);
    let sale = sale.crash().await;
    let dead = sale.engine.dead_letters(10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].id, &dead[0].payload),
        (entries[0].id, &entries[0].payload)
    );
    assert_eq!(dead[0].reason, "unreadable");
    let backlog = sale.engine.backlog().await.unwrap();
    assert_eq!((backlog.entries, backlog.dead_letters), (1, 1));
    assert!(sale.engine.dead_letters(0).await.unwrap().is_empty());
    // Another try: it comes as it was, under a new number.
    assert!(!sale.engine.replay(NEVER).await.unwrap());
    assert!(sale.engine.replay(dead[0].id).await.unwrap());
    assert!(!sale.engine.replay(dead[0].id).await.unwrap());
    let mut again = Vec::new();
    while again.len() < 2 {
        let more = sale.engine.read(100, Duration::ZERO).await.unwrap();
        assert!(!more.is_empty(), "it did not come again");
        again.extend(more);
    }
    let again = again.last().unwrap();
    assert_eq!(again.payload, entries[0].payload);
    assert!(again.id > entries[1].id);
    let backlog = sale.engine.backlog().await.unwrap();
    assert_eq!((backlog.entries, backlog.dead_letters), (2, 0));
}

/// A read waits for the first entry, and one that waits at the end hears of a rewind.
pub async fn a_read_waits_for_the_first_entry<H: Home>() {
    let sale = Sale::<H>::none().await;
    assert!(read(&sale, 10).await.is_empty());
    let wait = |engine: crate::SharedEngine| {
        tokio::spawn(async move {
            let read = engine.read(10, Duration::MAX);
            // So that a home that does not wake its readers fails instead of hanging.
            let entries = tokio::time::timeout(Duration::from_secs(60), read).await;
            entries.unwrap().unwrap()
        })
    };
    let waiting = wait(sale.engine.clone());
    tokio::task::yield_now().await;
    sale.publish("a", |_| ()).await.unwrap();
    let first = waiting.await.unwrap();
    assert_eq!(first.len(), 1);
    let waiting = wait(sale.engine.clone());
    tokio::task::yield_now().await;
    sale.engine.rewind().await.unwrap();
    assert_eq!(waiting.await.unwrap(), first);
    // A reader that goes away takes nothing with it.
    sale.engine.rewind().await.unwrap();
    let gone = wait(sale.engine.clone());
    gone.abort();
    if gone.await.is_err() {
        assert_eq!(sale.engine.read(10, Duration::ZERO).await.unwrap(), first);
    }
}

/// A rewind while a read is under way is not lost.
pub async fn a_rewind_during_a_read_is_not_lost<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    for buyer in 1..=3 {
        sale.buy(buyer, 1).await.unwrap();
    }
    let all = read(&sale, 100).await;
    for _ in 0..20 {
        sale.engine.rewind().await.unwrap();
        assert_eq!(read(&sale, 2).await, all[..2]);
        let (under_way, rewound) = tokio::join!(read(&sale, 100), sale.engine.rewind());
        rewound.unwrap();
        if under_way != all {
            assert_eq!(under_way, all[2..]);
            assert_eq!(read(&sale, 100).await, all);
        }
        assert!(read(&sale, 100).await.is_empty());
    }
}

/// Every change of available stock has the next number and its event, of each kind.
pub async fn events_add_up<H: Home>() {
    let sale = Sale::<H>::open(|_| ()).await;
    let first = sale.buy(1, 2).await.unwrap().reservation;
    let second = sale.buy(2, 1).await.unwrap().reservation;
    sale.engine
        .control(PROMO, Control::AddStock(7))
        .await
        .unwrap();
    sale.release(&first).await.unwrap();
    sale.engine
        .reserve_again(first.order, "late")
        .await
        .unwrap();
    sale.release(&second).await.unwrap();
    sale.engine.control(PROMO, Control::Close).await.unwrap();
    sale.engine.tend().await.unwrap();
    let promo = sale.promo().await;
    assert_eq!((promo.sequence.0, promo.available), (7, 15));
    sale.check_events(1).await;
    let sale = sale.crash().await;
    sale.check_events(1).await;
    assert_eq!(sale.promo().await, promo);
}
