//! kill -9 and restart: what was accepted is there, once.

use futures_util::future::join_all;

use crate::house::{House, Plan, open_promo, promo};

#[tokio::test(flavor = "multi_thread")]
async fn accepted_orders_survive_kill_9() {
    let mut house = House::open(&Plan::new(&[open_promo(1, 30)]));
    let buyers = house.buyers(40).await;
    let tokens = join_all(buyers.iter().map(|buyer| buyer.token(1))).await;

    // Orders are on their way while the process is killed; each answer is noted if it came.
    let mut accepted = Vec::new();
    let mut sending = tokio::task::JoinSet::new();
    for (buyer, token) in buyers.iter().zip(&tokens) {
        let request = buyer
            .request(
                "/order/create",
                serde_json::json!({ "itemId": 1, "promoId": 1, "amount": 1, "token": token }),
            )
            .header("Idempotency-Key", "k");
        let tel = buyer.tel.clone();
        sending.spawn(async move {
            let response = request.send().await.ok()?;
            let accepted = response.status() == 202;
            let body: serde_json::Value = response.json().await.ok()?;
            accepted.then(|| {
                (
                    tel,
                    body["data"]["orderId"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                )
            })
        });
    }
    while accepted.len() < 10 {
        accepted.extend(
            sending
                .join_next()
                .await
                .expect("more than ten are accepted")
                .unwrap(),
        );
    }
    house.kill();
    while let Some(done) = sending.join_next().await {
        accepted.extend(done.unwrap());
    }

    house.start();
    for (tel, order) in &accepted {
        let buyer = buyers
            .iter()
            .find(|buyer| buyer.tel == *tel)
            .unwrap()
            .at(&house);
        buyer.until_state(order, "written").await;
    }
    // Everyone sends his request again: those who had an order get the same one.
    let again = join_all(buyers.iter().zip(&tokens).map(|(buyer, token)| {
        let buyer = buyer.at(&house);
        async move { (buyer.tel.clone(), buyer.order(1, token, Some("k")).await) }
    }))
    .await;
    let mut won = 0;
    for (tel, (status, body)) in &again {
        let had = accepted.iter().find(|(other, _)| other == tel);
        match had {
            Some((_, order)) => assert_eq!(
                (*status, body["data"]["orderId"].as_str()),
                (202, Some(order.as_str()))
            ),
            None => assert!(*status == 202 || *status == 409, "{status} {body}"),
        }
        won += usize::from(*status == 202);
    }
    assert_eq!(won, 30, "exactly the stock is sold, across the crash");
    house.assert_clean();

    // Stopped in peace, the files audit as clean as the process did.
    let (exit, _) = house.stop_by("TERM");
    assert_eq!(exit, Some(0));
    house.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_neither_publishes_again_nor_signs_out() {
    let mut house = House::open(&Plan::new(&[promo(1, 5, "starts_in = \"0s\"", "")]));
    let buyer = house.buyer().await;
    let order = buyer.buy(1).await;
    buyer.pay(&order).await;
    for signal in ["TERM", "INT"] {
        let (exit, took) = house.stop_by(signal);
        assert_eq!(exit, Some(0), "{}", house.log());
        assert!(
            took < std::time::Duration::from_secs(20),
            "nothing was in flight: {took:?}"
        );
        house.start();
    }
    let buyer = buyer.at(&house);
    buyer.until_state(&order, "paid").await;
    let (_, item) = buyer.get("/item/get?id=1").await;
    assert_eq!(item["data"]["stock"], 4, "{item}");
    house.assert_clean();
}
