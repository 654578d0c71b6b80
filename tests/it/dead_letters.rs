//! Entries of the stream that cannot be written: they are set aside, shown, counted by the audit, and put
//! back by an operator.

use std::process::Output;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::house::{House, Plan, answer, code, open_promo, until};

/// What no writer can read, with what a terminal would obey.
const GARBAGE: &str = "{\"promo\":\u{1b}[2J";

fn words(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn engine(house: &House) -> Connection {
    Connection::open(house.data().join("engine.db")).unwrap()
}

/// The dead letters, as the command tells them in JSON.
fn listed(house: &House) -> Value {
    let output = house.floodgate(&["dead-letters", "list", "--json"]);
    assert!(output.status.success(), "{}", words(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The id of the only dead letter, once there is one that is not `known`.
async fn only_one(house: &House, known: &str) -> String {
    until("a dead letter", || async {
        let found = listed(house);
        let letters = found["letters"].as_array().unwrap();
        let id = letters.first()?["id"].as_str().unwrap().to_owned();
        assert_eq!((letters.len(), &found["count"]), (1, &json!(1)), "{found}");
        (id != known).then_some(id)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_set_aside_and_comes_back_after_a_replay() {
    let mut house = House::open(&Plan::new(&[open_promo(1, 5)]));
    house.buyer().await.buy(1).await;
    assert_eq!(listed(&house), json!({ "count": 0, "letters": [] }));
    house.stop_by("TERM");
    let put = "INSERT INTO stream (made_at, payload) VALUES (1, ?1)";
    engine(&house).execute(put, [GARBAGE]).unwrap();

    house.start();
    let first = only_one(&house, "").await;
    let shown = words(&house.floodgate(&["dead-letters", "list"]));
    assert!(
        shown.contains(&format!("{first}  not an event")) && shown.contains("\\u{1b}[2J"),
        "{shown}"
    );
    assert!(!shown.contains('\u{1b}'), "a terminal obeys nothing here");
    let audit = house.floodgate(&["audit"]);
    assert_eq!(audit.status.code(), Some(2), "{}", words(&audit));
    assert!(
        words(&audit).contains("1 events were set aside"),
        "{}",
        words(&audit)
    );

    // Still poison: it comes back, under a new id.
    let output = house.floodgate(&["dead-letters", "replay", &first]);
    assert!(output.status.success(), "{}", words(&output));
    assert!(words(&output).contains("put back: 1"), "{}", words(&output));
    let second = only_one(&house, &first).await;
    let output = house.floodgate(&["dead-letters", "replay", &first]);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    let log = operators_log(&house).await;
    for call in [
        "admin/deadletters?max=100",
        &format!("admin/deadletters/replay {first}"),
    ] {
        assert!(log.contains(call), "{call} is missing in {log}");
    }

    // The same on the files, when nothing runs.
    house.stop_by("TERM");
    assert_eq!(only_one(&house, "").await, second);
    let output = house.floodgate(&["dead-letters", "replay", "--all"]);
    assert!(words(&output).contains("put back: 1"), "{}", words(&output));
    assert_eq!(listed(&house)["count"], 0);
    engine(&house)
        .execute("DELETE FROM stream WHERE payload = ?1", [GARBAGE])
        .unwrap();
    house.assert_clean();
    house.start();
    let log = operators_log(&house).await;
    assert!(log.contains("dead-letters replay all"), "{log}");
    assert!(log.contains("command line"), "{log}");
}

async fn operators_log(house: &House) -> String {
    let request = house.http.get(house.url("/admin/log"));
    let request = request.bearer_auth(house.operator_token());
    answer(request.send().await.unwrap()).await.1.to_string()
}

/// An order that was set aside is lost to the buyer until it is put back; then the books balance.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_set_aside_is_written_after_a_replay() {
    let mut house = House::open(&Plan::new(&[open_promo(1, 5)]));
    let buyer = house.buyer().await;
    let token = buyer.token(1).await;
    let ledger = Connection::open(house.data().join("ledger.db")).unwrap();
    // While another writes, no order reaches the ledger.
    ledger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (status, body) = buyer.order(1, &token, Some("k")).await;
    assert_eq!(status, 202, "{body}");
    let order = body["data"]["orderId"].as_str().unwrap().to_owned();
    house.kill();
    ledger.execute_batch("ROLLBACK").unwrap();
    engine(&house)
        .execute_batch(
            "INSERT INTO dead_letters SELECT id, made_at, payload, 'by hand' FROM stream;
             DELETE FROM stream;",
        )
        .unwrap();

    house.start();
    let buyer = buyer.at(&house);
    let audit = house.floodgate(&["audit", "--wait", "0s"]);
    assert_eq!(audit.status.code(), Some(2), "{}", words(&audit));
    let (status, body) = house
        .operate("/admin/deadletters/replay", json!({ "id": "all" }))
        .await;
    assert_eq!((status, &body["data"]["left"]), (200, &json!(0)), "{body}");
    assert_eq!(
        body["data"]["replayed"].as_array().unwrap().len(),
        1,
        "{body}"
    );
    buyer.until_state(&order, "written").await;
    house.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_operators_see_dead_letters() {
    let house = House::open(&Plan::new(&[open_promo(1, 5)]));
    let url = house.url("/admin/deadletters");
    let (status, body) = answer(house.http.get(&url).send().await.unwrap()).await;
    assert_eq!((status, code(&body)), (401, 20003), "{body}");
    for (id, expected) in [
        (json!("0-7"), (404, 10003)),
        (json!("7"), (400, 10001)),
        (json!("0-07"), (400, 10001)),
        (json!(7), (400, 10001)),
        (Value::Null, (400, 10001)),
    ] {
        let (status, body) = house
            .operate("/admin/deadletters/replay", json!({ "id": id }))
            .await;
        assert_eq!((status, code(&body)), expected, "{id}: {body}");
    }
    for arguments in [
        &["dead-letters", "replay"][..],
        &["dead-letters", "replay", "--all", "0-7"],
        &["dead-letters", "replay", "07-1"],
        &["dead-letters", "list", "--max", "0"],
    ] {
        let output = house.floodgate(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            words(&output)
        );
    }
}
