//! The whole purchase in a real browser: registration, countdown, challenge, order, payment.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::json;

use crate::house::{House, PATIENCE, Plan, promo, until};

/// A headless Chromium behind its driver, both ended with the test.
struct Browser {
    driver: Child,
    client: Client,
    _profile: tempfile::TempDir,
}

impl Browser {
    async fn open(width: u32) -> Self {
        // A port that was free a moment ago; the driver takes no listener from us.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed by `make test`");
        let profile = tempfile::tempdir().unwrap();
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            format!("--window-size={width},900"),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        let options = json!({ "goog:chromeOptions": { "args": arguments } });
        let address = format!("http://127.0.0.1:{port}");
        let client = until("the browser to start", || async {
            let mut builder = ClientBuilder::new(hyper_connector());
            builder.capabilities(options.as_object().unwrap().clone());
            builder.connect(&address).await.ok()
        })
        .await;
        Self {
            driver,
            client,
            _profile: profile,
        }
    }

    async fn fill(&self, id: &str, text: &str) {
        let field = self
            .client
            .wait()
            .at_most(PATIENCE)
            .for_element(Locator::Id(id))
            .await
            .unwrap();
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Clicks once the element can be clicked.
    async fn click(&self, id: &str) {
        until(&format!("#{id} to be clickable"), || async {
            let element = self.client.find(Locator::Id(id)).await.ok()?;
            if !element.is_enabled().await.ok()? || !element.is_displayed().await.ok()? {
                return None;
            }
            element.click().await.ok()
        })
        .await;
    }

    /// Waits until the attribute of an element has that value.
    async fn until_attribute(&self, id: &str, attribute: &str, value: &str) {
        until(&format!("#{id} to be {value}"), || async {
            let element = self.client.find(Locator::Id(id)).await.ok()?;
            (element.attr(attribute).await.ok()?.as_deref() == Some(value)).then_some(())
        })
        .await;
    }

    async fn value(&self, id: &str) -> Option<String> {
        self.client
            .find(Locator::Id(id))
            .await
            .ok()?
            .prop("value")
            .await
            .ok()?
    }

    /// A picture of the page, kept where FLOODGATE_SCREENSHOTS says, if it says so.
    async fn picture(&self, name: &str) {
        let png = self.client.screenshot().await.unwrap();
        assert!(png.starts_with(b"\x89PNG"));
        if let Some(folder) = std::env::var_os("FLOODGATE_SCREENSHOTS") {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(
                std::path::Path::new(&folder).join(format!("{name}.png")),
                png,
            )
            .unwrap();
        }
    }

    async fn register_and_sign_in(&self, house: &House, tel: &str) {
        self.client
            .goto(&house.url("/resources/register.html"))
            .await
            .unwrap();
        self.fill("tel", tel).await;
        self.click("otp-send").await;
        until("the code to be filled in", || async {
            self.value("otp-code").await.filter(|code| code.len() == 6)
        })
        .await;
        self.fill("name", "Ada").await;
        self.fill("password", "a long enough password").await;
        self.fill("age", "36").await;
        self.picture("1-register").await;
        self.click("register-submit").await;
        until("to be signed in", || async {
            let path = self.client.current_url().await.ok()?.path().to_owned();
            (path == "/" || path.ends_with("listItem.html")).then_some(())
        })
        .await;
    }

    async fn close(self) {
        let _ = self.client.clone().close().await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Also when a test has failed half-way; the driver takes its browser with it.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn hyper_connector() -> hyper_util::client::legacy::connect::HttpConnector {
    hyper_util::client::legacy::connect::HttpConnector::new()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_registration_to_a_paid_order() {
    let sale = promo(
        1,
        5,
        "starts_in = \"20s\"",
        "challenge = [\"altcha\", \"image\"]\nper_buyer = 2",
    );
    let house = House::open(&Plan::new(&[sale]));
    let browser = Browser::open(1200).await;
    browser.register_and_sign_in(&house, "+491701234567").await;
    browser.picture("2-list").await;

    browser
        .client
        .goto(&house.url("/resources/item.html?id=1"))
        .await
        .unwrap();
    browser
        .until_attribute("phase", "data-phase", "upcoming")
        .await;
    browser.picture("3-countdown").await;
    browser.until_attribute("phase", "data-phase", "live").await;
    browser.picture("4-live").await;
    browser.click("buy").await;
    browser
        .until_attribute("order-state", "data-state", "written")
        .await;
    browser.picture("5-written").await;
    browser.click("pay").await;
    browser
        .until_attribute("order-state", "data-state", "paid")
        .await;
    browser.picture("6-paid").await;

    // Back on the item's page one more may be bought, and the order list shows the first.
    browser
        .client
        .goto(&house.url("/resources/order.html"))
        .await
        .unwrap();
    until("the order to be listed", || async {
        browser
            .client
            .source()
            .await
            .ok()?
            .contains("1-1-1")
            .then_some(())
    })
    .await;
    browser.picture("7-orders").await;
    browser.click("logout").await;
    browser.close().await;
    house.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_phone_with_a_picture_to_read_and_a_wrong_code() {
    let sale = promo(1, 5, "starts_in = \"0s\"", "challenge = [\"image\"]");
    let house = House::open(&Plan::new(&[sale]));
    let browser = Browser::open(390).await;
    browser.register_and_sign_in(&house, "+491707654321").await;
    browser
        .client
        .goto(&house.url("/resources/item.html?id=1"))
        .await
        .unwrap();
    browser.until_attribute("phase", "data-phase", "live").await;
    browser.click("buy").await;
    browser.picture("8-phone-challenge").await;
    // Each wrong code spends its picture; after three the page says so and waits.
    for attempt in 1..=3 {
        browser.fill("challenge-answer", "?????").await;
        browser.click("challenge-submit").await;
        until("the page to say that the code was wrong", || async {
            let status = browser.client.find(Locator::Id("status")).await.ok()?;
            let (class, text) = (status.attr("class").await.ok()?, status.text().await.ok()?);
            let told = if attempt < 3 {
                text.contains("another try")
            } else {
                class.as_deref() == Some("bad")
            };
            told.then_some(())
        })
        .await;
    }
    browser.picture("9-phone-wrong-code").await;
    browser.close().await;
    house.assert_clean();
}
