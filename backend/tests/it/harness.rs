//! Starts a whole shop on port 0 and stops it cleanly.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::embedded::{Embedded, Options};
use engine::{Entry, Publish, SharedEngine, SystemClock};
use floodgate_backend::payment::Webhook;
use floodgate_backend::{Ledger, LedgerSettings, Running, Secret, Settings, start};
use lua_free_rules::config::{self, CatalogItem, End, OtpDelivery, Promo, Start};
use lua_free_rules::keys::{Key, KeyRing};
use lua_free_rules::token::Session;
use lua_free_rules::units::{BuyerId, ItemId, Millis, Money, Nonce, PromoId, Timestamp};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

pub const OPERATOR: &str = "an operator's token";
pub const WEBHOOK: &str = "a webhook's secret";
/// The signed providers of the shop: the second one changes its secret over.
pub const ACME: &str = "the secret of acme";
pub const ROTATED: [&str; 2] = ["the secret of bank", "the secret of bank before"];
pub const GRACE: Duration = Duration::from_secs(20);
/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Shop {
    pub dir: tempfile::TempDir,
    pub engine: SharedEngine,
    pub home: Arc<Embedded>,
    pub running: Running,
    pub keys: KeyRing,
    client: reqwest::Client,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn data(&self) -> &Value {
        assert_eq!(self.body["status"], "success", "{}", self.body);
        &self.body["data"]
    }

    pub fn code(&self) -> i64 {
        assert_eq!(self.body["status"], "fail", "{}", self.body);
        self.body["data"]["errCode"].as_i64().unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

#[derive(Clone)]
pub struct Buyer {
    pub tel: String,
    pub token: String,
    pub session: Session,
}

/// One promo of 5 units at 99.00, which is live as soon as it is published.
pub fn proposal() -> Promo {
    Promo {
        id: PromoId(7),
        item: ItemId(3),
        start: Start::In(Millis::new(0)),
        end: End::After(Millis::seconds(3_600)),
        price: "99.00".parse::<Money>().unwrap(),
        stock: 5,
        door: 5,
        per_buyer: 2,
        pay_within: Millis::seconds(900),
        token_ttl: Millis::seconds(60),
        challenges: Vec::new(),
    }
}

pub fn settings(data_dir: &Path, keys: KeyRing, promos: Vec<Promo>) -> Settings {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut node = config::Node::default();
    node.accounts.otp_delivery = OtpDelivery::Echo;
    node.writer.sweep_every = Millis::new(20);
    Settings {
        node_name: "test".to_owned(),
        publish_first: false,
        exclusive: true,
        listen: vec![any, any],
        admin: any,
        node,
        ledger: LedgerSettings::sqlite(data_dir, "ledger.db"),
        keys,
        operator_token: Secret::new(OPERATOR),
        webhook_secret: Secret::new(WEBHOOK),
        webhooks: vec![
            Webhook::new("acme", vec![Secret::new(ACME)], Millis::seconds(300)),
            Webhook::new(
                "bank",
                ROTATED.map(Secret::new).to_vec(),
                Millis::seconds(60),
            ),
        ],
        secure_cookies: false,
        catalog: vec![CatalogItem {
            id: ItemId(3),
            title: "Sneakers".to_owned(),
            price: "129.00".parse().unwrap(),
            stock: 100,
            description: "Fast.".to_owned(),
            img_url: "/resources/img/sneakers.svg".to_owned(),
        }],
        promos,
    }
}

/// The ledger of a shop, opened beside it.
pub async fn ledger_in(dir: &Path) -> Ledger {
    let settings = LedgerSettings::sqlite(dir, "ledger.db");
    Ledger::open(&settings).await.unwrap()
}

/// Asks until the answer is yes; each question is a real one.
pub async fn until(what: &str, question: impl AsyncFn() -> bool) {
    let asking = async {
        while !question().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let asked = tokio::time::timeout(PATIENCE, asking).await;
    asked.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

impl Shop {
    /// A shop with the usual promo, published.
    pub async fn open() -> Self {
        let shop = Self::with(vec![proposal()]).await;
        shop.publish(&proposal()).await;
        shop
    }

    pub async fn with(promos: Vec<Promo>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Embedded::open(
            &dir.path().join("engine.db"),
            Arc::new(SystemClock),
            Options::default(),
        );
        let home = Arc::new(engine.unwrap());
        let engine: SharedEngine = home.clone();
        let keys = KeyRing::new(vec![Key::new("k", &[7; 32]).unwrap()], "k").unwrap();
        let settings = settings(dir.path(), keys.clone(), promos);
        let running = start(settings, engine.clone()).await.unwrap();
        Self {
            dir,
            engine,
            home,
            running,
            keys,
            client: reqwest::Client::new(),
        }
    }

    pub async fn publish(&self, proposal: &Promo) {
        let (now, _) = self.engine.promos().await.unwrap();
        let request = Publish {
            promo: proposal.id,
            terms: proposal.terms(now),
            digest: proposal.digest(),
            only_first: true,
        };
        self.engine.publish(request).await.unwrap();
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.listen[0])
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method.parse().unwrap(), self.url(path))
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap();
        let body = serde_json::from_slice(&body)
            .unwrap_or_else(|_| panic!("{status}: {}", String::from_utf8_lossy(&body)));
        Answer {
            status,
            headers,
            body,
        }
    }

    pub async fn post(&self, path: &str, bearer: &str, body: &Value) -> Answer {
        self.send(self.request("POST", path).bearer_auth(bearer).json(body))
            .await
    }

    pub async fn get(&self, path: &str, bearer: &str) -> Answer {
        self.send(self.request("GET", path).bearer_auth(bearer))
            .await
    }

    /// Registers a number and signs it in.
    pub async fn buyer(&self, tel: &str) -> Buyer {
        let asked = self.post("/user/getotp", "", &json!({ "tel": tel })).await;
        let code = asked.data()["otp"].as_str().unwrap().to_owned();
        let user =
            json!({ "tel": tel, "otpCode": code, "name": "Ada", "password": "correct horse" });
        assert_eq!(self.post("/user/register", "", &user).await.status, 200);
        let login = json!({ "tel": tel, "password": "correct horse" });
        let signed_in = self.post("/user/login", "", &login).await;
        let token = signed_in.data()["token"].as_str().unwrap().to_owned();
        let now = engine::Clock::now(&SystemClock);
        let session = Session::verify(&token, &self.keys, now).unwrap();
        Buyer {
            tel: tel.to_owned(),
            token,
            session,
        }
    }

    /// Someone who is signed in without ever having registered: for crowds.
    pub async fn stranger(&self, id: i64) -> Buyer {
        let session = Session {
            buyer: BuyerId(id),
            id: Nonce(u128::from(id.unsigned_abs()).to_be_bytes()),
            expires_at: Timestamp(4_000_000_000_000),
        };
        self.engine.sign_in(session).await.unwrap();
        let token = session.mint(&self.keys).unwrap();
        Buyer {
            tel: String::new(),
            token,
            session,
        }
    }

    /// A place behind the door: the access token.
    pub async fn enter(&self, buyer: &Buyer, jti: u8) -> String {
        let entry = Entry {
            promo: PromoId(7),
            session: buyer.session,
            attempt: None,
            jti: Nonce([jti; 16]),
        };
        self.engine
            .enter(entry)
            .await
            .unwrap()
            .mint(&self.keys)
            .unwrap()
    }

    pub async fn create(&self, buyer: &Buyer, token: &str, key: &str, amount: i64) -> Answer {
        let body = json!({ "itemId": 3, "promoId": 7, "amount": amount, "token": token });
        let request = self
            .request("POST", "/order/create")
            .bearer_auth(&buyer.token);
        self.send(request.header("Idempotency-Key", key).json(&body))
            .await
    }

    /// An order that the ledger has.
    pub async fn order(&self, buyer: &Buyer, jti: u8, amount: i64) -> String {
        let token = self.enter(buyer, jti).await;
        let made = self
            .create(buyer, &token, &format!("key-{jti}"), amount)
            .await;
        assert_eq!(made.status, 202, "{}", made.body);
        let id = made.data()["orderId"].as_str().unwrap().to_owned();
        self.wait_for(buyer, &id, "written").await;
        id
    }

    pub async fn wait_for(&self, buyer: &Buyer, order: &str, state: &str) -> Value {
        let follow = async {
            loop {
                let answer = self
                    .get(&format!("/order/get?id={order}"), &buyer.token)
                    .await;
                if answer.data()["state"] == state {
                    return answer.data().clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, follow).await;
        waited.unwrap_or_else(|_| panic!("order {order} never was {state}"))
    }

    /// What Prometheus would scrape.
    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.running.admin);
        let answer = self.client.get(url).send().await.unwrap();
        answer.text().await.unwrap()
    }

    /// The audit's answer, once nothing is on its way any more.
    pub async fn audit(&self) -> Value {
        self.get("/admin/audit?promoId=7", OPERATOR)
            .await
            .data()
            .clone()
    }

    pub async fn ledger(&self) -> Ledger {
        ledger_in(self.dir.path()).await
    }

    /// Changes the ledger behind everyone's back.
    pub async fn tamper(&self, sql: &'static str) {
        let url = format!("sqlite:{}", self.dir.path().join("ledger.db").display());
        let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
        sqlx::query(sql).execute(&pool).await.unwrap();
        pool.close().await;
    }

    /// Stops it; returns what is left for looking at.
    pub async fn stop(self) -> (tempfile::TempDir, SharedEngine) {
        let Self {
            running,
            dir,
            engine,
            client,
            ..
        } = self;
        drop(client);
        running.stop(GRACE).await;
        (dir, engine)
    }
}
