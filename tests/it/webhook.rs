//! A payment provider's calls, from the configuration's secret files through the edge to the books.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::house::{House, Plan, answer, code, open_promo, until};

const NOW: &str = "a secret of acme, in use";
const BEFORE: &str = "a secret of acme, before";

/// A house that knows the provider `acme` by two secrets.
fn house(secrets: &std::path::Path) -> House {
    let (now, before) = (secrets.join("now"), secrets.join("before"));
    std::fs::write(&now, format!("{NOW}\n")).unwrap();
    std::fs::write(&before, BEFORE).unwrap();
    House::open(&Plan::new(&[open_promo(1, 10)]).tables(&format!(
        "[payment]\ndemo = false\n\n[[payment.provider]]\nname = \"acme\"\n\
         secret_file = {now:?}\nprevious_secret_file = {before:?}\n"
    )))
}

/// What the provider tells the edge.
async fn tell(house: &House, provider: &str, secret: &str, notice: &Value) -> (u16, Value) {
    let (time, body) = (SystemTime::now(), notice.to_string());
    let time = time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{time}.{body}").as_bytes());
    let digest = mac.finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let request = house
        .http
        .post(house.url(&format!("/payment/webhook/{provider}")))
        .header("floodgate-signature", format!("t={time},v1={hex}"))
        .header("content-type", "application/json")
        .body(body);
    answer(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_known_by_its_secret_files() {
    let secrets = tempfile::tempdir().unwrap();
    let house = house(secrets.path());
    for (payment, secret) in [("p1", NOW), ("p2", BEFORE)] {
        let buyer = house.buyer().await;
        let order = buyer.buy(1).await;
        let notice = json!({
            "event": "paid", "paymentId": payment, "orderId": order, "amount": "99.00",
        });
        let forged = tell(&house, "acme", "a secret that was guessed", &notice).await;
        assert_eq!((forged.0, code(&forged.1)), (403, 20004));
        // As a provider does: until it is taken.
        let taken = until("the payment to be taken", || async {
            let (status, body) = tell(&house, "acme", secret, &notice).await;
            assert!([200, 409].contains(&status), "{status} {body}");
            (status == 200).then_some(body)
        });
        assert_eq!(taken.await["data"]["payment"], "accepted");
        let (_, shown) = buyer.get(&format!("/order/get?id={order}")).await;
        assert_eq!(shown["data"]["state"], "paid");
    }
    // The demo is off: neither its webhook nor its button is there.
    let demo = tell(&house, "demo", NOW, &json!({ "event": "paid" })).await;
    assert_eq!((demo.0, code(&demo.1)), (404, 10003));

    let audit = house.floodgate(&["audit", "--wait", "30s"]);
    let words = String::from_utf8(audit.stdout).unwrap();
    assert!(audit.status.success(), "{words}");
    let payments = "payments: 2 accepted, 0 of them late with units left; 0 late and not settled; \
                    0 refund due, 0 orders refund due";
    assert!(words.contains(payments), "{words}");
}

#[test]
fn a_provider_without_a_good_secret_keeps_the_house_shut() {
    let secrets = tempfile::tempdir().unwrap();
    let mut house = house(secrets.path());
    house.stop_by("TERM");
    let file = secrets.path().join("before");
    for (secret, told) in [
        (Some("too short"), "fewer than 16 characters"),
        (None, "cannot read the secret"),
    ] {
        match secret {
            Some(secret) => std::fs::write(&file, secret).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let refused = house.floodgate(&["run"]);
        let words = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(64), "{words}");
        assert!(words.contains(told) && words.contains("before"), "{words}");
    }
}
