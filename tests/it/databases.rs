//! `floodgate run` on a database server: the same sale, whatever the ledger is kept in.

use floodgate_servers::{MariaDb, Postgres};
use serde_json::json;

use crate::house::{House, Plan, code, open_promo, until};

/// A server, and how it is ended and started again.
struct Server {
    url: String,
    password: &'static str,
    end: Box<dyn FnMut(bool) + Send>,
}

impl Server {
    fn mariadb() -> Self {
        let mut it = MariaDb::start();
        Self {
            url: it.fresh(),
            password: it.password(),
            end: Box::new(move |again| if again { it.restart() } else { it.kill() }),
        }
    }

    fn postgres() -> Self {
        let mut it = Postgres::start();
        Self {
            url: it.fresh(),
            password: it.password(),
            end: Box::new(move |again| if again { it.restart() } else { it.kill() }),
        }
    }

    fn kill(&mut self) {
        (self.end)(false);
    }

    fn restart(&mut self) {
        (self.end)(true);
    }
}

/// Orders are made, paid and cancelled; the process is killed; the database is killed: whoever has a
/// token still gets his order, paying has to wait, and nobody has to help afterwards.
async fn a_sale(mut server: Server) {
    let plan = Plan::new(&[open_promo(1, 10)]).database(&server.url, server.password);
    let mut house = House::open(&plan);
    let buyers = house.buyers(6).await;
    let paid = buyers[0].buy(1).await;
    buyers[0].pay(&paid).await;
    let cancelled = buyers[1].buy(1).await;
    buyers[1].until_state(&cancelled, "written").await;
    let ended = buyers[1]
        .post("/order/cancel", json!({ "orderId": cancelled }))
        .await;
    assert_eq!(ended.0, 200, "{}", ended.1);
    let written = buyers[2].buy(1).await;
    house.assert_clean();

    house.kill();
    house.start();
    let buyers: Vec<_> = buyers.iter().map(|buyer| buyer.at(&house)).collect();
    buyers[0].until_state(&paid, "paid").await;
    buyers[1].until_state(&cancelled, "cancelled").await;
    buyers[2].until_state(&written, "written").await;

    let tokens = [buyers[3].token(1).await, buyers[4].token(1).await];
    server.kill();
    let mut orders = Vec::new();
    for (buyer, token) in buyers[3..].iter().zip(&tokens) {
        let (status, body) = buyer.order(1, token, None).await;
        assert_eq!(status, 202, "{body}");
        orders.push(body["data"]["orderId"].as_str().unwrap().to_owned());
    }
    let (status, body) = buyers[2]
        .post("/order/pay", json!({ "orderId": written }))
        .await;
    assert_eq!((status, code(&body)), (503, 30008), "{body}");
    server.restart();
    for (buyer, order) in buyers[3..].iter().zip(&orders) {
        buyer.until_state(order, "written").await;
    }
    until("the payment to be taken", || async {
        let (status, _) = buyers[2]
            .post("/order/pay", json!({ "orderId": written }))
            .await;
        (status == 200).then_some(())
    })
    .await;
    house.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_on_mariadb() {
    a_sale(Server::mariadb()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_on_postgres() {
    a_sale(Server::postgres()).await;
}

#[test]
fn a_password_that_is_missing_is_said_before_anything_starts() {
    let server = Postgres::start();
    let plan = Plan::new(&[open_promo(1, 10)]).database(&server.fresh(), server.password());
    let mut house = House::open(&plan);
    house.stop_by("TERM");
    let file = house.config().join("database.password");
    for wrong in [Some("\n"), None] {
        match wrong {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let output = house.floodgate(&["run"]);
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{words}");
        assert!(words.contains("password"), "{words}");
    }
}
