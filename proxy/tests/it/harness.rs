//! Starts the edge with what it needs, and speaks to it as a buyer would.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::clock::ManualClock;
use engine::embedded::{Embedded, Options};
use engine::{Publish, SharedEngine};
use floodgate_proxy::{Running, Settings, start_with_clock};
use lua_free_rules::challenge::Kind;
use lua_free_rules::config;
use lua_free_rules::keys::{Key, KeyRing};
use lua_free_rules::limit::Rate;
use lua_free_rules::promo::Terms;
use lua_free_rules::token::{Access, SESSION_COOKIE, Session};
use lua_free_rules::units::{
    BuyerId, Generation, ItemId, Millis, Money, Nonce, PromoId, Timestamp,
};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::peer::Peer;

pub const NOW: Timestamp = Timestamp(1_800_000_000_000);
pub const OPERATOR: &str = "operator-token-of-the-test";
pub const PROMO: i64 = 7;
pub const ITEM: i64 = 3;

/// Far above what a test sends.
pub const PLENTY: Rate = Rate {
    per_second: 1_000_000,
    burst: 1_000_000,
};

pub struct Shop {
    pub edge: Running,
    pub engine: SharedEngine,
    pub clock: Arc<ManualClock>,
    pub client: reqwest::Client,
    _files: tempfile::TempDir,
}

/// What a test changes before the start.
pub struct Plan {
    pub edge: config::Edge,
    pub upstreams: Vec<SocketAddr>,
    pub challenges: Vec<Kind>,
    pub stock: u32,
    pub door: u32,
    pub starts_in_ms: i64,
}

impl Plan {
    pub fn new(upstreams: &[&Peer]) -> Self {
        let mut edge = config::Edge::default();
        edge.rates.address = PLENTY;
        edge.rates.buyer = PLENTY;
        edge.rates.accounts = PLENTY;
        edge.puzzles.pool = 4;
        edge.puzzles.altcha_cost = 5;
        edge.puzzles.altcha_steps = 20;
        Self {
            edge,
            upstreams: upstreams.iter().map(|peer| peer.address).collect(),
            challenges: Vec::new(),
            stock: 10,
            door: 5,
            starts_in_ms: -1_000,
        }
    }

    pub async fn start(self) -> Shop {
        let files = tempfile::tempdir().unwrap();
        let pages = files.path().join("html");
        write_pages(&pages);
        let clock = Arc::new(ManualClock::new(NOW));
        let path = files.path().join("engine.db");
        let engine = Embedded::open(&path, clock.clone(), Options::default()).unwrap();
        let engine: SharedEngine = Arc::new(engine);
        let publish = Publish {
            promo: PromoId(PROMO),
            terms: self.terms(),
            digest: "first".to_owned(),
            only_first: true,
        };
        engine.publish(publish).await.unwrap();
        let settings = Settings {
            edge: self.edge,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            upstreams: self.upstreams,
            pages,
            keys: keys(),
            operator_token: OPERATOR.to_owned(),
            resubmit_for: Millis::seconds(600),
        };
        let edge = start_with_clock(settings, engine.clone(), clock.clone())
            .await
            .unwrap();
        Shop {
            edge,
            engine,
            clock,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            _files: files,
        }
    }

    fn terms(&self) -> Terms {
        let starts_at = NOW.plus_ms(self.starts_in_ms);
        Terms {
            item: ItemId(ITEM),
            starts_at,
            ends_at: starts_at.plus_ms(3_600_000),
            price: Money::from_minor(9_900).unwrap(),
            stock: self.stock,
            door: self.door,
            per_buyer: 2,
            pay_within: Millis::seconds(900),
            token_ttl: Millis::seconds(60),
            challenges: self.challenges.clone(),
        }
    }
}

pub fn keys() -> KeyRing {
    KeyRing::new(vec![Key::new("k1", &[7; 32]).unwrap()], "k1").unwrap()
}

pub fn other_keys() -> KeyRing {
    KeyRing::new(vec![Key::new("k1", &[8; 32]).unwrap()], "k1").unwrap()
}

fn write_pages(folder: &Path) {
    std::fs::create_dir_all(folder.join("js")).unwrap();
    let page = "<!doctype html><p>Everything that is on sale</p>".repeat(50);
    std::fs::write(folder.join("listItem.html"), page).unwrap();
    std::fs::write(folder.join("js/a.js"), "export {};".repeat(100)).unwrap();
    std::fs::write(folder.join(".secret"), "hidden").unwrap();
}

/// A signed-in buyer's session; whether it has a record is up to the test.
pub fn session(buyer: i64) -> Session {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&buyer.to_be_bytes());
    Session {
        buyer: BuyerId(buyer),
        id: Nonce(id),
        expires_at: NOW.plus_ms(7_200_000),
    }
}

pub fn cookie(session: Session) -> String {
    format!("{SESSION_COOKIE}={}", session.mint(&keys()).unwrap())
}

/// An access token for a buyer, as the engine would grant it.
pub fn access(buyer: i64) -> Access {
    Access {
        buyer: BuyerId(buyer),
        jti: Nonce([9; 16]),
        promo: PromoId(PROMO),
        item: ItemId(ITEM),
        generation: Generation(1),
        amount_max: 2,
        issued_at: NOW,
        expires_at: NOW.plus_ms(60_000),
    }
}

impl Shop {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.edge.listen)
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(self.url(path)).json(body)
    }

    /// A POST of a signed-in buyer.
    pub fn post_as(&self, buyer: i64, path: &str, body: &Value) -> RequestBuilder {
        self.post(path, body)
            .header("cookie", cookie(session(buyer)))
    }

    pub async fn sign_in(&self, buyer: i64) {
        self.engine.sign_in(session(buyer)).await.unwrap();
    }

    /// An order of a buyer with this token.
    pub fn order(&self, buyer: i64, token: &str) -> RequestBuilder {
        let body = json!({"itemId": ITEM, "promoId": PROMO, "amount": 1, "token": token});
        self.post_as(buyer, "/order/create", &body)
    }

    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.edge.admin);
        let answer = self.client.get(url).send().await.unwrap();
        answer.text().await.unwrap()
    }
}

/// Why an edge with this certificate does not start.
pub async fn start_fails(tls: config::Tls) -> String {
    let files = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(NOW));
    let path = files.path().join("engine.db");
    let engine = Embedded::open(&path, clock.clone(), Options::default()).unwrap();
    let edge = config::Edge {
        tls: Some(tls),
        ..config::Edge::default()
    };
    let settings = Settings {
        edge,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        upstreams: Vec::new(),
        pages: files.path().to_owned(),
        keys: keys(),
        operator_token: OPERATOR.to_owned(),
        resubmit_for: Millis::seconds(600),
    };
    match start_with_clock(settings, Arc::new(engine), clock).await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    }
}

/// Status and code of a refusal; code 0 for a success.
pub async fn refusal(request: RequestBuilder) -> (StatusCode, u64) {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let body = data(answer).await;
    (status, body["errCode"].as_u64().unwrap_or(0))
}

pub async fn data(answer: Response) -> Value {
    let body = answer.bytes().await.unwrap();
    let json: Value = serde_json::from_slice(&body)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&body)));
    json["data"].clone()
}

/// Asks until the answer is as expected; each question is a real one, and there is an end to it.
pub async fn until<F: Future<Output = bool>>(mut question: impl FnMut() -> F) {
    for _ in 0..2_000 {
        if question().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("what was waited for did not come");
}
