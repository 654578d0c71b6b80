//! What happened, counted: a simulation proves little about what never happened in it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Counts by kind and name.
#[derive(Debug, Default, Clone)]
pub struct Tally(BTreeMap<(String, String), u64>);

impl Tally {
    /// Counts one.
    pub fn count(&mut self, kind: &str, name: &str) {
        *self
            .0
            .entry((kind.to_owned(), name.to_owned()))
            .or_default() += 1;
    }

    /// Adds what another counted.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.0 {
            *self.0.entry(key.clone()).or_default() += count;
        }
    }

    /// What should have happened and did not.
    pub fn missing(&self) -> Vec<String> {
        let names = |kind| MUST_HAPPEN.iter().filter(move |each| each.0 == kind);
        let mut missing = Vec::new();
        for kind in ["answer", "crash", "fault", "order", "refusal"] {
            for name in names(kind).flat_map(|each| each.1) {
                if !self.0.contains_key(&(kind.to_owned(), (*name).to_owned())) {
                    missing.push(format!("{kind} {name}"));
                }
            }
        }
        missing
    }

    /// As a table.
    pub fn table(&self) -> String {
        let mut table = String::new();
        for ((kind, name), count) in &self.0 {
            let _ = writeln!(table, "{count:>9}  {kind:<8} {name}");
        }
        table
    }
}

/// Without these the simulation would not have looked where it says it looks.
const MUST_HAPPEN: [(&str, &[&str]); 5] = [
    (
        "answer",
        &[
            "token",
            "order",
            "cancelled",
            "payment accepted",
            "payment late",
            "payment refund due",
            "published",
            "published before",
            "paused",
            "resumed",
            "closed",
            "stock added",
            "session",
            "written",
            "written, reading ahead",
            "swept",
            "another sweeps",
        ],
    ),
    (
        "order",
        &[
            "made",
            "repeated",
            "reserved -> written",
            "written -> paid",
            "written -> cancelled",
            "written -> expired",
            "cancelled -> paid",
            "cancelled -> refund_due",
            "expired -> paid",
            "expired -> refund_due",
        ],
    ),
    (
        "crash",
        &[
            "token before enter",
            "token after enter",
            "token before spend",
            "token after spend",
            "order before reserve",
            "order after reserve",
            "pay before ledger",
            "pay inside commit",
            "cancel before ledger",
            "cancel inside commit",
            "notice before ledger",
            "notice inside commit",
            "notice before release",
            "notice after release",
            "notice before reserve_again",
            "notice after reserve_again",
            "writer after read",
            "writer before ledger",
            "writer inside commit",
            "writer before acknowledge",
            "writer after acknowledge",
            "sweeper before lease",
            "sweeper after lease",
            "sweeper before ledger",
            "sweeper inside commit",
            "sweeper before release",
            "sweeper after release",
            "sweeper before reserve_again",
            "sweeper after reserve_again",
            "publish before publish",
            "publish after publish",
            "control after control",
            "sign_out after sign_out",
        ],
    ),
    (
        "fault",
        &[
            "process killed and started again",
            "given up while held up",
            "went on later",
            "delivered again",
            "a replaced sweeper went on",
            "request overtook another",
            "request delivered twice",
            "request lost",
            "request repeated by its sender",
            "answer to a buyer lost",
            "payment told twice",
            "clock set back",
            "clock set forward",
            "engine away: order reserve",
            "engine away: sweeper release",
            "engine away: writer read",
            "engine's answer lost: order reserve",
            "engine's answer lost: token enter",
            "engine's answer lost: sweeper release",
            "engine's answer lost: notice reserve_again",
            "held up: order reserve",
            "held up: token enter",
            "held up: writer acknowledge",
            "held up: sweeper release",
            "held up: sweeper reserve_again",
            "held up: notice reserve_again",
            "held up: publish publish",
        ],
    ),
    (
        "refusal",
        &[
            "token not_signed_in",
            "token not_found",
            "token not_open",
            "token paused",
            "token sold_out",
            "token per_buyer_limit",
            "token challenge_failed",
            "token door_full",
            "token bad_parameter",
            "token overloaded",
            "order not_signed_in",
            "order not_open",
            "order paused",
            "order sold_out",
            "order per_buyer_limit",
            "order token_invalid",
            "order key_reused",
            "order bad_parameter",
            "order overloaded",
            "pay order_state",
            "pay not_found",
            "pay not_signed_in",
            "cancel order_state",
            "cancel not_found",
            "notice bad_parameter",
            "notice not_found",
            "publish not_allowed",
            "publish bad_parameter",
            "control not_allowed",
            "control not_found",
            "control bad_parameter",
        ],
    ),
];
