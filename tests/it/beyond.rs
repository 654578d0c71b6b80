//! Beyond one machine: the same promises with two edges, two order servers and two writers as processes of
//! their own, on Redis and a database server.

use std::path::Path;
use std::time::Duration;

use floodgate_servers::{MariaDb, Postgres};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::buyer::Buyer;
use crate::crowd::{Crowd, audit_all, draw, next};
use crate::fleet::{Database, Fleet, PARTS, Part, copy};
use crate::house::{Shop, code, promo, until};

/// Tokens that outlive the test: then no place comes back, and the door's count is exact.
const LONG_TOKENS: &str = "[token]\nttl = \"1h\"\n";

fn open(stock: u32) -> String {
    promo(1, stock, "starts_in = \"0s\"", LONG_TOKENS)
}

fn on_mariadb(stock: u32) -> Fleet {
    Fleet::launch(Database::MariaDb(MariaDb::start()), &open(stock), "")
}

fn on_postgres(stock: u32) -> Fleet {
    Fleet::launch(Database::Postgres(Postgres::start()), &open(stock), "")
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn assert_true(fleet: &Fleet, histories: &[&Path]) -> Value {
    let (exit, report) = audit_all(fleet, histories);
    assert_eq!(exit, Some(0), "{report:#}\n{}", fleet.logs());
    report
}

/// Two crowds, each at an edge of its own, for 60 units.
async fn two_crowds_for_sixty_units(fleet: Fleet) {
    let seed = draw();
    println!("seed {seed}");
    let line = |edge: u32| {
        format!(
            "--buyers 500 --within 3s --connections 150 --think exp:50ms --seed {} \
             --first-account {}",
            seed.wrapping_add(edge),
            1 + edge * 1_000
        )
    };
    let crowds: Vec<Crowd> = [0, 1]
        .map(|edge| {
            let name = format!("history-{edge}.jsonl");
            Crowd::keep(&fleet.at(edge as usize), &name, &words(&line(edge)))
        })
        .into();
    let histories: Vec<_> = crowds.iter().map(|crowd| crowd.history.clone()).collect();
    let end = || crowds.into_iter().map(Crowd::end).collect::<Vec<_>>();
    let reports = tokio::task::spawn_blocking(end).await.unwrap();
    let sum = |count: fn(&floodgate_perf::crowd::report::Report) -> u64| -> u64 {
        reports.iter().map(count).sum()
    };
    assert_eq!(sum(|report| report.funnel.arrived), 1_000);
    assert_eq!(
        sum(|report| report.funnel.reserved),
        60,
        "exactly the stock is sold"
    );
    let admitted = sum(|report| report.funnel.admitted);
    assert!(admitted <= 300, "{admitted} admitted, five for each unit");
    let histories: Vec<&Path> = histories.iter().map(AsRef::as_ref).collect();
    let audited = assert_true(&fleet, &histories);
    assert_eq!(audited["history"]["inLedger"], 60, "{audited:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sale_on_redis_and_mariadb() {
    two_crowds_for_sixty_units(on_mariadb(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sale_on_redis_and_postgresql() {
    two_crowds_for_sixty_units(on_postgres(60)).await;
}

/// All ask before any buys: the door admits five for each unit, whichever edge they come to.
#[tokio::test(flavor = "multi_thread")]
async fn the_door_is_exact_across_edges() {
    let fleet = on_postgres(8);
    let mut buyers = Vec::new();
    for number in 0..60 {
        let edge = fleet.at(number % 2);
        buyers.push(Buyer::register(&edge, &format!("+4916{number:08}")).await);
    }
    let asked = join_all(buyers.iter().map(|buyer| buyer.ask(1))).await;
    let admitted = asked.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(admitted, 40);
    for (status, body) in asked.iter().filter(|(status, _)| *status != 200) {
        assert_eq!((*status, code(body)), (409, 30007), "{body}");
    }
    // Asking at the other edge returns the same token, and charges nothing.
    let (buyer, (_, first)) = buyers
        .iter()
        .zip(&asked)
        .find(|(_, it)| it.0 == 200)
        .unwrap();
    let elsewhere = buyer.at(&fleet.at(1));
    let (status, again) = elsewhere.ask(1).await;
    assert_eq!(
        (status, &again["data"]["expiresAt"]),
        (200, &first["data"]["expiresAt"])
    );
    fleet.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_out_and_a_changed_item_are_seen_at_both_edges() {
    let fleet = on_mariadb(5);
    let here = Buyer::register(&fleet.at(0), "+491700000001").await;
    let there = here.at(&fleet.at(1));
    assert_eq!(there.get("/user/get").await.0, 200);
    assert_eq!(there.ask(1).await.0, 200);
    let price = async |buyer: &Buyer| buyer.get("/item/get?id=1").await.1["data"]["price"].clone();
    assert_eq!(
        (price(&here).await, price(&there).await),
        (json!("129.00"), json!("129.00"))
    );

    let token = std::fs::read_to_string(fleet.data().join("operator.token")).unwrap();
    let changed = fleet
        .http()
        .post(format!("http://{}/item/update", fleet.edges[0]))
        .bearer_auth(token.trim())
        .json(&json!({ "id": 1, "price": "111.00" }))
        .send()
        .await
        .unwrap();
    assert_eq!(changed.status(), 200);
    for buyer in [&here, &there] {
        until("the new price", || async {
            (price(buyer).await == json!("111.00")).then_some(())
        })
        .await;
    }

    assert_eq!(here.post("/user/logout", json!({})).await.0, 200);
    assert_eq!(there.get("/user/get").await.0, 401);
    let (status, body) = there.ask(1).await;
    assert_eq!((status, code(&body)), (401, 20003), "{body}");
    fleet.assert_clean();
}

/// kill -9 of anything at any moment, with the crowd on; `FLOODGATE_KILLS` asks for more of them.
#[tokio::test(flavor = "multi_thread")]
async fn any_process_is_killed_in_mid_sale() {
    let seed = draw();
    let kills: u32 = std::env::var("FLOODGATE_KILLS").map_or(8, |kills| kills.parse().unwrap());
    let (stock, buyers) = (150 * kills, 250 * kills);
    println!("seed {seed}, {kills} kills, {buyers} buyers for {stock} units");
    let mut fleet = on_mariadb(stock);
    let line = format!(
        "--buyers {buyers} --concurrency 30 --connections 120 --think exp:60ms \
         --patience 3m --tries 300 --timeout 20s --time-limit 9m --seed {seed}"
    );
    let crowd = Crowd::come(&fleet, &words(&line));
    let mut dice = u64::from(seed);
    let mut done = Vec::new();
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(300 + next(&mut dice) % 900)).await;
        if crowd.is_over() {
            break;
        }
        // Each kind in turn, Redis and the database included.
        let what = match kill % 8 {
            6 => {
                fleet.redis.restart();
                "redis".to_owned()
            }
            7 => {
                fleet.database.crash();
                "database".to_owned()
            }
            part => {
                let part = PARTS[part as usize];
                fleet.kill(part);
                tokio::time::sleep(Duration::from_millis(next(&mut dice) % 300)).await;
                fleet.start(part);
                format!("{part:?}")
            }
        };
        done.push(what);
    }
    let history = crowd.history.clone();
    let report = tokio::task::spawn_blocking(|| crowd.end()).await.unwrap();
    println!("{report}\nkilled: {}", done.join(", "));
    assert_eq!(
        done.len(),
        kills as usize,
        "seed {seed}: the crowd was over too soon"
    );
    let audited = assert_true(&fleet, &[&history]);
    println!("{:#}", audited["history"]);
    let promos = audited["promos"].as_array().unwrap();
    let available = promos.last().unwrap()["books"]["available"]
        .as_i64()
        .unwrap();
    let accepted = audited["history"]["inLedger"].as_i64().unwrap();
    assert!(accepted <= i64::from(stock), "seed {seed}: oversold");
    assert_eq!(
        available + accepted,
        i64::from(stock),
        "seed {seed}: {audited:#}"
    );
}

/// `FLOODGATE_STOPPED_S` asks for longer than a moment.
async fn stopped_for_a_while() {
    let seconds = std::env::var("FLOODGATE_STOPPED_S").map_or(0, |it| it.parse().unwrap());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// A writer that is killed after its commit and before it could acknowledge: the entry is taken over, and
/// what is in the ledger is not written again.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_dies_between_commit_and_acknowledgement() {
    let mut fleet = on_mariadb(10);
    let buyer = Buyer::register(&fleet, "+491900000003").await;
    let token = buyer.token(1).await;
    let written = "SELECT COUNT(*) FROM orders";
    // Publishing has been written.
    until("an empty stream", || async {
        (fleet.redis.ask("XPENDING floodgate:{1}:s writers")[0] == "0").then_some(())
    })
    .await;
    fleet.database.freeze();
    let (status, body) = buyer.order(1, &token, None).await;
    assert_eq!(status, 202, "{body}");
    // A writer has it in hand, and waits for the database.
    until("a writer to take it", || async {
        (fleet.redis.ask("XPENDING floodgate:{1}:s writers")[0] == "1").then_some(())
    })
    .await;
    // From here on Redis writes nothing, and forgets what a client asked for that went away meanwhile.
    fleet.redis.ask("CLIENT PAUSE 60000 WRITE");
    fleet.database.thaw();
    until("the commit", || async {
        (fleet.database.ask(written).trim() == "1").then_some(())
    })
    .await;
    for number in 0..2 {
        fleet.kill(Part::Writer(number));
    }
    fleet.redis.ask("PING");
    fleet.redis.ask("CLIENT UNPAUSE");
    let pending = fleet.redis.ask("XPENDING floodgate:{1}:s writers");
    assert_eq!(pending[0], "1", "{pending:?}");
    for number in 0..2 {
        fleet.start(Part::Writer(number));
    }
    until("it to be acknowledged", || async {
        (fleet.redis.ask("XPENDING floodgate:{1}:s writers")[0] == "0").then_some(())
    })
    .await;
    assert_eq!(fleet.database.ask(written).trim(), "1");
    fleet.assert_clean();
}

/// A database that hangs: buyers with a token are still served, and nothing that was accepted is lost.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_hangs_and_comes_back() {
    let fleet = on_mariadb(20);
    let mut buyers = Vec::new();
    for number in 0..6 {
        let edge = fleet.at(number % 2);
        buyers.push(Buyer::register(&edge, &format!("+4917{number:08}")).await);
    }
    let tokens = join_all(buyers.iter().map(|buyer| buyer.token(1))).await;
    assert_eq!(buyers[0].get("/item/get?id=1").await.0, 200);
    fleet.database.freeze();
    let mut orders = Vec::new();
    for (buyer, token) in buyers.iter().zip(&tokens) {
        let (status, body) = buyer.order(1, token, None).await;
        assert_eq!(status, 202, "{body}");
        orders.push(body["data"]["orderId"].as_str().unwrap().to_owned());
    }
    // Details come from memory; what needs the database says so.
    assert_eq!(buyers[0].get("/item/get?id=1").await.0, 200);
    let login = json!({ "tel": buyers[0].tel, "password": crate::buyer::PASSWORD });
    let (status, body) = buyers[0].post("/user/login", login).await;
    assert_eq!((status, code(&body)), (503, 30008), "{body}");
    stopped_for_a_while().await;
    fleet.database.thaw();
    for (buyer, order) in buyers.iter().zip(&orders) {
        buyer.pay(order).await;
    }
    fleet.assert_clean();
}

/// The stream has a bound: beyond it buyers are told 503, and are served again once the ledger is.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_at_its_bound_takes_no_more_orders() {
    let database = Database::Postgres(Postgres::start());
    let fleet = Fleet::launch(database, &open(40), "");
    // The bound stands in [orders]; this fleet's order servers get theirs by a restart.
    let mut fleet = fleet;
    for number in 0..2 {
        let part = Part::OrderServer(number);
        let file = fleet
            .folder
            .path()
            .join(format!("backend-{number}/floodgate.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.replace("[orders]\n", "[orders]\nstream_max = 3\n");
        std::fs::write(&file, text).unwrap();
        fleet.kill(part);
        fleet.start(part);
    }
    let mut buyers = Vec::new();
    for number in 0..8 {
        buyers.push(Buyer::register(&fleet, &format!("+4918{number:08}")).await);
    }
    let tokens = join_all(buyers.iter().map(|buyer| buyer.token(1))).await;
    fleet.database.freeze();
    let mut refused = 0;
    for (buyer, token) in buyers.iter().zip(&tokens) {
        let (status, body) = buyer.order(1, token, None).await;
        match status {
            202 => {}
            503 => {
                assert_eq!(code(&body), 30008, "{body}");
                refused += 1;
            }
            _ => panic!("{status} {body}"),
        }
    }
    assert_eq!(refused, 5, "three are taken");
    fleet.database.thaw();
    for (buyer, token) in buyers.iter().zip(&tokens) {
        until("the order to be taken", || async {
            let (status, body) = buyer.order(1, token, None).await;
            assert!(matches!(status, 202 | 503), "{status} {body}");
            (status == 202).then_some(())
        })
        .await;
    }
    fleet.assert_clean();
}

/// Redis away, then back: pages and details are served all the while, and nobody lends a hand.
#[tokio::test(flavor = "multi_thread")]
async fn redis_goes_away_and_comes_back() {
    let mut fleet = on_postgres(10);
    let buyer = Buyer::register(&fleet.at(1), "+491900000001").await;
    let order = buyer.buy(1).await;
    buyer.until_state(&order, "written").await;
    assert_eq!(buyer.get("/item/get?id=1").await.0, 200);
    fleet.redis.kill();
    assert_eq!(buyer.get("/item/get?id=1").await.0, 200);
    let answer = buyer
        .request("/order/generatetoken", json!({ "promoId": 1, "itemId": 1 }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    stopped_for_a_while().await;
    fleet.redis.restart();
    until("the sale to go on", || async {
        let (status, body) = buyer.ask(1).await;
        assert!(matches!(status, 503 | 409), "{status} {body}");
        // He has what one buyer may have: that the engine says so means that it is back.
        (status == 409).then_some(())
    })
    .await;
    let second = Buyer::register(&fleet.at(0), "+491900000002").await;
    second.buy(1).await;
    fleet.assert_clean();
}

/// Redis comes back with nothing, and once more with what it had a while ago.
#[tokio::test(flavor = "multi_thread")]
async fn redis_comes_back_empty_or_without_its_tail() {
    let mut fleet = on_mariadb(12);
    let mut buyers = Vec::new();
    for number in 0..12 {
        let edge = fleet.at(number % 2);
        buyers.push(Buyer::register(&edge, &format!("+4920{number:08}")).await);
    }
    let mut orders = Vec::new();
    for buyer in &buyers[..4] {
        let order = buyer.buy(1).await;
        buyer.until_state(&order, "written").await;
        orders.push(order);
    }
    // A copy of its file as it was, then more orders, then that copy instead of the file.
    let files = fleet.redis.folder().join("appendonlydir");
    let copied = fleet.folder.path().join("tail");
    copy(&files, &copied);
    for buyer in &buyers[4..7] {
        let order = buyer.buy(1).await;
        buyer.until_state(&order, "written").await;
        orders.push(order);
    }
    fleet.redis.kill();
    fleet.redis.forget();
    copy(&copied, &files);
    fleet.redis.restart();
    for buyer in &mut buyers[7..9] {
        again(buyer).await;
        orders.push(buyer.buy(1).await);
    }
    buyers[8].until_state(&orders[8], "written").await;
    fleet.assert_clean();

    fleet.redis.kill();
    fleet.redis.forget();
    fleet.redis.restart();
    let mut sold = orders.len();
    for buyer in &mut buyers {
        again(buyer).await;
        let (status, body) = buyer.ask(1).await;
        if status == 200 {
            let token = body["data"]["token"].as_str().unwrap().to_owned();
            let (status, body) = buyer.order(1, &token, None).await;
            assert_eq!(status, 202, "{body}");
            sold += 1;
        } else {
            assert!(matches!(code(&body), 30001 | 30006), "{status} {body}");
        }
    }
    assert_eq!(sold, 12, "every unit is sold, and none twice");
    for (buyer, order) in buyers.iter().zip(&orders) {
        buyer.pay(order).await;
    }
    fleet.assert_clean();
}

/// Signs in again, once the engine is back.
async fn again(buyer: &mut Buyer) {
    let login = json!({ "tel": buyer.tel, "password": crate::buyer::PASSWORD });
    let body = until("the engine to be back", || async {
        let (status, body) = buyer.post("/user/login", login.clone()).await;
        assert!(matches!(status, 200 | 503), "{status} {body}");
        if status == 503 {
            return None;
        }
        // The engine takes sign-ins before an edge has heard of the promos again.
        Some(body)
    })
    .await;
    buyer.session = body["data"]["token"].as_str().unwrap().to_owned();
    until("the edge to know the promo", || async {
        let (status, body) = buyer.ask(1).await;
        (status != 503).then_some(body)
    })
    .await;
}
