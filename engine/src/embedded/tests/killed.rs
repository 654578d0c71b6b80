//! A process that is killed in the middle of its work: what it had answered is in the file.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use lua_free_rules::units::{BuyerId, Generation, OrderId};

use super::*;
use crate::clock::{Clock as _, SystemClock};
use crate::conformance::sale::{PROMO, nonce, request, terms};
use crate::{Control, Entry, Event, Publish};

/// Where the killed process finds its file. Set by [`answered_orders_survive`] only.
const FILE: &str = "FLOODGATE_ENGINE_TEST_FILE";
const ROUNDS: i64 = 3;
const ANSWERS_BEFORE_KILL: usize = 60;

/// Orders in the file at `path` until it is killed, and prints each order once it was answered.
async fn order_until_killed(path: &Path) {
    let engine = Embedded::open(path, Arc::new(SystemClock), Options::default()).unwrap();
    let engine: SharedEngine = Arc::new(engine);
    let mut terms = terms(SystemClock.now());
    terms.stock = 1_000_000;
    let publish = Publish {
        promo: PROMO,
        terms,
        digest: String::new(),
        only_first: true,
    };
    let (_, promo) = engine.publish(publish).await.unwrap();
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..8 {
        let (engine, first) = (
            engine.clone(),
            promo.sequence.0 * 1_000_000 + lane * 100_000,
        );
        lanes.spawn(async move {
            for buyer in first..first + 100_000 {
                let session = lua_free_rules::token::Session {
                    buyer: BuyerId(buyer),
                    id: nonce(),
                    expires_at: SystemClock.now().plus_ms(600_000),
                };
                engine.sign_in(session).await.unwrap();
                let entry = Entry {
                    promo: PROMO,
                    session,
                    attempt: None,
                    jti: nonce(),
                };
                let access = engine.enter(entry).await.unwrap();
                let reserved = engine.reserve(request(session, access, 1)).await.unwrap();
                let line = format!("order {}\n", reserved.reservation.order);
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
        });
    }
    lanes.join_all().await;
}

/// The process to be killed; nothing when it runs as a test among the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_to_be_killed() {
    if let Some(path) = std::env::var_os(FILE) {
        order_until_killed(Path::new(&path)).await;
    }
}

/// Runs the process, kills it after some answers, and returns every order it had answered.
fn killed_after_some_answers(path: &Path) -> Vec<OrderId> {
    let name = "embedded::tests::killed::the_process_to_be_killed";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut orders = Vec::new();
    let mut read = |line: String| {
        if let Some((_, order)) = line.split_once("order ") {
            // The last line may have been cut off by the kill: then it was not answered.
            orders.extend(
                order
                    .parse::<OrderId>()
                    .ok()
                    .filter(|_| line.starts_with("order ")),
            );
        }
        orders.len()
    };
    for line in lines.by_ref() {
        if read(line.unwrap()) >= ANSWERS_BEFORE_KILL {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines {
        read(line.unwrap());
    }
    orders
}

#[tokio::test]
async fn answered_orders_survive() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path());
    let mut answered = Vec::new();
    for round in 1..=ROUNDS {
        let orders = killed_after_some_answers(&path);
        assert!(
            orders.len() >= ANSWERS_BEFORE_KILL,
            "round {round}: it ended by itself"
        );
        answered.extend(orders);
        // What an audit does when no process runs.
        let engine = Embedded::open(&path, Arc::new(SystemClock), Options::default()).unwrap();
        let promo = engine.snapshot(PROMO, Generation(1)).await.unwrap();
        let mut made = std::collections::HashSet::new();
        let mut available = 0;
        let mut events = 0;
        loop {
            let entries = OrderStream::read(&engine, 1_000, Duration::ZERO)
                .await
                .unwrap();
            for entry in &entries {
                let event: Event = serde_json::from_str(&entry.payload).unwrap();
                events += 1;
                assert_eq!(event.sequence.0, events);
                available += event.change.delta();
                if let Some(reservation) = event.change.reservation() {
                    assert!(made.insert(reservation.order));
                }
            }
            if entries.is_empty() {
                break;
            }
        }
        assert_eq!(
            (promo.sequence.0, i64::from(promo.available)),
            (events, available)
        );
        for order in &answered {
            assert!(made.contains(order), "round {round}: {order} left no event");
            assert!(engine.reservation(*order).await.unwrap().is_some());
        }
        // So that the next process' buyers are others.
        engine.control(PROMO, Control::AddStock(1)).await.unwrap();
    }
}
