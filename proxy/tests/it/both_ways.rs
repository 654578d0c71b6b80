//! The fast path and Pingora's way answer alike: the same requests (usual, odd, malformed, split anywhere,
//! pipelined) go to two edges that differ in nothing but that. Answers, counts, and what reaches the order
//! server must be equal. Everything is drawn from a seed, which is told when something is not.

use std::collections::BTreeSet;
use std::time::Duration;

use lua_free_rules::config::Size;
use lua_free_rules::limit::Rate;
use lua_free_rules::units::Millis;

use crate::dice::Dice;
use crate::harness::{Plan, Shop};
use crate::peer::Peer;
use crate::requests::{self, Sent};
use crate::wire::{Reply, Wire};

const PROBE: &str = "GET /promo/state?id=7 HTTP/1.1\r\nHost: shop\r\n\r\n";

/// One edge, and the order server behind it.
struct Way {
    shop: Shop,
    peer: Peer,
}

impl Way {
    async fn open(fast_path: bool, change: impl Fn(&mut Plan)) -> Self {
        let peer = Peer::start().await;
        let mut plan = Plan::new(&[&peer]);
        plan.stock = 1_000;
        plan.door = 1_000;
        plan.edge.item_cache.fresh = Millis::seconds(600);
        plan.edge.fast_path = fast_path;
        change(&mut plan);
        let shop = plan.start().await;
        for buyer in 1..=requests::BUYERS {
            shop.sign_in(buyer).await;
        }
        Self { shop, peer }
    }

    async fn connect(&self) -> Wire {
        Wire::connect(self.shop.edge.listen).await
    }

    /// The answer to one whole request, and to a probe after it on the same connection.
    async fn ask(&self, sent: &Sent) -> [Option<String>; 2] {
        let mut wire = self.connect().await;
        wire.try_send(&sent.bytes).await;
        let answer = loop {
            match wire.reply(sent.is_head()).await {
                Some(reply) if reply.status == 100 => {}
                reply => break reply,
            }
        };
        let probe = if wire.try_send(PROBE).await {
            wire.reply(false).await
        } else {
            None
        };
        [answer, probe].map(|reply| reply.map(|reply| told(&reply)))
    }

    /// Everything that is answered to these bytes, and nothing after them.
    async fn hear_out(&self, bytes: &[u8]) -> Vec<String> {
        let mut wire = self.connect().await;
        // An edge that has had enough may have closed already.
        let _ = wire.try_send(bytes).await;
        wire.try_end_sending().await;
        replies(&wire.rest().await)
    }

    /// What was counted, and what reached the order server.
    async fn record(&self) -> (BTreeSet<String>, Vec<String>) {
        let metrics = self.shop.metrics().await;
        let counted = metrics
            .lines()
            .filter(|line| {
                let is = |name: &str| line.starts_with(&format!("floodgate_edge_{name}"));
                is("answers_total")
                    || is("request_duration_seconds_count")
                    || is("requests_in_flight")
                    || is("item_")
                    || is("tokens_issued")
                    || is("challenges_issued")
                    || is("upstream_requests")
                    || is("limit_keys")
            })
            .map(|line| line.replace(&self.peer.address.to_string(), "peer"))
            .collect();
        let reached = self.peer.seen().into_iter().map(|seen| {
            let mut fields: Vec<String> = seen
                .headers
                .iter()
                .filter(|(_, value)| !value.as_bytes().starts_with(b"127.0.0.1:"))
                .map(|(name, value)| format!("{name}: {value:?}"))
                .collect();
            fields.sort();
            format!("{} {fields:?} {:?}", seen.path, seen.body)
        });
        (counted, reached.collect())
    }
}

/// The two edges.
pub struct Both {
    fast: Way,
    long: Way,
}

impl Both {
    pub async fn open(change: impl Fn(&mut Plan)) -> Self {
        Self {
            fast: Way::open(true, &change).await,
            long: Way::open(false, &change).await,
        }
    }

    /// Asserts that any bytes, and nothing after them, are answered alike; `what` says where they are from.
    pub async fn answer_alike(&self, bytes: &[u8], what: &str) {
        let fast = self.fast.hear_out(bytes).await;
        let long = self.long.hear_out(bytes).await;
        let told = format!("{what}:\n{:?}", String::from_utf8_lossy(bytes));
        // Pingora closes after a request with more behind it; the fast path goes on.
        let (first, more) = fast.split_at_checked(long.len()).expect(&told);
        let last = long.last().map_or("", String::as_str);
        let is_open = last.contains("connection: keep-alive") || went_up(last);
        assert!(more.is_empty() || is_open, "{told}");
        for (fast, long) in first.iter().zip(&long) {
            if went_up(long) {
                // The edge may see the end of the bytes before the order server's answer, or after it: only
                // in the one case it says that it closes.
                let [fast, long] = [fast, long].map(|answer| answer.replace("keep-alive", "close"));
                assert_eq!(fast, long, "{told}");
            } else {
                assert_eq!(fast, long, "{told}");
            }
        }
    }

    fn pass_ms(&self, ms: i64) {
        for way in [&self.fast, &self.long] {
            way.shop.clock.advance_ms(ms);
        }
    }

    /// The last requests are counted a moment after they are answered.
    async fn have_equal_records(&self) {
        let records = async || (self.fast.record().await, self.long.record().await);
        for _ in 0..100 {
            let (fast, long) = records().await;
            if fast == long {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ((fast, reached_fast), (long, reached_long)) = records().await;
        let differ: Vec<_> = fast.symmetric_difference(&long).collect();
        assert!(differ.is_empty(), "{differ:#?}");
        assert_eq!(reached_fast, reached_long);
        assert!(fast.len() > 3, "{fast:?}");
    }
}

/// Whether an answer is the order server's.
fn went_up(answer: &str) -> bool {
    answer.contains("\"from\":\"peer\"")
}

/// An answer, without what may differ: the moment, the order of its fields, and what is drawn by chance.
fn told(reply: &Reply) -> String {
    let mut lines = reply.head.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    let mut fields: Vec<String> = lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            format!("{}:{value}", name.to_ascii_lowercase())
        })
        .filter(|field| !field.starts_with("date:"))
        .collect();
    fields.sort();
    let body = String::from_utf8_lossy(&reply.body);
    let body = match body.split_once("\"token\":\"") {
        Some((before, after)) => format!("{before}{:?}", after.split_once('"').map(|cut| cut.1)),
        None => body.into_owned(),
    };
    format!("{first}\n{}\n\n{body}", fields.join("\n"))
}

/// Splits what was answered on one connection. No body in these tests holds the start of an answer.
fn replies(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let parts = text.split("HTTP/1.1 ");
    parts
        .skip(1)
        .map(|part| {
            let (head, body) = part.split_once("\r\n\r\n").unwrap_or((part, ""));
            told(&Reply {
                status: 0,
                head: head.to_owned(),
                body: body.as_bytes().to_vec(),
            })
        })
        .collect()
}

#[tokio::test]
async fn whole_requests_are_answered_alike() {
    for seed in 1..=3 {
        let both = Both::open(|plan| {
            plan.edge.rates.buyer = Rate {
                per_second: 2,
                burst: 20,
            };
        })
        .await;
        let mut dice = Dice::new(seed);
        for number in 0..1_000 {
            let sent = requests::any(&mut dice);
            let (fast, long) = (both.fast.ask(&sent).await, both.long.ask(&sent).await);
            let text = String::from_utf8_lossy(&sent.bytes);
            assert_eq!(fast, long, "seed {seed}, request {number}:\n{text}");
            both.pass_ms(dice.up_to(50));
        }
        both.have_equal_records().await;
        assert!(both.fast.peer.seen().len() > 20, "some go up");
    }
}

#[tokio::test]
async fn rates_and_sizes_hold_alike() {
    let both = Both::open(|plan| {
        plan.edge.rates.address = Rate {
            per_second: 20,
            burst: 10,
        };
        plan.edge.limits.headers_max = Size(1_000);
        plan.edge.limits.body_max = Size(300);
        plan.edge.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        plan.starts_in_ms = 10_000;
    })
    .await;
    let mut dice = Dice::new(3);
    for number in 0..500 {
        let sent = requests::any(&mut dice);
        let (fast, long) = (both.fast.ask(&sent).await, both.long.ask(&sent).await);
        let text = String::from_utf8_lossy(&sent.bytes);
        assert_eq!(fast, long, "request {number}:\n{text}");
        both.pass_ms(dice.up_to(60));
    }
    both.have_equal_records().await;
}

#[tokio::test]
async fn malformed_requests_are_answered_alike() {
    let both = Both::open(|_| ()).await;
    let seed = 4;
    let mut dice = Dice::new(seed);
    for number in 0..3_000 {
        let bytes = requests::malformed(&mut dice);
        let what = format!("seed {seed}, request {number}");
        both.answer_alike(&bytes, &what).await;
    }
}

#[tokio::test]
async fn requests_split_anywhere_are_answered_alike() {
    let both = Both::open(|_| ()).await;
    for sent in requests::samples() {
        let whole = both.long.ask(&sent).await;
        assert!(whole[1].is_some(), "the connection goes on");
        let ways = [&both.fast, &both.long];
        let mut wires = [ways[0].connect().await, ways[1].connect().await];
        for at in 1..sent.bytes.len() {
            let (first, second) = sent.bytes.split_at(at);
            for wire in &mut wires {
                wire.send(first).await;
                // The edge gets to see what is there so far, most times.
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                wire.send(second).await;
                let reply = wire.reply(sent.is_head()).await.unwrap();
                assert_eq!(whole[0], Some(told(&reply)), "split at {at}");
            }
        }
    }
    // What was asked whole was asked on one way only.
    for sent in requests::samples() {
        both.fast.ask(&sent).await;
    }
    both.have_equal_records().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let both = Both::open(|_| ()).await;
    let mut dice = Dice::new(5);
    for number in 0..150 {
        let count = 1 + dice.below(20);
        let asked: Vec<Sent> = (0..count).map(|_| requests::plain(&mut dice)).collect();
        let bytes: Vec<u8> = asked.iter().flat_map(|sent| sent.bytes.clone()).collect();
        let fast = both.fast.hear_out(&bytes).await;
        let mut long = Vec::new();
        for sent in &asked {
            long.append(&mut both.long.hear_out(&sent.bytes).await);
        }
        assert_eq!(fast, long, "pipeline {number}");
    }
    both.have_equal_records().await;
}

/// What stands behind a request that goes to Pingora is never answered as if it were another one.
#[tokio::test]
async fn nothing_behind_an_unusual_request_is_taken_for_one() {
    let both = Both::open(|_| ()).await;
    let mut dice = Dice::new(6);
    for number in 0..300 {
        let mut bytes = requests::plain(&mut dice).bytes;
        let before = both.long.hear_out(&bytes).await;
        let unusual = requests::unusual(&mut dice);
        bytes.extend_from_slice(&unusual);
        let alone = both.long.hear_out(&unusual).await;
        let hidden = requests::plain(&mut dice).bytes;
        bytes.extend_from_slice(&hidden);
        let with_hidden = both
            .long
            .hear_out(&[unusual.clone(), hidden].concat())
            .await;
        let fast = both.fast.hear_out(&bytes).await;
        let text = String::from_utf8_lossy(&unusual);
        assert_eq!(fast[..before.len()], before, "{number}: {text:?}");
        assert_eq!(fast[before.len()..], with_hidden, "{number}: {text:?}");
        assert!(with_hidden.len() <= alone.len(), "{number}: {text:?}");
    }
}
