//! What order servers tell at once, and what they share: an item that was changed is nowhere served as it
//! was, and nothing is asked of the ledger while a copy is good.

use engine::{Cache as _, Signal};
use lua_free_rules::units::ItemId;
use serde_json::json;

use crate::harness::{OPERATOR, Shop, until};

#[tokio::test]
async fn an_item_that_was_changed_is_told_and_served_as_it_is_now() {
    let shop = Shop::open().await;
    let mut signals = shop.engine.listen();
    for _ in 0..3 {
        for path in ["/item/get?id=3", "/item/list"] {
            shop.get(path, "").await;
        }
    }
    let copies = shop.metrics().await;
    let line = "floodgate_backend_item_copies_total{outcome=\"hit\"} ";
    assert!(copies.contains(line), "{copies}");
    for price in ["11.00", "12.00", "13.00"] {
        let update = json!({ "id": 3, "price": price });
        let updated = shop.post("/item/update", OPERATOR, &update).await;
        assert_eq!(updated.data()["price"], price);
        assert_eq!(signals.recv().await.unwrap(), Signal::Item(ItemId(3)));
        let one = shop.get("/item/get?id=3", "").await;
        assert_eq!(one.data()["price"], price);
        let all = shop.get("/item/list", "").await;
        assert_eq!(all.data()[0]["price"], price);
    }
    let hat = json!({ "title": "Hat", "price": "12.50", "stock": 9 });
    let made = shop.post("/item/create", OPERATOR, &hat).await;
    let id = made.data()["id"].as_i64().unwrap();
    assert_eq!(signals.recv().await.unwrap(), Signal::Item(ItemId(id)));
    let all = shop.get("/item/list", "").await;
    assert_eq!(all.data().as_array().unwrap().len(), 2);
    shop.stop().await;
}

#[tokio::test]
async fn a_copy_that_cannot_be_read_is_none() {
    let shop = Shop::open().await;
    let ttl = std::time::Duration::from_secs(3_600);
    for (key, copy) in [("item:3", "{\"id\":"), ("items", "[{\"name\":1}]")] {
        let remembered = shop.home.remember(key, copy.as_bytes(), ttl).await;
        remembered.unwrap();
    }
    assert_eq!(
        shop.get("/item/get?id=3", "").await.data()["title"],
        "Sneakers"
    );
    let list = shop.get("/item/list", "").await;
    assert_eq!(list.data()[0]["title"], "Sneakers");
    shop.stop().await;
}

#[tokio::test]
async fn a_promo_that_was_steered_is_shown_so_at_once() {
    let shop = Shop::open().await;
    let list = async || {
        let item = shop.get("/item/get?id=3", "").await;
        item.data()["promoStatus"].clone()
    };
    assert_eq!(list().await, 2);
    for _ in 0..20 {
        assert_eq!(list().await, 2);
        let closed = shop.engine.control(
            lua_free_rules::units::PromoId(7),
            engine::Control::AddStock(1),
        );
        let stock = closed.await.unwrap().available;
        let item = shop.get("/item/get?id=3", "").await;
        assert_eq!(item.data()["stock"], stock);
    }
    shop.stop().await;
}

#[tokio::test]
async fn one_process_sweeps_and_says_so() {
    let shop = Shop::open().await;
    until("the sweeper", async || {
        let line = "floodgate_sweeper_has_lease 1\n";
        shop.metrics().await.contains(line)
    })
    .await;
    let (_dir, engine) = shop.stop().await;
    // Stopped in order, it gave the lease back.
    let ttl = std::time::Duration::from_secs(1);
    assert!(
        engine
            .lease("sweeper", "another", ttl)
            .await
            .unwrap()
            .is_some()
    );
}
