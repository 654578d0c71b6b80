//! The books: everything that can be off is named.

use super::*;

on_each_database!(the_books_name_what_is_off,);

async fn the_books_name_what_is_off(home: &Home) {
    let ledger = &home.ledger;
    let batch = [
        published(50),
        reserved(2, 5, 2),
        reserved(3, 6, 1),
        reserved(4, 7, 1),
    ];
    ledger.write_events(&batch, NOW).await.unwrap();
    ledger.cancel(order(4), BuyerId(7), NOW).await.unwrap();
    let faults = async |tamper: &'static str| {
        home.tamper(tamper).await;
        let faults = ledger.books(&fence(46, 4)).await.unwrap().faults;
        faults
            .into_iter()
            .map(|fault| fault.0)
            .collect::<Vec<_>>()
            .join("; ")
    };
    assert_eq!(faults("SELECT 1").await, "");
    for (tamper, undo, fault) in [
        (
            "UPDATE orders SET amount = 1 WHERE id = '7-1-2'",
            "UPDATE orders SET amount = 2 WHERE id = '7-1-2'",
            "order 7-1-2 has 1 units",
        ),
        (
            "UPDATE orders SET buyer = 9 WHERE id = '7-1-2'",
            "UPDATE orders SET buyer = 5 WHERE id = '7-1-2'",
            "order 7-1-2 belongs to buyer 9",
        ),
        (
            "UPDATE orders SET unit_price = 1 WHERE id = '7-1-3'",
            "UPDATE orders SET unit_price = 9900 WHERE id = '7-1-3'",
            "order 7-1-3 was sold at 1 minor units",
        ),
        (
            "UPDATE orders SET state = 'paid' WHERE id = '7-1-3'",
            "UPDATE orders SET state = 'written' WHERE id = '7-1-3'",
            "order 7-1-3 is paid, but no payment",
        ),
        (
            "UPDATE orders SET state = 'written' WHERE id = '7-1-4'",
            "UPDATE orders SET state = 'cancelled' WHERE id = '7-1-4'",
            "order 7-1-4 is written, but its units were released",
        ),
        (
            "UPDATE orders SET state = 'expired' WHERE id = '7-1-3'",
            "UPDATE orders SET state = 'written' WHERE id = '7-1-3'",
            "order 7-1-3 is expired, but its units were never released",
        ),
        (
            "INSERT INTO orders SELECT '7-1-9', promo, generation, 9, 6, item, 2, unit_price, state, \
             created_at, written_at, pay_by, 9, idempotency_key, body, jti, NULL, NULL FROM orders WHERE id = '7-1-3'",
            "DELETE FROM orders WHERE id = '7-1-9'",
            "order 7-1-9 has no movement; buyer 6 holds 3 units",
        ),
        (
            "UPDATE orders SET id = '7-1-8' WHERE id = '7-1-3'",
            "UPDATE orders SET id = '7-1-3' WHERE id = '7-1-8'",
            "order 7-1-3 was reserved (movement 3) and is not in the ledger",
        ),
    ] {
        let found = faults(tamper).await;
        assert!(found.contains(fault), "{tamper}: {found}");
        assert_eq!(faults(undo).await, "");
    }
}
