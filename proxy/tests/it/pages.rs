//! Pages: encodings, ETags, HEAD, and what is not a page.

use reqwest::StatusCode;

use crate::harness::{Plan, refusal};
use crate::wire::Wire;

#[tokio::test]
async fn a_page_is_sent_once_and_then_only_confirmed() {
    let shop = Plan::new(&[]).start().await;
    let first = shop.get("/").send().await.unwrap();
    assert_eq!(first.status(), StatusCode::OK);
    let head = first.headers().clone();
    assert_eq!(head["content-type"], "text/html; charset=utf-8");
    assert_eq!(head["cache-control"], "no-cache");
    assert_eq!(head["x-content-type-options"], "nosniff");
    assert!(head.contains_key("content-security-policy"));
    assert!(head.contains_key("referrer-policy"));
    assert!(head.contains_key("date"));
    let again = shop
        .get("/resources/listItem.html")
        .header("if-none-match", &head["etag"]);
    let again = again.send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(again.headers()["etag"], head["etag"]);
}

#[tokio::test]
async fn each_encoding_is_smaller_and_has_its_own_tag() {
    let shop = Plan::new(&[]).start().await;
    let plain = shop.get("/").send().await.unwrap();
    let (plain_tag, plain_body) = (
        plain.headers()["etag"].clone(),
        plain.bytes().await.unwrap(),
    );
    for coding in ["br", "gzip"] {
        let zipped = shop.get("/").header("accept-encoding", coding);
        let zipped = zipped.send().await.unwrap();
        assert_eq!(zipped.headers()["content-encoding"], coding);
        assert_eq!(zipped.headers()["vary"], "accept-encoding");
        assert_ne!(zipped.headers()["etag"], plain_tag);
        assert!(zipped.bytes().await.unwrap().len() < plain_body.len());
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body_and_the_connection_goes_on() {
    let shop = Plan::new(&[]).start().await;
    let mut wire = Wire::connect(shop.edge.listen).await;
    let head = wire.ask("HEAD /").await;
    let get = wire.ask("GET /").await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), get.header("content-length"));
    assert_eq!(
        get.body.len().to_string(),
        get.header("content-length").unwrap()
    );
}

#[tokio::test]
async fn folders_are_served_and_secrets_are_not() {
    let shop = Plan::new(&[]).start().await;
    let script = shop.get("/resources/js/a.js").send().await.unwrap();
    assert_eq!(
        script.headers()["content-type"],
        "text/javascript; charset=utf-8"
    );
    for path in [
        "/resources/.secret",
        "/resources/js",
        "/resources/none.html",
        "/else",
    ] {
        let answer = refusal(shop.get(path)).await;
        assert_eq!(answer, (StatusCode::NOT_FOUND, 10003), "{path}");
    }
    let mut wire = Wire::connect(shop.edge.listen).await;
    for path in ["/resources/../engine.db", "/resources/%2e%2e/engine.db"] {
        assert_eq!(wire.ask(&format!("GET {path}")).await.status, 404, "{path}");
    }
}
