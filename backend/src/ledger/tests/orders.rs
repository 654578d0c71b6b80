//! Which step of an order comes first, and what becomes of payments.

use super::*;

on_each_database!(
    of_payment_expiry_and_cancellation_exactly_one_wins,
    a_payment_is_taken_once_and_for_the_right_amount,
    a_late_payment_waits_for_its_units,
    a_late_payment_without_units_is_refunded,
);

async fn of_payment_expiry_and_cancellation_exactly_one_wins(home: &Home) {
    let ledger = &home.ledger;
    let mut batch = vec![published(50)];
    batch.extend((2..42).map(|sequence| reserved(sequence, sequence, 1)));
    ledger.write_events(&batch, NOW).await.unwrap();
    let expiring = tokio::spawn({
        let ledger = ledger.clone();
        async move {
            while ledger.expire(LATER, 3, Fence(1)).await.unwrap() > 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let mut races = tokio::task::JoinSet::new();
    for number in 2..42 {
        let ledger = ledger.clone();
        races.spawn(async move {
            let id = order(number);
            let reference = format!("demo:{number}");
            // In time by its own clock, while the sweeper's says the time is over.
            let in_time = LATER.plus_ms(-1);
            let (paid, cancelled) = tokio::join!(
                ledger.receive_payment(&reference, id, price(), in_time),
                ledger.cancel(id, BuyerId(number), in_time),
            );
            (number, paid.unwrap().state, cancelled)
        });
    }
    let mut outcomes = Vec::new();
    while let Some(outcome) = races.join_next().await {
        outcomes.push(outcome.unwrap());
    }
    expiring.await.unwrap();
    for (number, paid, cancelled) in outcomes {
        let pending = ledger
            .pending_releases_of(order(number))
            .await
            .unwrap()
            .len();
        let state = state(ledger, number).await;
        match paid {
            PaymentState::Accepted => {
                assert!(cancelled.is_err());
                assert_eq!((state, pending), (State::Paid, 0));
            }
            _ => {
                assert_eq!((paid, pending), (PaymentState::Late, 1));
                let ended = if cancelled.is_ok() {
                    State::Cancelled
                } else {
                    State::Expired
                };
                assert_eq!(state, ended);
            }
        }
    }
}

async fn a_payment_is_taken_once_and_for_the_right_amount(home: &Home) {
    let ledger = &home.ledger;
    let batch = [published(50), reserved(2, 5, 2), reserved(3, 6, 2)];
    ledger.write_events(&batch, NOW).await.unwrap();
    let total = price().times(2);
    let pay = |reference, number, amount| {
        let ledger = ledger.clone();
        async move {
            ledger
                .receive_payment(reference, order(number), amount, NOW)
                .await
        }
    };
    let bad = |result: &Result<Payment>| {
        matches!(result, Err(BackendError::Refused(Refusal::BadParameter(_))))
    };
    // Of another amount: the money goes back, the order can still be paid.
    for _ in 0..2 {
        let payment = pay("demo:0", 2, price()).await.unwrap();
        assert_eq!(
            (payment.state, payment.order.state),
            (PaymentState::RefundDue, State::Written)
        );
    }
    for _ in 0..2 {
        let payment = pay("demo:1", 2, total).await.unwrap();
        assert_eq!(
            (payment.state, payment.order.state),
            (PaymentState::Accepted, State::Paid)
        );
    }
    assert!(bad(&pay("demo:1", 3, total).await));
    assert!(bad(&pay("demo:1", 2, price()).await));
    assert!(bad(&pay("demo:0", 2, total).await));
    let second = pay("demo:2", 2, total).await.unwrap();
    assert_eq!(
        (second.state, second.order.state),
        (PaymentState::RefundDue, State::Paid)
    );
    let unknown = pay("demo:3", 9, total).await;
    assert!(matches!(
        unknown,
        Err(BackendError::Refused(Refusal::NotFound))
    ));
}

async fn a_late_payment_waits_for_its_units(home: &Home) {
    let ledger = &home.ledger;
    ledger
        .write_events(&[published(50), reserved(2, 5, 2)], NOW)
        .await
        .unwrap();
    let total = price().times(2);
    // The sweeper has not come by; the payment finds the order written, and its time over.
    let late = ledger
        .receive_payment("demo:1", order(2), total, LATER)
        .await
        .unwrap();
    assert_eq!(
        (late.state, late.order.state),
        (PaymentState::Late, State::Expired)
    );
    let second = ledger
        .receive_payment("demo:2", order(2), total, LATER)
        .await
        .unwrap();
    assert_eq!(second.state, PaymentState::RefundDue);
    let events = [released(3, 2, 2), reserved_again(4, 2, "demo:1")];
    ledger.write_events(&events, LATER).await.unwrap();
    assert_eq!(state(ledger, 2).await, State::Paid);
    assert_eq!(ledger.late_payments(9).await.unwrap(), []);
    assert_eq!(ledger.pending_releases(9).await.unwrap(), []);
    // An answer that comes too late to matter.
    let late = LatePayment {
        reference: "demo:1".to_owned(),
        order: order(2),
    };
    ledger.refuse_late(&late, LATER).await.unwrap();
    assert_eq!(state(ledger, 2).await, State::Paid);
    assert_eq!(shop(ledger).await, (98, 2));
    let books = ledger.books(&fence(48, 4)).await.unwrap();
    assert_eq!((books.faults, books.counts.check()), (Vec::new(), Ok(())));
    assert_eq!((books.counts.available, books.counts.paid), (48, 2));
}

async fn a_late_payment_without_units_is_refunded(home: &Home) {
    let ledger = &home.ledger;
    ledger
        .write_events(&[published(50), reserved(2, 5, 1)], NOW)
        .await
        .unwrap();
    ledger.cancel(order(2), BuyerId(5), NOW).await.unwrap();
    ledger
        .receive_payment("demo:1", order(2), price(), NOW)
        .await
        .unwrap();
    let late = ledger.late_payments(9).await.unwrap().remove(0);
    ledger.refuse_late(&late, NOW).await.unwrap();
    assert_eq!(state(ledger, 2).await, State::RefundDue);
    let cancelled = ledger.cancel(order(2), BuyerId(5), NOW).await;
    assert!(matches!(
        cancelled,
        Err(BackendError::Refused(Refusal::OrderState { .. }))
    ));
}

#[tokio::test]
async fn a_sweeper_that_was_replaced_ends_no_order() {
    let (_dir, ledger) = open().await;
    let batch = [published(50), reserved(2, 5, 1)];
    ledger.write_events(&batch, NOW).await.unwrap();
    ledger.raise_fence(SWEEPER, Fence(7)).await.unwrap();
    ledger.raise_fence(SWEEPER, Fence(7)).await.unwrap();
    for refused in [
        ledger.raise_fence(SWEEPER, Fence(6)).await.err(),
        ledger.expire(LATER, 10, Fence(6)).await.err(),
        // No one has such a lease.
        ledger.raise_fence("cleaner", Fence(9)).await.err(),
    ] {
        assert!(
            matches!(refused, Some(BackendError::Replaced(_))),
            "{refused:?}"
        );
    }
    assert_eq!(state(&ledger, 2).await, State::Written);
    assert_eq!(ledger.pending_releases(9).await.unwrap(), []);
    assert_eq!(ledger.expire(LATER, 10, Fence(8)).await.unwrap(), 1);
    assert!(ledger.raise_fence(SWEEPER, Fence(7)).await.is_err());
    assert_eq!(state(&ledger, 2).await, State::Expired);
}
