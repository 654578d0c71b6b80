//! `floodgate audit --history` finds what is off: histories and ledgers are tampered with, and each
//! time it must name the line or the order.

use std::path::Path;

use serde_json::{Value, json};

use crate::crowd::{self, Crowd};
use crate::house::House;

/// A sale that is over: its history, line by line.
struct Told {
    house: House,
    lines: Vec<Value>,
}

impl Told {
    async fn of_a_sale() -> Self {
        let mut house = House::open(&crowd::plan(20));
        let words = "--buyers 150 --concurrency 20 --connections 50 --think fixed:0ms --seed 7 \
                     --give-up 0 --hang-up 0";
        let words: Vec<&str> = words.split_whitespace().collect();
        let crowd = Crowd::come(&house, &words);
        let history = crowd.history.clone();
        tokio::task::spawn_blocking(|| crowd.end()).await.unwrap();
        let (exit, _) = house.stop_by("TERM");
        assert_eq!(exit, Some(0), "{}", house.log());
        crowd::assert_true(&house, &history);
        let text = std::fs::read_to_string(history).unwrap();
        let lines = text.lines().map(|l| serde_json::from_str(l).unwrap());
        let lines = lines.collect();
        Self { house, lines }
    }

    /// The first line of an order that was accepted.
    fn accepted(&self) -> usize {
        self.first("order", 202)
    }

    fn first(&self, step: &str, status: u16) -> usize {
        let is_it = |line: &Value| line["step"] == step && line["status"] == status;
        self.lines.iter().position(is_it).unwrap()
    }

    /// The faults of an audit with a history that was changed, all of them in words.
    fn faults_after(&self, change: impl FnOnce(&mut Vec<Value>)) -> String {
        let mut lines = self.lines.clone();
        change(&mut lines);
        let path = self.house.data().join("changed.jsonl");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, text).unwrap();
        faults(&self.house, &path)
    }

    /// The faults of an audit after a statement was run on the ledger; the ledger is restored.
    fn faults_of_ledger(&self, change: &str) -> String {
        let ledger = self.house.data().join("ledger.db");
        let kept = std::fs::read(&ledger).unwrap();
        let db = rusqlite::Connection::open(&ledger).unwrap();
        db.execute_batch(change).unwrap();
        db.close().unwrap();
        let history = self.house.data().join("history.jsonl");
        let found = faults(&self.house, &history);
        std::fs::write(&ledger, kept).unwrap();
        crowd::assert_true(&self.house, &history);
        found
    }
}

fn faults(house: &House, history: &Path) -> String {
    let (exit, report) = crowd::audit(house, history);
    assert_eq!((exit, &report["clean"]), (Some(2), &json!(false)));
    assert!(report["history"]["faultCount"].as_u64().unwrap() > 0);
    report["history"]["faults"].to_string()
}

fn assert_names(found: &str, parts: &[&str]) {
    for part in parts {
        assert!(found.contains(part), "`{part}` is missing in {found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_off_is_named() {
    let told = Told::of_a_sale().await;
    let at = told.accepted();
    let place = format!("changed.jsonl:{}:", at + 1);
    let order = told.lines[at]["orderId"].as_str().unwrap().to_owned();
    let buyer = told.lines[at]["buyer"].as_i64().unwrap();

    // An order that nobody asked for.
    let key = told.lines[at]["key"].clone();
    let found = told.faults_after(|lines| {
        lines.retain(|line| line["key"] != key || line["buyer"] != buyer);
    });
    let words = format!("order {order} of buyer {buyer} is in the ledger, and no request");
    assert_names(&found, &[&words]);

    // An answer that another buyer got.
    let found = told.faults_after(|lines| lines[at]["buyer"] = json!(buyer + 1));
    let words = format!("order {order} was accepted for buyer {}", buyer + 1);
    assert_names(&found, &[&place, &words]);

    // An order that the ledger never saw, one amount for another, and one order for two keys.
    let found = told.faults_after(|lines| lines[at]["orderId"] = json!("1-1-999"));
    assert_names(&found, &[&place, "was accepted and is not in the ledger"]);
    let found = told.faults_after(|lines| lines[at]["amount"] = json!(3));
    assert_names(&found, &[&place, "for 3 units, the ledger has 1"]);
    let found = told.faults_after(|lines| {
        let mut again = lines[at].clone();
        again["key"] = json!("another");
        lines.push(again);
    });
    assert_names(&found, &["was answered to two keys of buyer"]);

    // Refusals that were not true: sold out and a full door before anything was sold, the others ever.
    let began = told.lines[0]["startedAt"].as_i64().unwrap();
    let refused = |step: &str, code: u32| {
        let mut line = told.lines[told.first("order", 202)].clone();
        line["step"] = json!(step);
        line["status"] = json!(409);
        line["errCode"] = json!(code);
        line["orderId"] = Value::Null;
        line["sentAt"] = json!(began);
        line["receivedAt"] = json!(began + 1);
        line
    };
    for (step, code, why) in [
        ("token", 30001, "units were available all the time"),
        ("order", 30001, "units were available all the time"),
        ("token", 30007, "places can have been taken"),
        ("token", 30006, "he held fewer than one buyer may have"),
        ("token", 30009, "nobody had paused the sale"),
        ("order", 30003, "the sale was open all the time"),
        ("order", 30011, "nothing else was ever asked for"),
    ] {
        let found = told.faults_after(|lines| lines.push(refused(step, code)));
        let place = format!("changed.jsonl:{}:", told.lines.len() + 1);
        assert_names(&found, &[&place, why]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_changed_is_found() {
    let told = Told::of_a_sale().await;
    let line = &told.lines[told.accepted()];
    let (order, buyer) = (line["orderId"].as_str().unwrap(), &line["buyer"]);
    let found = told.faults_of_ledger(&format!(
        "PRAGMA foreign_keys = OFF; DELETE FROM orders WHERE id = '{order}'"
    ));
    assert_names(&found, &[order, "was accepted and is not in the ledger"]);
    let found = told.faults_of_ledger(&format!(
        "UPDATE orders SET buyer = buyer + 1 WHERE id = '{order}'"
    ));
    let words = format!("order {order} was accepted for buyer {buyer}, the ledger has it for");
    assert_names(&found, &[&words]);
    let found = told.faults_of_ledger(&format!(
        "UPDATE orders SET state = 'written', paid_at = NULL WHERE id = '{order}'"
    ));
    assert_names(&found, &[order, "was said to be paid"]);
}
