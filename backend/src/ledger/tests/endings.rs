//! Rebuilds: what they did not count is not written any more, everything else is.

use std::time::Duration;

use super::*;
use crate::ledger::endings::Endings;

on_each_database!(
    what_was_lost_and_not_counted_is_refused,
    what_was_set_aside_before_counts_and_is_written,
    what_a_rebuild_did_not_count_counts_in_no_later_one,
    a_number_is_not_given_out_twice,
    of_a_sale_that_was_over_nothing_is_written_late,
    an_ending_that_is_given_up_ends_nothing,
    writers_and_rebuilds_exclude_each_other,
    units_come_back_once,
);

fn of(generation: i64, mut event: Event) -> Event {
    event.generation = Generation(generation);
    if let Change::Reserved { reservation, .. } = &mut event.change {
        reservation.order.generation = Generation(generation);
    }
    event
}

fn rebuilt(generation: i64, stock: u32) -> Event {
    let mut event = of(generation, published(stock));
    if let Change::Published { digest, .. } = &mut event.change {
        *digest = "rebuilt:a".to_owned();
    }
    event
}

fn added(sequence: i64, stock: u32) -> Event {
    event(sequence, Change::Added { stock })
}

async fn end(ledger: &Ledger, set_aside: &[Event]) -> Vec<Event> {
    let ending = ledger.begin_ending().await.unwrap();
    ending.finish(set_aside).await.unwrap()
}

async fn assert_refused(ledger: &Ledger, event: Event) {
    let written = ledger.write_events(std::slice::from_ref(&event), NOW).await;
    let Err(error @ BackendError::RebuiltWithout(_)) = written else {
        panic!("{event:?}: {written:?}");
    };
    assert!(error.is_poison() && !error.is_outage(), "{error:?}");
}

async fn what_was_lost_and_not_counted_is_refused(home: &Home) {
    let ledger = &home.ledger;
    let batch = [published(50), reserved(2, 5, 2), reserved(3, 6, 1)];
    ledger.write_events(&batch, NOW).await.unwrap();
    assert_eq!(end(ledger, &[]).await, []);
    assert_eq!(
        ledger.endings().await.unwrap(),
        [(PromoId(7), Generation(1))].into()
    );
    for lost in [
        reserved(4, 7, 1),
        reserved_again(4, 2, "demo:p"),
        added(4, 10),
    ] {
        assert_refused(ledger, lost.clone()).await;
        // Nor beside others: nothing of that batch is written.
        let beside = [rebuilt(2, 47), lost];
        ledger.write_events(&beside, NOW).await.unwrap_err();
    }
    let words = ledger.write_events(&[reserved(4, 7, 1)], NOW).await;
    let words = words.unwrap_err().to_string();
    assert!(words.contains("order 7-1-4 of buyer 7 is void"), "{words}");
    // What it has already comes again; what ended comes back; the sale goes on; other promos do not care.
    let again = ledger.write_events(&batch, NOW).await.unwrap();
    assert_eq!((again.new, again.repeated), (0, 3));
    ledger.cancel(order(2), BuyerId(5), NOW).await.unwrap();
    let mut elsewhere = published(5);
    elsewhere.promo = PromoId(8);
    let on = [
        released(4, 2, 2),
        rebuilt(2, 47),
        of(2, reserved(2, 8, 1)),
        elsewhere,
    ];
    let on = ledger.write_events(&on, NOW).await.unwrap();
    assert_eq!((on.new, on.repeated), (4, 0));
    assert!(ledger.order(order(4)).await.unwrap().is_none());
    let pasts = ledger.pasts().await.unwrap();
    assert_eq!(
        pasts.iter().map(|past| past.numbered.0).collect::<Vec<_>>(),
        [1, 0]
    );
    assert_eq!(pasts[0].generations[&Generation(1)].available, 49);
}

async fn what_was_set_aside_before_counts_and_is_written(home: &Home) {
    let ledger = &home.ledger;
    let batch = [published(50), reserved(2, 5, 2)];
    ledger.write_events(&batch, NOW).await.unwrap();
    // One is in the ledger all the same, one is of a promo that nobody published.
    let mut unknown = reserved(2, 5, 1);
    unknown.promo = PromoId(9);
    let letters = [
        reserved(4, 7, 1),
        reserved(2, 5, 2),
        unknown,
        reserved(3, 6, 1),
        reserved(3, 6, 1),
    ];
    let counted = end(ledger, &letters).await;
    assert_eq!(counted, [reserved(3, 6, 1), reserved(4, 7, 1)]);
    assert_refused(ledger, reserved(5, 8, 1)).await;
    // A rebuild that is begun again counts the same, whoever begins it.
    let other = home.another().await;
    assert_eq!(end(&other, &letters).await, counted);
    let written = ledger.write_events(&counted, NOW).await.unwrap();
    assert_eq!((written.new, written.repeated), (2, 0));
    assert_eq!(shop(ledger).await, (96, 4));
    assert_eq!(end(ledger, &letters).await, []);
}

async fn what_a_rebuild_did_not_count_counts_in_no_later_one(home: &Home) {
    let ledger = &home.ledger;
    ledger.write_events(&[published(50)], NOW).await.unwrap();
    end(ledger, &[]).await;
    let heir = [rebuilt(2, 50), of(2, reserved(2, 5, 1))];
    ledger.write_events(&heir, NOW).await.unwrap();
    // Its units are sold again since the first one, so it stays out; a publishing that was set aside counts
    // with what comes after it.
    let letters = [
        of(3, reserved(2, 7, 1)),
        of(3, published(9)),
        reserved(2, 6, 1),
        of(2, reserved(3, 6, 1)),
        of(4, reserved(2, 6, 1)),
    ];
    let counted = end(ledger, &letters).await;
    let expected = [
        of(2, reserved(3, 6, 1)),
        of(3, published(9)),
        of(3, reserved(2, 7, 1)),
    ];
    assert_eq!(counted, expected);
    assert_refused(ledger, reserved(2, 6, 1)).await;
    assert_refused(ledger, of(3, reserved(3, 6, 1))).await;
    ledger.write_events(&counted, NOW).await.unwrap();
}

async fn a_number_is_not_given_out_twice(home: &Home) {
    let ledger = &home.ledger;
    ledger.write_events(&[published(50)], NOW).await.unwrap();
    end(ledger, &[]).await;
    // The engine went on as the second generation, and lost all of that before anything reached the ledger.
    end(ledger, &[]).await;
    let lost = [rebuilt(2, 50), of(2, reserved(2, 5, 1))];
    for event in lost {
        assert_refused(ledger, event).await;
    }
    assert_eq!(ledger.pasts().await.unwrap()[0].numbered, Generation(2));
    let heir = [rebuilt(3, 50), of(3, reserved(2, 5, 1))];
    ledger.write_events(&heir, NOW).await.unwrap();
    // A movement whose publishing has not come yet has its number too.
    ledger
        .write_events(&[of(5, reserved(2, 5, 1))], NOW)
        .await
        .unwrap();
    end(ledger, &[]).await;
    assert_refused(ledger, of(5, published(50))).await;
}

async fn of_a_sale_that_was_over_nothing_is_written_late(home: &Home) {
    let ledger = &home.ledger;
    let promo = PromoId(7);
    ledger.write_events(&[published(50)], NOW).await.unwrap();
    for ended in [1, 2, 3] {
        end(ledger, &[]).await;
        assert_eq!(ledger.endings().await.unwrap()[&promo], Generation(ended));
    }
    // Somebody who has seen an earlier ending takes nothing back.
    ledger
        .take_back_ending(promo, Generation(2), Generation(1))
        .await
        .unwrap();
    assert_refused(ledger, of(2, published(9))).await;
    // Numbers that nobody was given are free again, the sale that was over is not.
    ledger
        .take_back_ending(promo, Generation(3), Generation(1))
        .await
        .unwrap();
    let next = [of(2, published(9)), of(2, reserved(2, 6, 1))];
    ledger.write_events(&next, NOW).await.unwrap();
    assert_refused(ledger, reserved(2, 5, 1)).await;
}

async fn an_ending_that_is_given_up_ends_nothing(home: &Home) {
    let ledger = &home.ledger;
    ledger.write_events(&[published(50)], NOW).await.unwrap();
    drop(ledger.begin_ending().await.unwrap());
    ledger
        .write_events(&[reserved(2, 5, 1)], NOW)
        .await
        .unwrap();
    assert!(ledger.endings().await.unwrap().is_empty());
}

/// Both ways round: a writer that had begun is counted, one that comes later is refused.
async fn writers_and_rebuilds_exclude_each_other(home: &Home) {
    const SHORT: Duration = Duration::from_millis(300);
    let ledger = &home.ledger;
    ledger.write_events(&[published(50)], NOW).await.unwrap();
    let other = home.another().await;
    let mut writing = other.begin().await.unwrap();
    let event = reserved(2, 5, 1);
    Endings::hold(&mut writing, &[&event]).await.unwrap();
    let ending = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.begin_ending().await }
    });
    tokio::time::sleep(SHORT).await;
    assert!(!ending.is_finished(), "a writer is under way");
    writing.commit().await.unwrap();
    let ending = ending.await.unwrap().unwrap();
    let late = tokio::spawn({
        let other = other.clone();
        async move { other.write_events(&[reserved(2, 5, 1)], NOW).await }
    });
    tokio::time::sleep(SHORT).await;
    assert!(!late.is_finished(), "a rebuild is under way");
    ending.finish(&[]).await.unwrap();
    assert!(matches!(
        late.await.unwrap(),
        Err(BackendError::RebuiltWithout(_))
    ));
    // Writers do not keep each other from it.
    let mut one = ledger.begin().await.unwrap();
    Endings::hold(&mut one, &[&event]).await.unwrap();
    if home.kind != Kind::Sqlite {
        let mut two = other.begin().await.unwrap();
        Endings::hold(&mut two, &[&event]).await.unwrap();
    }
}

/// The engine lost that it had released, and does it again: the first time is not written any more.
async fn units_come_back_once(home: &Home) {
    let ledger = &home.ledger;
    let batch = [published(50), reserved(2, 5, 2)];
    ledger.write_events(&batch, NOW).await.unwrap();
    ledger.cancel(order(2), BuyerId(5), NOW).await.unwrap();
    end(ledger, &[]).await;
    let both = [released(3, 2, 2), released(4, 2, 2)];
    let written = ledger.write_events(&both, NOW).await;
    assert!(
        matches!(written, Err(BackendError::Contradiction(_))),
        "{written:?}"
    );
    for (event, is_new) in [(3, true), (4, false), (3, true)] {
        let written = ledger.write_events(&[released(event, 2, 2)], NOW).await;
        assert_eq!(written.is_ok(), is_new, "{written:?}");
    }
    assert_eq!(shop(ledger).await, (100, 0));
}
