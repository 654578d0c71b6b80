//! Each kind of refusal, true and false, and each way in which an order can be off, on a small sale:
//! 2 units, published at 1,000,000 and open since; a door of 2; the buyers are 1 to 9.

use lua_free_rules::equation;
use lua_free_rules::units::{
    BuyerId, Generation, OrderId, PromoId, ReservationNumber, Sequence, Timestamp,
};
use serde_json::json;

use super::*;
use crate::audit::{AuditedTerms, PromoAudit};
use crate::ledger::{Movement, PastOrder, PaymentCounts, Steering};

const START: i64 = 1_000_000;
/// A change: when, by how many units, and the order's number and buyer.
type Changed = (i64, i64, Option<(i64, i64)>);

/// A line: buyer, step, when it was sent, and the other fields.
type Told = (i64, &'static str, i64, serde_json::Value);

/// Far enough from everything else that no staleness covers it.
const LATER: i64 = START + 60_000;

fn id(number: i64) -> OrderId {
    OrderId {
        promo: PromoId(7),
        generation: Generation(1),
        number: ReservationNumber(number),
    }
}

/// A sale, with what happened in it.
fn past(changes: &[Changed]) -> Past {
    let supply = Movement {
        generation: Generation(1),
        sequence: Sequence(1),
        delta: 2,
        is_supply: true,
        order: None,
        buyer: None,
        at: Timestamp(START),
    };
    let mut past = Past {
        movements: vec![supply],
        ..Past::default()
    };
    for (number, &(at, delta, order)) in changes.iter().enumerate() {
        past.movements.push(Movement {
            generation: Generation(1),
            sequence: Sequence(number as i64 + 2),
            delta,
            is_supply: order.is_none(),
            order: order.map(|(number, _)| id(number)),
            buyer: order.map(|(_, buyer)| BuyerId(buyer)).filter(|_| delta < 0),
            at: Timestamp(at),
        });
        if let Some((number, buyer)) = order.filter(|_| delta < 0) {
            past.orders.push(PastOrder {
                id: id(number),
                buyer: BuyerId(buyer),
                amount: 1,
                state: "written".to_owned(),
                created_at: Timestamp(at),
                written_at: Timestamp(at + 10),
                pay_by: Timestamp(at + 900_000),
                paid_at: None,
                ended_at: None,
            });
        }
    }
    past
}

/// Both units are sold a minute after the start, to buyers 1 and 2.
fn sold() -> Past {
    past(&[(LATER, -1, Some((1, 1))), (LATER + 1_000, -1, Some((2, 2)))])
}

fn audit() -> AuditReport {
    AuditReport {
        clean: true,
        at: Timestamp(START),
        dead_letters: 0,
        faults: Vec::new(),
        promos: vec![PromoAudit {
            promo_id: PromoId(7),
            generation: Generation(1),
            sequence: Sequence(1),
            terms: Some(AuditedTerms {
                starts_at: Timestamp(START),
                ends_at: Timestamp(START + 3_600_000),
                door: 2,
                per_buyer_limit: 1,
                token_ttl_ms: 60_000,
            }),
            books: equation::Books::default(),
            payments: PaymentCounts::default(),
            faults: Vec::new(),
        }],
    }
}

/// What comes of holding these lines, given as (buyer, step, sent, fields), against the past.
fn judged(past: &Past, lines: &[Told]) -> HistoryReport {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    let opening = json!({
        "history": 1, "seed": 1, "promo": 7, "item": 3, "startedAt": START,
        "serverAheadMs": 0, "serverAheadErrorMs": 1,
    });
    let mut text = format!("{opening}\n");
    for (buyer, step, sent, more) in lines {
        let mut line = json!({
            "buyer": buyer, "promo": 7, "step": step, "sentAt": sent, "receivedAt": sent + 5,
        });
        for (name, value) in more.as_object().unwrap() {
            line[name] = value.clone();
        }
        text += &format!("{line}\n");
    }
    std::fs::write(&path, text).unwrap();
    let history = [History::read(&path).unwrap()];
    let mut report = HistoryReport::default();
    judge(&Crowd::of(&history, 7), past, &audit(), &mut report);
    report
}

fn refused(code: u32) -> serde_json::Value {
    json!({ "status": 409, "errCode": code, "key": "k", "amount": 1 })
}

fn accepted(number: i64) -> serde_json::Value {
    json!({ "status": 202, "key": "k", "amount": 1, "orderId": id(number).to_string() })
}

/// The orders of [`sold`] as their buyers saw them.
fn answers() -> Vec<Told> {
    vec![
        (1, "order", LATER - 2, accepted(1)),
        (2, "order", LATER + 998, accepted(2)),
    ]
}

/// What holding one refusal of buyer 9 against [`sold`] finds.
fn refusal(step: &'static str, sent: i64, code: u32) -> HistoryReport {
    let mut lines = answers();
    lines.push((9, step, sent, refused(code)));
    judged(&sold(), &lines)
}

#[test]
fn sold_out_is_true_from_the_last_unit_on() {
    let sold_at = LATER + 1_000;
    assert_eq!(refusal("order", sold_at, 30001).fault_count, 0);
    assert_eq!(refusal("order", sold_at - 500, 30001).fault_count, 1);
    assert_eq!(refusal("token", sold_at + 900_000, 30001).fault_count, 0);
    assert_eq!(refusal("token", sold_at - 500, 30001).fault_count, 1);
}

#[test]
fn an_edge_may_be_behind_by_its_bound_and_not_by_more() {
    let back = LATER + 10_000;
    let mut past = sold();
    past.movements.push(Movement {
        sequence: Sequence(4),
        delta: 1,
        order: Some(id(2)),
        buyer: None,
        at: Timestamp(back),
        ..past.movements[2].clone()
    });
    let told = |step, sent| {
        let mut lines = answers();
        lines.push((9, step, sent, refused(30001)));
        // Somebody is answered all the time: the shop was never away.
        let steady = (back - 1_000..back + 20_000).step_by(200);
        lines.extend(steady.map(|at| (9, "item", at, json!({ "status": 200 }))));
        judged(&past, &lines).fault_count
    };
    assert_eq!(told("token", back + STALE_MS), 0);
    assert_eq!(told("token", back + STALE_MS + REOPEN_MS + 100), 1);
    assert_eq!(told("order", back + 100), 1, "the engine is never behind");
}

#[test]
fn a_limit_is_true_for_those_who_hold_as_much() {
    let told = |buyer, sent| {
        let mut lines = answers();
        lines.push((buyer, "token", sent, refused(30006)));
        judged(&sold(), &lines).fault_count
    };
    assert_eq!(told(1, LATER + 500), 0);
    assert_eq!(told(1, LATER - 500), 1);
    assert_eq!(told(9, LATER + 500), 1);
}

#[test]
fn a_window_and_a_pause_are_true_while_they_last() {
    assert_eq!(refusal("order", START - 500, 30003).fault_count, 0);
    assert_eq!(refusal("order", START + 500, 30003).fault_count, 1);
    assert_eq!(refusal("order", START + 3_600_000, 30003).fault_count, 0);
    assert_eq!(refusal("order", LATER, 30009).fault_count, 1);
    let mut past = sold();
    past.steering = vec![
        (Timestamp(LATER), Steering::Pause),
        (Timestamp(LATER + 2_000), Steering::Resume),
    ];
    let told = |sent| {
        let mut lines = answers();
        lines.push((9, "order", sent, refused(30009)));
        judged(&past, &lines).fault_count
    };
    assert_eq!((told(LATER - 500), told(LATER + 500)), (1, 0));
    assert_eq!(told(LATER + 2_000 + STALE_MS + 100), 1);
}

#[test]
fn a_door_is_full_when_its_places_can_be_taken() {
    let granted = json!({ "status": 200 });
    let lost = json!({ "status": 0, "lost": "connection" });
    let past = past(&[]);
    let told = |tokens: i64| {
        let mut lines = vec![(1, "token", START, lost.clone())];
        lines.extend((2..=tokens).map(|buyer| (buyer, "token", START, granted.clone())));
        lines.push((9, "token", START + 200, refused(30007)));
        judged(&past, &lines)
    };
    assert_eq!(
        told(4).fault_count,
        0,
        "a place whose answer was lost may be taken"
    );
    assert_eq!(told(3).fault_count, 1);
    // Five buyers with a live token each are one more than there are places.
    let report = told(6);
    assert_eq!(report.fault_count, 1, "{report:?}");
    assert!(
        report.faults[0].0.starts_with("the door: 5 buyers"),
        "{report:?}"
    );
}

#[test]
fn a_live_token_is_not_invalid() {
    let told = |asked: i64, attack: bool| {
        let mut refusal = refused(30005);
        if attack {
            refusal["attack"] = json!("altered");
        }
        let lines = [
            (9, "token", START, json!({ "status": 200 })),
            (9, "order", asked, refusal),
        ];
        judged(&past(&[]), &lines).fault_count
    };
    assert_eq!(told(START + 1_000, false), 1);
    assert_eq!(told(START + 1_000, true), 0);
    assert_eq!(told(START + 60_000, false), 0);
}

#[test]
fn an_order_is_there_once_as_it_was_asked_for() {
    assert!(judged(&sold(), &answers()).fault_count == 0);
    let told = |change: fn(&mut Vec<Told>)| {
        let mut lines = answers();
        change(&mut lines);
        let report = judged(&sold(), &lines);
        assert!(report.fault_count > 0, "{report:?}");
        report.faults[0].0.clone()
    };
    assert!(told(|l| l[0].3["orderId"] = json!("7-1-5")).contains("is not in the ledger"));
    assert!(told(|l| l[0].3["amount"] = json!(2)).contains("for 2 units, the ledger has 1"));
    assert!(told(|l| l[0].3["attack"] = json!("forged")).contains("wrong on purpose"));
    assert!(told(|l| l[0].2 = LATER + 500).contains("was not made between"));
    assert!(told(|l| l[1].3["orderId"] = json!("7-1-1")).contains("to buyer 2 and to buyer 1"));
    let again = |l: &mut Vec<Told>| l.push((1, "order", LATER + 100, refused(30001)));
    assert!(told(again).contains("had made order 7-1-1 already"));
    let gone = |l: &mut Vec<Told>| {
        let look = json!({ "status": 404, "errCode": 10003, "orderId": "7-1-1" });
        l.push((1, "look", LATER + 100, look));
    };
    assert!(told(gone).contains("was his, and was there"));
}

#[test]
fn an_order_whose_answer_was_lost_was_asked_for() {
    let lost = |sent: i64, more: serde_json::Value| {
        let mut line = json!({ "status": 0, "lost": "timeout", "key": "k", "amount": 1 });
        for (name, value) in more.as_object().unwrap() {
            line[name] = value.clone();
        }
        let lines = [(1, "order", sent, line), answers().remove(1)];
        judged(&sold(), &lines)
    };
    let report = lost(LATER - 100, json!({}));
    assert_eq!((report.fault_count, report.answer_lost), (0, 1));
    assert_eq!(lost(LATER + 100, json!({})).fault_count, 1, "sent too late");
    assert_eq!(lost(LATER - 100, json!({ "amount": 2 })).fault_count, 1);
    assert_eq!(lost(LATER - 100, json!({ "sentAt": null })).fault_count, 1);
    let refusal = json!({ "lost": null, "status": 409, "errCode": 30001 });
    assert_eq!(
        lost(LATER - 100, refusal).fault_count,
        2,
        "a refusal makes none"
    );
    // Buyers whom the history does not know are not judged.
    let report = judged(&sold(), &answers()[..1]);
    assert_eq!((report.fault_count, report.others), (0, 1));
}

#[test]
fn what_cannot_be_read_is_not_judged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    let opening = "{\"history\":1,\"promo\":7,\"serverAheadMs\":0,\"serverAheadErrorMs\":0}\n";
    for (text, words) in [
        (String::new(), "the file is empty"),
        (opening.replace(":1,", ":2,"), "version 2"),
        (
            format!("{opening}{{\"buyer\":1"),
            "h:2: the line is cut off",
        ),
        (format!("{opening}\n"), "h:2:"),
        (format!("{opening}\u{0}\n"), "h:2:"),
        (format!("{opening}{}\n", "x".repeat(100_000)), "too long"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = History::read(&path).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}
