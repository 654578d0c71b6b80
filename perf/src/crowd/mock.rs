//! A shop in memory for tests of the crowd: honest unless told to break a promise, and as slow, dead or
//! silent as a test wants it. It runs in virtual time.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::history::History;
use super::plan::{Arrivals, Crowd, Shares, Think};
use super::pool::Dial;
use super::shard::{Part, Played};
use super::stage::{Person, Pulse, Scene};

/// A promise that the shop breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaks {
    /// None.
    None,
    /// It takes every token.
    TakesAnyToken,
    /// It makes a new order each time.
    IgnoresKeys,
    /// It forgets orders once they are accepted.
    Forgets,
    /// It refuses the resend of an accepted order.
    RefusesResends,
}

/// The shop.
pub struct Shop {
    /// Units left.
    pub stock: u32,
    /// What it does wrong.
    pub breaks: Breaks,
    /// It answers nothing between these moments, then at once.
    pub stalls: Option<(Instant, Instant)>,
    /// It is dead between these moments: no connection is made, and open ones break.
    pub dead: Option<(Instant, Instant)>,
    /// It never answers.
    pub silent: bool,
    /// Requests it saw.
    pub requests: usize,
    orders: HashMap<String, String>,
    states: BTreeMap<String, (u32, &'static str)>,
}

impl Shop {
    /// An honest one.
    pub fn new(stock: u32) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            stock,
            breaks: Breaks::None,
            stalls: None,
            dead: None,
            silent: false,
            requests: 0,
            orders: HashMap::new(),
            states: BTreeMap::new(),
        }))
    }

    fn answer(&mut self, request: &Seen) -> (u16, Value) {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        match path {
            "/item/get" | "/promo/state" => (200, json!({})),
            "/order/generatetoken" if self.stock == 0 => refuse(409, 30001),
            "/order/generatetoken" => (200, json!({ "token": token_of(&request.session) })),
            "/order/create" => self.create(request),
            "/order/get" => {
                let id = query.trim_start_matches("id=");
                let forgets = self.breaks == Breaks::Forgets;
                match self.states.get_mut(id).filter(|_| !forgets) {
                    Some((looks, state)) => {
                        // In the ledger from the second look on.
                        *looks += 1;
                        if *looks > 1 && *state == "reserved" {
                            *state = "written";
                        }
                        (200, json!({ "orderId": id, "state": state }))
                    }
                    None => refuse(404, 10003),
                }
            }
            "/order/pay" => {
                let id = request.body["orderId"].as_str().unwrap();
                match self.states.get_mut(id) {
                    Some((_, state)) if *state == "written" => {
                        *state = "paid";
                        (200, json!({ "state": "paid" }))
                    }
                    _ => refuse(409, 30010),
                }
            }
            _ => refuse(404, 10003),
        }
    }

    fn create(&mut self, request: &Seen) -> (u16, Value) {
        let valid = request.body["token"] == token_of(&request.session);
        if !valid && self.breaks != Breaks::TakesAnyToken {
            return refuse(403, 30005);
        }
        let known = self
            .orders
            .get(&request.key)
            .filter(|_| self.breaks != Breaks::IgnoresKeys);
        match known {
            Some(_) if self.breaks == Breaks::RefusesResends => return refuse(409, 30001),
            Some(id) => return (202, json!({ "orderId": id, "state": "reserved" })),
            None => {}
        }
        if self.stock == 0 {
            return refuse(409, 30001);
        }
        self.stock -= 1;
        let id = format!("1-1-{}", self.states.len() + 1);
        self.orders.insert(request.key.clone(), id.clone());
        self.states.insert(id.clone(), (0, "reserved"));
        (202, json!({ "orderId": id, "state": "reserved" }))
    }
}

fn refuse(status: u16, code: u32) -> (u16, Value) {
    (status, json!({ "errCode": code, "errMsg": "no" }))
}

fn token_of(session: &str) -> String {
    format!("aGVhZA.{session}.c2VhbHNlYWxzZWFs")
}

/// A request as the shop sees it.
struct Seen {
    path: String,
    session: String,
    key: String,
    body: Value,
}

/// Connects to the shop.
#[derive(Clone)]
pub struct ToShop(pub Rc<RefCell<Shop>>);

impl Dial for ToShop {
    type Stream = DuplexStream;

    async fn dial(&self) -> io::Result<DuplexStream> {
        if is_within(self.0.borrow().dead) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (client, server) = duplex(64 * 1024);
        tokio::task::spawn_local(serve(self.0.clone(), server));
        Ok(client)
    }
}

fn is_within(window: Option<(Instant, Instant)>) -> bool {
    window.is_some_and(|(from, to)| (from..to).contains(&Instant::now()))
}

async fn serve(shop: Rc<RefCell<Shop>>, mut stream: DuplexStream) {
    let mut read = Vec::new();
    while let Some(request) = receive(&mut stream, &mut read).await {
        let (stalls, dead, silent) = {
            let mut shop = shop.borrow_mut();
            shop.requests += 1;
            (shop.stalls, shop.dead, shop.silent)
        };
        if silent {
            std::future::pending::<()>().await;
        }
        if let Some((_, to)) = stalls.filter(|window| is_within(Some(*window))) {
            tokio::time::sleep_until(to).await;
        }
        let (status, data) = shop.borrow_mut().answer(&request);
        if is_within(dead) {
            // It did what was asked, and died before it could say so.
            return;
        }
        let word = if status < 300 { "success" } else { "fail" };
        let body = json!({ "status": word, "data": data }).to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn receive(stream: &mut DuplexStream, read: &mut Vec<u8>) -> Option<Seen> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        if let Ok(httparse::Status::Complete(head)) = request.parse(read) {
            let header = |name: &str| {
                let found = request
                    .headers
                    .iter()
                    .find(|h| h.name.eq_ignore_ascii_case(name));
                found.map_or(String::new(), |h| {
                    String::from_utf8_lossy(h.value).into_owned()
                })
            };
            let length = head + header("content-length").parse().unwrap_or(0);
            if read.len() >= length {
                let seen = Seen {
                    path: request.path.unwrap().to_owned(),
                    session: header("authorization")
                        .trim_start_matches("Bearer ")
                        .to_owned(),
                    key: header("idempotency-key"),
                    body: serde_json::from_slice(&read[head..length]).unwrap_or_default(),
                };
                read.drain(..length);
                return Some(seen);
            }
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}

/// A patient crowd without odd manners, whose think times are fixed.
pub fn scene() -> Scene {
    let think = Think::Fixed(Duration::from_millis(100));
    Scene {
        promo: 1,
        item: 1,
        per_buyer_limit: 1,
        proof_of_work: false,
        crowd: Crowd {
            seed: 1,
            shares: Shares::default(),
            think,
            amount_max: 1,
        },
        timeout: Duration::from_secs(10),
        patience: Duration::from_secs(30),
        tries: 8,
        door_tries: 1,
        poll: Duration::from_millis(250),
    }
}

/// How a test's crowd is played.
pub struct Rehearsal {
    /// What is played.
    pub scene: Scene,
    /// How many buyers.
    pub buyers: usize,
    /// When they come.
    pub arrivals: Arrivals,
    /// Over how many connections.
    pub connections: usize,
    /// The history.
    pub history: History,
    /// Ends the play.
    pub stop: CancellationToken,
}

impl Rehearsal {
    /// So many buyers within a second.
    pub fn of(buyers: usize) -> Self {
        Self {
            scene: scene(),
            buyers,
            arrivals: Arrivals::Within(Duration::from_secs(1)),
            connections: 64,
            history: History::default(),
            stop: CancellationToken::new(),
        }
    }

    /// Plays it against the shop.
    pub async fn play(self, shop: &Rc<RefCell<Shop>>) -> Played {
        let people: Arc<[Person]> = (0..self.buyers)
            .map(|index| Person {
                index,
                buyer: index as i64,
                session: format!("c2Vzc2lvbg{index}").into(),
            })
            .collect();
        let offsets = self.arrivals.offsets(self.scene.crowd.seed, self.buyers);
        let part = Part {
            cast: super::play::cast(self.arrivals, &offsets, self.buyers, 0, 1),
            scene: Arc::new(self.scene),
            people,
            dialer: ToShop(shop.clone()),
            host: "shop".to_owned(),
            connections: self.connections,
            clock: Clock::start(),
            start: Instant::now(),
            history: self.history,
            pulse: Arc::new(Pulse::default()),
            stop: self.stop,
            abort: CancellationToken::new(),
        };
        part.play().await.unwrap()
    }
}
