//! The history: what a crowd was told, held against the books. Each order that was accepted must be
//! there once, as it was asked for; each order of a buyer of the crowd must have been asked for; each
//! refusal must have been true at some moment between its sending, less the staleness that is
//! allowed, and its receipt. What is off is named by its line or its order.
//!
//! | module | what is inside |
//! |---|---|
//! | [`lines`] | reads the crowd's file |
//! | `sale` | the sale over time, put together from the ledger's movements |
//! | `orders` | accepted orders, and orders in the books |
//! | `refusals` | whether each refusal was true |
//! | `door` | how many places were taken for certain, and at most |
//!
//! What cannot be judged from outside (rate limits, overload, spent challenges, ended sessions) is
//! counted by name, never passed over in silence.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use lua_free_rules::admission::PROMO_STALE_MS;
use lua_free_rules::units::{PromoId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::audit::AuditReport;
use crate::ledger::{Fault, LedgerSettings, Past};

mod door;
pub mod lines;
mod orders;
mod refusals;
mod sale;
#[cfg(test)]
mod tests;

pub use lines::{History, HistoryError};
use sale::{Sale, Span};

/// How old what an edge knows of a promo may be: an edge that has heard nothing for longer issues no
/// tokens.
const STALE_MS: i64 = PROMO_STALE_MS;
/// Buyers are told of stock that came back at most once a second, by an upkeep that runs once a second.
const REOPEN_MS: i64 = 2_000;
/// How far the clocks of client and server may part while a crowd plays, beyond what was measured.
const CLOCK_DRIFT_MS: i64 = 50;
/// When nobody was answered for so long, the shop may have been away.
const SILENCE_MS: i64 = 250;
/// Faults that are listed; all are counted.
const FAULTS_LISTED_MAX: usize = 100;

/// What holding a history against the books found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryReport {
    /// Whether nothing is off.
    pub clean: bool,
    /// Requests in the histories.
    pub requests: u64,
    /// Buyers who made them.
    pub buyers: u64,
    /// Orders that were answered 202, each counted once.
    pub accepted: u64,
    /// Orders of these buyers in the ledger.
    pub in_ledger: u64,
    /// Those of them whose answer was lost, but which were asked for.
    pub answer_lost: u64,
    /// Buyers with orders who are in no history: not judged.
    pub others: u64,
    /// Refusals that were held against the books, by name.
    pub refusals: BTreeMap<String, u64>,
    /// Refusals that cannot be judged from outside, by name.
    pub not_judged: BTreeMap<String, u64>,
    /// How many faults there are.
    pub fault_count: u64,
    /// The first of them.
    pub faults: Vec<Fault>,
}

impl HistoryReport {
    fn fault(&mut self, words: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_LISTED_MAX {
            self.faults.push(Fault(words));
        }
    }

    fn judged(&mut self, name: &str) {
        *self.refusals.entry(name.to_owned()).or_default() += 1;
    }

    fn left_out(&mut self, name: &str) {
        *self.not_judged.entry(name.to_owned()).or_default() += 1;
    }
}

/// Reads the histories and holds them against the books, which `audit` has found up to date: a
/// history must be read whole before that audit begins.
///
/// # Errors
/// If the ledger cannot be read. What is off is no error: it is in the report.
pub async fn hold_against(
    histories: &[History],
    audit: &AuditReport,
    ledger: &LedgerSettings,
) -> crate::error::Result<HistoryReport> {
    let mut promos: Vec<i64> = histories.iter().map(|history| history.promo).collect();
    promos.sort_unstable();
    promos.dedup();
    let mut report = HistoryReport::default();
    for promo in promos {
        let past = Past::read(ledger, PromoId(promo)).await?;
        let crowd = Crowd::of(histories, promo);
        judge(&crowd, &past, audit, &mut report);
    }
    report.clean = report.fault_count == 0;
    Ok(report)
}

/// The lines of one promo.
struct Crowd<'a> {
    promo: i64,
    lines: Vec<At<'a>>,
    buyers: HashSet<i64>,
}

/// A line and its file.
#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a Path,
    line: &'a lines::Line,
}

impl At<'_> {
    /// Where it stands.
    fn place(&self) -> String {
        format!("{}:{}", self.path.display(), self.line.number)
    }
}

impl<'a> Crowd<'a> {
    fn of(histories: &'a [History], promo: i64) -> Self {
        let files = histories.iter().filter(|history| history.promo == promo);
        let lines: Vec<At<'a>> = files
            .flat_map(|history| {
                let path = history.path.as_path();
                history.lines.iter().map(move |line| At { path, line })
            })
            .collect();
        Self {
            promo,
            buyers: lines.iter().map(|at| at.line.buyer).collect(),
            lines,
        }
    }

    /// Stretches in which nobody was answered.
    fn silences(&self) -> Vec<Span> {
        let answered = self.lines.iter().filter(|at| at.line.status != 0);
        let mut answers: Vec<Timestamp> = answered.map(|at| at.line.to).collect();
        answers.sort_unstable();
        let pairs = answers.windows(2).filter_map(|pair| match pair {
            &[from, to] if to.ms_since(from) > SILENCE_MS => Some(Span { from, to }),
            _ => None,
        });
        pairs.collect()
    }
}

fn judge(crowd: &Crowd<'_>, past: &Past, audit: &AuditReport, report: &mut HistoryReport) {
    let audits: Vec<_> = audit
        .promos
        .iter()
        .filter(|promo| promo.promo_id.0 == crowd.promo)
        .collect();
    let sale = Sale::new(past, &audits, &crowd.silences());
    report.requests += crowd.lines.len() as u64;
    report.buyers += crowd.buyers.len() as u64;
    report.others += sale.others(&crowd.buyers) as u64;
    for at in &crowd.lines {
        if at.line.promo != crowd.promo {
            let (place, promo) = (at.place(), at.line.promo);
            report.fault(format!(
                "{place}: a line of promo {promo} in a history of promo {}",
                crowd.promo
            ));
        }
    }
    let placed = orders::check(crowd, past, &sale, report);
    let door = door::Door::of(crowd, past, &sale);
    door.check(report);
    refusals::check(crowd, &sale, &placed, &door, report);
}
