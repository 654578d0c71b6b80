//! The invariants of the ledger, checked after every step: what left the stream is written, once, as it
//! was reserved; and orders go only where the table of their steps says.

use std::collections::{BTreeMap, BTreeSet};

use engine::Event;
use lua_free_rules::order::{State, Step};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::books::Books;
use super::house::{ITEM, SHOP_STOCK};
use super::invariants::{Check, Invariant, demand};
use super::tally::Tally;

const STEPS: [Step; 6] = [
    Step::Write,
    Step::Pay,
    Step::Cancel,
    Step::Expire,
    Step::PayLateReserved,
    Step::PayLateRefused,
];

/// What is known of the ledger.
#[derive(Debug, Default)]
pub struct Shelf {
    states: BTreeMap<String, State>,
}

impl Shelf {
    /// Looks at every table of the ledger that a sale writes.
    pub fn check(&mut self, rows: &Connection, books: &mut Books, tally: &mut Tally) -> Check {
        for event in std::mem::take(&mut books.left_stream) {
            is_written(rows, &event)?;
        }
        self.check_orders(rows, books, tally)?;
        check_releases(rows)?;
        check_payments(rows)?;
        check_item(rows)
    }

    fn check_orders(&mut self, rows: &Connection, books: &Books, tally: &mut Tally) -> Check {
        let made: BTreeMap<String, _> = books
            .orders()
            .map(|made| (made.order.to_string(), *made))
            .collect();
        let mut statement = rows
            .prepare_cached(
                "SELECT id, state, buyer, item, amount, unit_price, created_at FROM orders",
            )
            .unwrap();
        let mut found = statement.query([]).unwrap();
        let mut seen = BTreeSet::new();
        while let Some(row) = found.next().unwrap() {
            let id: String = row.get(0).unwrap();
            let int = |index| row.get::<_, i64>(index).unwrap();
            let Some(made) = made.get(&id) else {
                return demand(Invariant::NoOrderTwice, false, || {
                    format!("order {id} is in the ledger, nobody reserved it")
                });
            };
            let as_made = (
                made.buyer.0,
                made.item.0,
                i64::from(made.amount),
                made.price.minor(),
                made.made_at.0,
            );
            let as_written = (int(2), int(3), int(4), int(5), int(6));
            demand(Invariant::Content, as_written == as_made, || {
                format!("order {id} is written as {as_written:?}, made as {as_made:?}")
            })?;
            let name: String = row.get(1).unwrap();
            let state = State::from_name(&name).unwrap();
            let before = self
                .states
                .insert(id.clone(), state)
                .unwrap_or(State::Reserved);
            if before != state {
                demand(Invariant::OrderSteps, leads_to(before, state), || {
                    format!("order {id} went from {before:?} to {state:?}")
                })?;
                tally.count("order", &format!("{} -> {}", before.name(), state.name()));
            }
            seen.insert(id);
        }
        let lost = self.states.keys().find(|id| !seen.contains(*id));
        demand(Invariant::NoOrderLost, lost.is_none(), || {
            format!("order {lost:?} was in the ledger and is gone")
        })
    }

    /// Whether the ledger has an order.
    pub fn has(&self, order: &str) -> bool {
        self.states.contains_key(order)
    }
}

/// Whether there is a way from one state to the other.
fn leads_to(from: State, to: State) -> bool {
    let next = STEPS.iter().filter_map(|step| from.after(*step));
    let mut next = next.filter(|next| *next != from);
    next.any(|next| next == to || leads_to(next, to))
}

/// An event that left the stream is a movement with the same content.
fn is_written(rows: &Connection, event: &Event) -> Check {
    let order = event.change.order();
    let movement: Option<(i64, Option<String>)> = rows
        .prepare_cached(
            "SELECT delta, order_id FROM stock_movements \
             WHERE promo = ?1 AND generation = ?2 AND sequence = ?3",
        )
        .unwrap()
        .query_row(
            params![event.promo.0, event.generation.0, event.sequence.0],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()
        .unwrap();
    let expected = (event.change.delta(), order.map(|id| id.to_string()));
    demand(
        Invariant::NoOrderLost,
        movement.as_ref() == Some(&expected),
        || format!("{event:?} left the stream, the ledger has {movement:?}"),
    )?;
    let Some(made) = event.change.reservation() else {
        return Ok(());
    };
    let is_there = rows
        .prepare_cached("SELECT 1 FROM orders WHERE id = ?1")
        .unwrap()
        .exists([made.order.to_string()])
        .unwrap();
    demand(Invariant::NoOrderLost, is_there, || {
        format!(
            "order {} left the stream and is not in the ledger",
            made.order
        )
    })
}

/// Units go back only for orders that ended.
fn check_releases(rows: &Connection) -> Check {
    none(
        rows,
        Invariant::ReleasedOnce,
        "SELECT m.order_id || ' was released, the ledger never ended it' FROM stock_movements AS m \
         WHERE m.kind = 'released' AND NOT EXISTS (SELECT 1 FROM releases AS r \
          WHERE r.order_id = m.order_id AND r.number = m.number AND r.amount = m.delta)",
    )?;
    none(
        rows,
        Invariant::ReleasedOnce,
        "SELECT r.order_id || ' ended, and holds its units' FROM releases AS r \
         JOIN orders AS o ON o.id = r.order_id AND o.current_number = r.number \
         WHERE o.state IN ('written', 'paid')",
    )
}

/// An order is paid by one payment of its amount, and no paid order is without one.
fn check_payments(rows: &Connection) -> Check {
    none(
        rows,
        Invariant::OrderSteps,
        "SELECT o.id || ' is ' || o.state || ', accepted payments: ' || count(p.reference) \
         FROM orders AS o LEFT JOIN payments AS p ON p.order_id = o.id AND p.state = 'accepted' \
         GROUP BY o.id HAVING count(p.reference) <> (o.state = 'paid')",
    )?;
    none(
        rows,
        Invariant::OrderSteps,
        "SELECT p.reference || ' is ' || p.state || ', it paid ' || p.amount || ' for ' || o.id \
         FROM payments AS p JOIN orders AS o ON o.id = p.order_id \
         WHERE p.state <> 'refund_due' AND p.amount <> o.amount * o.unit_price",
    )
}

/// Every movement is counted once in the shop's stock and sales.
fn check_item(rows: &Connection) -> Check {
    let (stock, sales, moved): (i64, i64, i64) = rows
        .prepare_cached(
            "SELECT stock, sales, (SELECT coalesce(sum(delta), 0) FROM stock_movements \
             WHERE order_id IS NOT NULL) FROM items WHERE id = ?1",
        )
        .unwrap()
        .query_row([ITEM.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap();
    demand(
        Invariant::NoOrderTwice,
        stock == SHOP_STOCK + moved && sales == -moved,
        || format!("the item says {stock} left and {sales} sold, the movements add up to {moved}"),
    )
}

fn none(rows: &Connection, invariant: Invariant, sql: &str) -> Check {
    let found: Option<String> = rows
        .prepare_cached(sql)
        .unwrap()
        .query_row([], |row| row.get(0))
        .optional()
        .unwrap();
    demand(invariant, found.is_none(), || {
        found.clone().unwrap_or_default()
    })
}
