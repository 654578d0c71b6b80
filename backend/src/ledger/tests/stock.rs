//! Writing events: once, or not at all.

use super::*;

on_each_database!(
    a_replayed_batch_writes_nothing_twice,
    other_content_under_the_same_key_is_an_error_and_changes_nothing,
    units_reserved_again_for_a_payment_that_was_settled_otherwise_go_back,
    movements_are_append_only,
    a_batch_may_be_large,
    what_was_asked_and_published_is_kept,
    what_can_never_be_written_is_poison,
    a_gap_is_told_by_the_first_missing_number,
);

async fn a_replayed_batch_writes_nothing_twice(home: &Home) {
    let ledger = &home.ledger;
    let batch = [published(50), reserved(2, 5, 2), reserved(3, 6, 1)];
    let first = ledger.write_events(&batch, NOW).await.unwrap();
    assert_eq!((first.new, first.repeated), (3, 0));
    let order = ledger.order(order(2)).await.unwrap().unwrap();
    assert_eq!(
        (order.state, order.pay_by, order.amount),
        (State::Written, LATER, 2)
    );
    // Again, later, with something new behind it.
    let longer = [batch.to_vec(), vec![reserved(4, 7, 1)]].concat();
    let again = ledger.write_events(&longer, LATER).await.unwrap();
    assert_eq!((again.new, again.repeated), (1, 3));
    assert_eq!(ledger.order(order.id).await.unwrap().unwrap(), order);
    assert_eq!(shop(ledger).await, (96, 4));
    // The same event twice in one batch is a replay too.
    let twice = [reserved(5, 8, 1), reserved(5, 8, 1)];
    let twice = ledger.write_events(&twice, NOW).await.unwrap();
    assert_eq!((twice.new, twice.repeated), (1, 1));
}

async fn other_content_under_the_same_key_is_an_error_and_changes_nothing(home: &Home) {
    let ledger = &home.ledger;
    let batch = [published(50), reserved(2, 5, 2)];
    ledger.write_events(&batch, NOW).await.unwrap();
    let mut dearer = reserved(2, 5, 2);
    if let Change::Reserved {
        reservation: made, ..
    } = &mut dearer.change
    {
        made.price = Money::from_minor(1).unwrap();
    }
    let mut doubled = reserved(3, 5, 2);
    if let Change::Reserved {
        reservation: made, ..
    } = &mut doubled.change
    {
        (made.order, made.number) = (order(2), ReservationNumber(2));
    }
    let mut asked_otherwise = reserved(2, 5, 2);
    if let Change::Reserved { key, .. } = &mut asked_otherwise.change {
        *key = "KEY-2".to_owned();
    }
    let mut published_otherwise = published(50);
    if let Change::Published { terms, .. } = &mut published_otherwise.change {
        terms.per_buyer = 9;
    }
    let wrong = [
        asked_otherwise,
        published_otherwise,
        reserved(2, 6, 2),
        reserved(2, 5, 1),
        released(2, 2, 2),
        dearer,
        doubled,
    ];
    for event in wrong {
        let result = ledger
            .write_events(&[reserved(9, 9, 1), event.clone()], NOW)
            .await;
        assert!(
            matches!(result, Err(BackendError::Contradiction(_))),
            "{event:?}: {result:?}"
        );
        assert!(ledger.order(order(9)).await.unwrap().is_none());
    }
    // What belongs to an order that was never written breaks a constraint of the schema.
    for event in [released(3, 8, 2), reserved_again(3, 9, "demo:p")] {
        let result = ledger.write_events(&[event], NOW).await;
        assert!(
            matches!(&result, Err(error) if error.is_poison()),
            "{result:?}"
        );
    }
    assert_eq!(shop(ledger).await, (98, 2));
}

async fn units_reserved_again_for_a_payment_that_was_settled_otherwise_go_back(home: &Home) {
    let ledger = &home.ledger;
    let batch = [
        published(50),
        reserved(2, 5, 2),
        reserved_again(3, 2, "demo:p"),
    ];
    ledger.write_events(&batch, NOW).await.unwrap();
    let order = ledger.order(order(2)).await.unwrap().unwrap();
    assert_eq!(order.state, State::Written);
    let pending = ledger.pending_releases_of(order.id).await.unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].number, ReservationNumber(3));
}

async fn movements_are_append_only(home: &Home) {
    let ledger = &home.ledger;
    ledger.write_events(&[published(50)], NOW).await.unwrap();
    for change in [
        "UPDATE stock_movements SET delta = 51",
        "DELETE FROM stock_movements",
    ] {
        let query = ledger.write(change).await.unwrap();
        assert!(query.execute().await.is_err());
    }
}

async fn a_gap_is_told_by_the_first_missing_number(home: &Home) {
    let ledger = &home.ledger;
    let batch = [published(50), reserved(2, 5, 1), reserved(4, 6, 1)];
    ledger.write_events(&batch, NOW).await.unwrap();
    let missing = async |fence| {
        let reached = ledger
            .reached(PromoId(7), Generation(1), Sequence(fence))
            .await;
        reached.unwrap().missing
    };
    assert_eq!(missing(2).await, None);
    assert_eq!(missing(4).await, Some(Sequence(3)));
    assert_eq!(missing(9).await, Some(Sequence(3)));
    ledger
        .write_events(&[reserved(3, 7, 1)], NOW)
        .await
        .unwrap();
    assert_eq!(missing(4).await, None);
    assert_eq!(missing(5).await, Some(Sequence(5)));
}

async fn a_batch_may_be_large(home: &Home) {
    let ledger = &home.ledger;
    let mut batch = vec![published(20_000)];
    batch.extend((2..10_001).map(|sequence| reserved(sequence, sequence, 1)));
    let first = ledger.write_events(&batch, NOW).await.unwrap();
    let again = ledger.write_events(&batch, NOW).await.unwrap();
    assert_eq!((first.new, again.repeated), (10_000, 10_000));
    let books = ledger.books(&fence(10_001, 10_000)).await.unwrap();
    assert_eq!((books.faults, books.counts.check()), (Vec::new(), Ok(())));
    assert_eq!(books.counts.written, 9_999);
}

/// What an engine that lost its memory needs to find.
async fn what_was_asked_and_published_is_kept(home: &Home) {
    let ledger = &home.ledger;
    let batch = [published(50), reserved(2, 5, 2)];
    ledger.write_events(&batch, NOW).await.unwrap();
    let kept = ledger.publishings(PromoId(7)).await.unwrap();
    let told = Publishing {
        promo: PromoId(7),
        generation: Generation(1),
        digest: "a".to_owned(),
        terms: terms(50),
        at: batch[0].at,
    };
    assert_eq!(kept, [told]);
    assert_eq!(ledger.publishings(PromoId(8)).await.unwrap(), []);
    let asked = ledger
        .read("SELECT idempotency_key, body, jti FROM orders")
        .await;
    let asked = asked.unwrap().fetch_one().await.unwrap();
    let text = |column| asked.get::<String>(column).unwrap();
    assert_eq!(
        (text("idempotency_key"), text("body"), text("jti")),
        (
            "key-2".to_owned(),
            "digest".to_owned(),
            Nonce([7; 16]).to_string()
        )
    );
}

async fn what_can_never_be_written_is_poison(home: &Home) {
    let ledger = &home.ledger;
    // An order of nothing breaks a CHECK of the schema; so does a movement without a number.
    let mut unnumbered = reserved(2, 5, 1);
    unnumbered.sequence = Sequence(0);
    for event in [reserved(2, 5, 0), unnumbered] {
        let batch = [published(50), event];
        let error = ledger.write_events(&batch, NOW).await.unwrap_err();
        assert!(error.is_poison() && !error.is_outage(), "{error:?}");
        assert_eq!(error.refusal(), Refusal::Unexpected);
    }
    assert_eq!(ledger.generations().await.unwrap(), []);
}
