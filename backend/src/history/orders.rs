//! Orders: each that was accepted is in the ledger, once, for its buyer, key and amount; each in the
//! ledger was asked for; what the crowd was told of it afterwards is so.

use std::collections::{HashMap, HashSet};

use lua_free_rules::units::{OrderId, Timestamp};

use super::lines::Step;
use super::sale::Sale;
use super::{At, Crowd, HistoryReport};
use crate::ledger::{Past, PastOrder};

/// Everything that was sent under one key of one buyer.
#[derive(Default)]
pub(super) struct Asked<'a> {
    lines: Vec<At<'a>>,
    /// The order it made, and when it stood.
    pub made: Option<(OrderId, Timestamp)>,
}

impl Asked<'_> {
    fn first_sent(&self) -> Option<Timestamp> {
        self.lines.iter().filter_map(|at| at.line.from).min()
    }

    /// Whether different amounts were asked for under the key until `to`.
    pub fn differs_until(&self, to: Timestamp) -> bool {
        let sent = self.lines.iter();
        let sent = sent.filter(|at| at.line.from.is_some_and(|from| from <= to));
        let amounts: HashSet<_> = sent.map(|at| at.line.amount).collect();
        amounts.len() > 1
    }

    /// Whether one of its requests may have made `order` though no answer said so.
    fn could_have_made(&self, order: &PastOrder) -> bool {
        self.made.is_none()
            && self.lines.iter().any(|at| {
                at.line.is_open()
                    && !at.line.is_attack
                    && at.line.amount == Some(order.amount)
                    && at.line.from.is_some_and(|from| from <= order.created_at)
            })
    }
}

/// What was asked for, by buyer and key.
pub(super) type Placed<'a> = HashMap<(i64, &'a str), Asked<'a>>;

pub(super) fn check<'a>(
    crowd: &Crowd<'a>,
    past: &Past,
    sale: &Sale<'_>,
    report: &mut HistoryReport,
) -> Placed<'a> {
    let mut placed = Placed::new();
    for at in crowd.lines.iter().filter(|at| at.line.step == Step::Order) {
        // An order without a key is one of its own: the crowd gives each a key.
        let key = at.line.key.as_deref().unwrap_or_default();
        placed
            .entry((at.line.buyer, key))
            .or_default()
            .lines
            .push(*at);
    }
    let mut answered = HashMap::new();
    for at in &crowd.lines {
        match at.line.step {
            Step::Order if at.line.is_granted() => {
                accepted(*at, sale, &mut placed, &mut answered, report);
            }
            Step::Look | Step::Pay if at.line.is_granted() => told(*at, sale, report),
            _ => {}
        }
    }
    report.accepted += answered.len() as u64;
    unanswered(crowd, past, &mut placed, &answered, report);
    placed
}

/// An order that was answered 202.
fn accepted<'a>(
    at: At<'a>,
    sale: &Sale<'_>,
    placed: &mut Placed<'a>,
    answered: &mut HashMap<OrderId, (i64, &'a str)>,
    report: &mut HistoryReport,
) {
    let (line, place) = (at.line, at.place());
    let Some(id) = line.order else {
        report.fault(format!("{place}: an order was accepted without an id"));
        return;
    };
    let asker = (line.buyer, line.key.as_deref().unwrap_or_default());
    let buyer = line.buyer;
    if line.is_attack {
        report.fault(format!(
            "{place}: order {id} was accepted with a token that was wrong on purpose"
        ));
    }
    let before = *answered.entry(id).or_insert(asker);
    if before.0 != buyer {
        let other = before.0;
        report.fault(format!(
            "{place}: order {id} was answered to buyer {buyer} and to buyer {other}"
        ));
    } else if before != asker {
        report.fault(format!(
            "{place}: order {id} was answered to two keys of buyer {buyer}"
        ));
    }
    let Some(order) = sale.order(id) else {
        report.fault(format!(
            "{place}: order {id} of buyer {buyer} was accepted and is not in the ledger"
        ));
        return;
    };
    if order.buyer.0 != buyer {
        let owner = order.buyer;
        report.fault(format!(
            "{place}: order {id} was accepted for buyer {buyer}, the ledger has it for {owner}"
        ));
    }
    if line.amount.is_some_and(|amount| amount != order.amount) {
        let (asked, has) = (line.amount.unwrap_or(0), order.amount);
        report.fault(format!(
            "{place}: order {id} was accepted for {asked} units, the ledger has {has}"
        ));
    }
    let Some(asked) = placed.get_mut(&asker) else {
        return;
    };
    if asked
        .first_sent()
        .is_none_or(|from| order.created_at < from)
        || order.created_at > line.to
    {
        report.fault(format!(
            "{place}: order {id} was not made between its sending and its answer, but at {}",
            order.created_at.to_rfc3339()
        ));
    }
    match asked.made {
        Some((other, _)) if other != id => report.fault(format!(
            "{place}: one key of buyer {buyer} made two orders, {other} and {id}"
        )),
        _ => asked.made = Some((id, order.created_at)),
    }
}

/// What a buyer was told of an order of his.
fn told(at: At<'_>, sale: &Sale<'_>, report: &mut HistoryReport) {
    let (line, place) = (at.line, at.place());
    let Some(id) = line.order else { return };
    let Some(order) = sale.order(id) else {
        report.fault(format!(
            "{place}: order {id} was shown to buyer {} and is not in the ledger",
            line.buyer
        ));
        return;
    };
    if order.buyer.0 != line.buyer {
        let (buyer, owner) = (line.buyer, order.buyer);
        report.fault(format!(
            "{place}: order {id} was shown to buyer {buyer}, the ledger has it for {owner}"
        ));
    }
    let told = line.state.as_deref().unwrap_or_default();
    let (since, is_so) = match told {
        "paid" => (order.paid_at, order.state == "paid"),
        // A payment that came late may have revived it since.
        "cancelled" | "expired" | "refund_due" => (order.ended_at, true),
        _ => return,
    };
    if !is_so || since.is_none_or(|since| since > line.to) {
        let state = &order.state;
        report.fault(format!(
            "{place}: order {id} was said to be {told}, in the ledger it was not by then (now {state})"
        ));
    }
}

/// Orders in the ledger that no answer named: each must have been asked for by a request whose
/// answer was lost.
fn unanswered(
    crowd: &Crowd<'_>,
    past: &Past,
    placed: &mut Placed<'_>,
    answered: &HashMap<OrderId, (i64, &str)>,
    report: &mut HistoryReport,
) {
    let mut keys: HashMap<i64, Vec<&str>> = HashMap::new();
    for (buyer, key) in placed.keys() {
        keys.entry(*buyer).or_default().push(key);
    }
    for order in &past.orders {
        let buyer = order.buyer.0;
        if !crowd.buyers.contains(&buyer) {
            continue;
        }
        report.in_ledger += 1;
        if answered.contains_key(&order.id) {
            continue;
        }
        let of_buyer = keys.get(&buyer).map_or(&[][..], Vec::as_slice);
        let asked = of_buyer.iter().copied().find(|key| {
            let asked = placed.get(&(buyer, *key));
            asked.is_some_and(|asked| asked.could_have_made(order))
        });
        match asked.and_then(|key| placed.get_mut(&(buyer, key))) {
            Some(asked) => {
                asked.made = Some((order.id, order.created_at));
                report.answer_lost += 1;
            }
            None => report.fault(format!(
                "order {} of buyer {buyer} is in the ledger, and no request in the history made it",
                order.id
            )),
        }
    }
}
