//! A buyer who uses the public HTTP API as a client program would.

use serde_json::{Value, json};

use crate::house::{Shop, answer, code, until};

/// A registered, signed-in buyer.
#[derive(Clone)]
pub struct Buyer {
    http: reqwest::Client,
    base: String,
    pub tel: String,
    pub session: String,
}

/// The password of every test buyer.
pub const PASSWORD: &str = "correct horse battery";

impl Buyer {
    pub async fn register(shop: &impl Shop, tel: &str) -> Self {
        let mut buyer = Self {
            http: shop.http().clone(),
            base: format!("http://{}", shop.edge()),
            tel: tel.to_owned(),
            session: String::new(),
        };
        let (status, body) = buyer.post("/user/getotp", json!({ "tel": tel })).await;
        assert_eq!(status, 200, "{body}");
        let otp = body["data"]["otp"]
            .as_str()
            .expect("the code is echoed")
            .to_owned();
        let form = json!({ "tel": tel, "otpCode": otp, "name": "A Buyer", "password": PASSWORD, "gender": 0, "age": 30 });
        let (status, body) = buyer.post("/user/register", form).await;
        assert_eq!(status, 200, "{body}");
        buyer.sign_in().await;
        buyer
    }

    pub async fn sign_in(&mut self) {
        let form = json!({ "tel": self.tel, "password": PASSWORD });
        let (status, body) = self.post("/user/login", form).await;
        assert_eq!(status, 200, "{body}");
        self.session = body["data"]["token"].as_str().unwrap().to_owned();
    }

    /// The same buyer at another address of the same shop: another edge, or the same one after a restart.
    pub fn at(&self, shop: &impl Shop) -> Self {
        Self {
            base: format!("http://{}", shop.edge()),
            ..self.clone()
        }
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let request = self
            .http
            .get(format!("{}{path}", self.base))
            .bearer_auth(&self.session);
        answer(request.send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        answer(self.request(path, body).send().await.unwrap()).await
    }

    pub fn request(&self, path: &str, body: Value) -> reqwest::RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.base)).json(&body);
        if self.session.is_empty() {
            request
        } else {
            request.bearer_auth(&self.session)
        }
    }

    /// Asks for an access token where no challenge is asked for: status and body.
    pub async fn ask(&self, promo: i64) -> (u16, Value) {
        self.post(
            "/order/generatetoken",
            json!({ "promoId": promo, "itemId": 1 }),
        )
        .await
    }

    /// An access token.
    pub async fn token(&self, promo: i64) -> String {
        let (status, body) = self.ask(promo).await;
        assert_eq!(status, 200, "{body}");
        body["data"]["token"].as_str().unwrap().to_owned()
    }

    /// Sends an order: status and body.
    pub async fn order(&self, promo: i64, token: &str, key: Option<&str>) -> (u16, Value) {
        self.order_of(
            json!({ "itemId": 1, "promoId": promo, "amount": 1, "token": token }),
            key,
        )
        .await
    }

    pub async fn order_of(&self, body: Value, key: Option<&str>) -> (u16, Value) {
        let mut request = self.request("/order/create", body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        answer(request.send().await.unwrap()).await
    }

    /// Token and order in one go; the order's id.
    pub async fn buy(&self, promo: i64) -> String {
        let token = self.token(promo).await;
        let (status, body) = self.order(promo, &token, None).await;
        assert_eq!(status, 202, "{body}");
        body["data"]["orderId"].as_str().unwrap().to_owned()
    }

    /// Waits until the order is in that state.
    pub async fn until_state(&self, order: &str, state: &str) -> Value {
        until(&format!("order {order} to be {state}"), || async {
            let (status, body) = self.get(&format!("/order/get?id={order}")).await;
            (status == 200 && body["data"]["state"] == state).then(|| body["data"].clone())
        })
        .await
    }

    /// Pays, waiting until the order is written.
    pub async fn pay(&self, order: &str) -> Value {
        until(&format!("order {order} to be paid"), || async {
            let (status, body) = self.post("/order/pay", json!({ "orderId": order })).await;
            assert!(status == 200 || code(&body) == 30010, "{status} {body}");
            (status == 200).then(|| body["data"].clone())
        })
        .await
    }
}
