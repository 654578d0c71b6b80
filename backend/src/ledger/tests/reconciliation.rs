//! Payments held against orders: everything that can be off is named.

use super::*;

on_each_database!(
    payments_are_counted_by_what_became_of_them,
    payments_and_orders_that_do_not_agree_are_named,
    refunds_come_page_by_page_the_oldest_first,
);

async fn paid(ledger: &Ledger, reference: &str, number: i64, amount: Money, now: Timestamp) {
    let recorded = ledger.receive_payment(reference, order(number), amount, now);
    recorded.await.unwrap();
}

/// An order that is paid, one that is paid late, one that is refunded, one that waits.
async fn sold(ledger: &Ledger) {
    let batch = [
        published(50),
        reserved(2, 5, 2),
        reserved(3, 6, 2),
        reserved(4, 7, 1),
        reserved(5, 8, 1),
    ];
    ledger.write_events(&batch, NOW).await.unwrap();
    paid(ledger, "acme:1", 3, price().times(2), NOW).await;
    ledger.cancel(order(2), BuyerId(5), NOW).await.unwrap();
    paid(ledger, "acme:2", 2, price().times(2), NOW).await;
    let again = [released(6, 2, 2), reserved_again(7, 2, "acme:2")];
    ledger.write_events(&again, NOW).await.unwrap();
    ledger.cancel(order(4), BuyerId(7), NOW).await.unwrap();
    paid(ledger, "acme:3", 4, price(), NOW).await;
    let late = ledger.late_payments(9).await.unwrap().remove(0);
    ledger.refuse_late(&late, LATER).await.unwrap();
}

async fn payments_are_counted_by_what_became_of_them(home: &Home) {
    let ledger = &home.ledger;
    sold(ledger).await;
    let counts = async || {
        let counts = ledger.payment_counts(PromoId(7), Generation(1)).await;
        counts.unwrap()
    };
    let mut expected = PaymentCounts {
        accepted: 2,
        reserved_again: 1,
        late: 0,
        refund_due: 1,
        refund_due_orders: 1,
    };
    assert_eq!(counts().await, expected);
    // A second one for a paid order, one of a wrong amount, and one that is late.
    paid(ledger, "acme:4", 3, price().times(2), NOW).await;
    paid(ledger, "acme:5", 5, price().times(2), NOW).await;
    paid(ledger, "acme:6", 5, price(), LATER).await;
    (expected.refund_due, expected.late) = (3, 1);
    assert_eq!(counts().await, expected);
    let elsewhere = ledger.payment_counts(PromoId(7), Generation(2)).await;
    assert_eq!(elsewhere.unwrap(), PaymentCounts::default());

    let unsettled = async |moment| {
        let found = ledger.unsettled(PromoId(7), Generation(1), moment).await;
        found.unwrap()
    };
    assert_eq!(unsettled(LATER.plus_ms(-1)).await, []);
    let found = ("acme:6".to_owned(), order(5), LATER);
    assert_eq!(unsettled(LATER).await, [found]);
}

async fn payments_and_orders_that_do_not_agree_are_named(home: &Home) {
    let ledger = &home.ledger;
    sold(ledger).await;
    let faults = async |tamper: &'static str| {
        home.tamper(tamper).await;
        let faults = ledger.payment_faults(PromoId(7), Generation(1)).await;
        let words: Vec<String> = faults.unwrap().into_iter().map(|fault| fault.0).collect();
        words.join("; ")
    };
    assert_eq!(faults("SELECT 1").await, "");
    for (tamper, undo, fault) in [
        (
            "UPDATE orders SET state = 'expired' WHERE id = '7-1-3'",
            "UPDATE orders SET state = 'paid' WHERE id = '7-1-3'",
            "payment acme:1 was accepted, but its order is not paid",
        ),
        (
            "UPDATE payments SET amount = 1 WHERE reference = 'acme:1'",
            "UPDATE payments SET amount = 19800 WHERE reference = 'acme:1'",
            "payment acme:1 was accepted, but its order is not paid",
        ),
        (
            "UPDATE payments SET state = 'late' WHERE reference = 'acme:1'",
            "UPDATE payments SET state = 'accepted' WHERE reference = 'acme:1'",
            "payment acme:1 came late and is not settled, but its order did not end",
        ),
        (
            "INSERT INTO payments SELECT 'acme:9', order_id, amount, state, 0, 0 FROM payments \
             WHERE reference = 'acme:1'",
            "DELETE FROM payments WHERE reference = 'acme:9'",
            "order 7-1-3 is paid by more than one payment",
        ),
        (
            "DELETE FROM payments WHERE reference = 'acme:3'",
            "INSERT INTO payments VALUES ('acme:3', '7-1-4', 9900, 'refund_due', 0, 0)",
            "order 7-1-4 is refund_due, but no payment goes back",
        ),
    ] {
        let found = faults(tamper).await;
        assert!(found.starts_with(fault), "{tamper}: {found}");
        assert!(!found.contains(';'), "{tamper}: {found}");
        assert_eq!(faults(undo).await, "");
    }
}

async fn refunds_come_page_by_page_the_oldest_first(home: &Home) {
    let ledger = &home.ledger;
    let batch = [published(50), reserved(2, 5, 1)];
    ledger.write_events(&batch, NOW).await.unwrap();
    paid(ledger, "acme:paid", 2, price(), NOW).await;
    let later = NOW.plus_ms(5);
    for (reference, at) in [
        ("b:1", NOW),
        ("a:2", later),
        ("c:1", NOW),
        ("b:2", later),
        ("a:1", NOW),
    ] {
        paid(ledger, reference, 2, price(), at).await;
    }
    let mut seen = Vec::new();
    let mut after = (Timestamp(0), String::new());
    loop {
        let page = ledger.refunds((after.0, &after.1), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = (last.since, last.reference.clone());
        seen.extend(page.into_iter().map(|refund| refund.reference));
    }
    assert_eq!(seen, ["a:1", "b:1", "c:1", "a:2", "b:2"]);
}
