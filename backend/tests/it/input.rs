//! Bad input to every endpoint: the documented code and status, never a 500.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{OPERATOR, Shop};

const POSTS: [&str; 16] = [
    "/user/getotp",
    "/user/register",
    "/user/login",
    "/user/logout",
    "/item/create",
    "/item/update",
    "/item/publishpromo",
    "/order/create",
    "/order/pay",
    "/order/cancel",
    "/payment/webhook/demo",
    "/admin/promo/pause",
    "/admin/promo/resume",
    "/admin/promo/close",
    "/admin/promo/stock",
    "/admin/deadletters/replay",
];
const GETS: [&str; 10] = [
    "/user/get",
    "/item/list",
    "/item/get",
    "/order/get",
    "/order/list",
    "/admin/promos",
    "/admin/audit",
    "/admin/log",
    "/admin/refunds",
    "/admin/deadletters",
];

/// Paths whose body is read as fields.
fn takes_fields(path: &str) -> bool {
    ![
        "/user/logout",
        "/item/publishpromo",
        "/payment/webhook/demo",
    ]
    .contains(&path)
}

#[tokio::test]
async fn methods_and_paths() {
    let shop = Shop::open().await;
    for (paths, wrong, allow) in [
        (&POSTS[..], "GET", "POST"),
        (&GETS[..], "POST", "GET, HEAD"),
    ] {
        for path in paths {
            for method in [wrong, "DELETE", "BREW"] {
                let answer = shop.send(shop.request(method, path)).await;
                assert_eq!(
                    (answer.status, answer.code()),
                    (405, 10004),
                    "{method} {path}"
                );
                assert_eq!(answer.header("allow"), allow);
            }
        }
    }
    for path in [
        "/",
        "/user",
        "/user/get/",
        "/order/create/x",
        "/%ff",
        "/payment/webhook/%ff",
    ] {
        let answer = shop.send(shop.request("POST", path)).await;
        assert_eq!((answer.status, answer.code()), (404, 10003), "{path}");
    }
    assert_eq!(shop.get("/live", "").await.status, 200);
    let head = shop.request("HEAD", "/item/list").send().await.unwrap();
    assert_eq!(head.status(), 200);
    shop.stop().await;
}

#[tokio::test]
async fn bodies() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    for path in POSTS.into_iter().filter(|path| takes_fields(path)) {
        let operator = path.starts_with("/admin") || path.starts_with("/item");
        let bearer = if operator {
            OPERATOR
        } else {
            ada.token.as_str()
        };
        let json = "application/json";
        let form = "application/x-www-form-urlencoded";
        let text = |words: &str| words.as_bytes().to_vec();
        let huge = format!("{{\"tel\":\"{}\"}}", "1".repeat(20_000)).into_bytes();
        for (kind, body, expected) in [
            (Some(json), text("{"), (400, 10001)),
            (Some(json), text("[1]"), (400, 10001)),
            (Some(json), text("\"x\""), (400, 10001)),
            (Some(json), b"{\"tel\":\"\xff\"}".to_vec(), (400, 10001)),
            (Some(json), "[".repeat(9_000).into_bytes(), (400, 10001)),
            (Some(form), text("tel=%ff"), (400, 10001)),
            (Some(form), text("a=1&a=2"), (400, 10001)),
            (Some("text/xml"), text("<a/>"), (415, 10006)),
            (Some("\u{e4}"), text("{}"), (415, 10006)),
            (None, text("{}"), (415, 10006)),
            (Some(json), huge, (413, 10005)),
        ] {
            let mut request = shop
                .request("POST", path)
                .bearer_auth(bearer)
                .body(body.clone());
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            let answer = shop.send(request).await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(30)]);
            assert_eq!(
                (answer.status, answer.code()),
                expected,
                "{path} {kind:?} {shown}"
            );
        }
        for field in [
            json!(null),
            json!(-1),
            json!(1.5),
            json!([]),
            json!({}),
            json!("\u{0}"),
            json!(true),
        ] {
            let body = json!({
                "tel": field, "otpCode": field, "name": field, "password": field, "itemId": field,
                "promoId": field, "orderId": field, "id": field, "amount": field, "token": field,
                "title": field, "price": field, "stock": field, "imgUrl": field,
            });
            let answer = shop.post(path, bearer, &body).await;
            assert_eq!(
                (answer.status, answer.code()),
                (400, 10001),
                "{path} {body}"
            );
        }
    }
    shop.stop().await;
}

#[tokio::test]
async fn fields_out_of_range() {
    let shop = Shop::open().await;
    let ada = shop.buyer("10001").await;
    let register = |field: &str, value: serde_json::Value| {
        let mut body = json!({
            "tel": "10002", "otpCode": "123456", "name": "Eve", "password": "12345678",
        });
        body[field] = value;
        ("/user/register", ada.token.as_str(), body)
    };
    let order = json!({ "itemId": 3, "promoId": 7, "token": "x" });
    for ((path, bearer, body), code) in [
        (register("tel", json!("123")), 10001),
        (register("password", json!("short")), 10001),
        (register("password", json!("x".repeat(129))), 10001),
        (register("gender", json!(3)), 10001),
        (register("age", json!(151)), 10001),
        (register("name", json!("x".repeat(101))), 10001),
        (register("age", json!("36")), 20005),
        (
            ("/user/getotp", "", json!({ "tel": "not a number" })),
            10001,
        ),
        (("/order/create", "", order.clone()), 20003),
        (("/order/create", "x.y.z", order.clone()), 20003),
        (("/order/create", &ada.token, order), 30005),
        (
            (
                "/order/create",
                &ada.token,
                json!({ "itemId": 3, "promoId": 7 }),
            ),
            30005,
        ),
        (
            ("/order/pay", &ada.token, json!({ "orderId": "7-1" })),
            10001,
        ),
        (
            ("/order/pay", &ada.token, json!({ "orderId": "7-1-1" })),
            10003,
        ),
        (("/item/update", OPERATOR, json!({ "id": 99 })), 10003),
        (
            (
                "/item/create",
                OPERATOR,
                json!({ "title": "x", "price": "1", "stock": -1 }),
            ),
            10001,
        ),
        (
            (
                "/item/create",
                OPERATOR,
                json!({ "title": "x", "price": "1.999", "stock": 1 }),
            ),
            10001,
        ),
        (("/item/create", &ada.token, json!({})), 20004),
    ] {
        let answer = shop.post(path, bearer, &body).await;
        assert_eq!(answer.code(), code, "{path} {body}");
    }
    for (path, code) in [
        ("/item/get", 10001),
        ("/item/get?id=x", 10001),
        ("/item/get?id=1&id=2", 10001),
        ("/item/get?id=99999999999999999999", 10001),
        ("/item/get?id=99", 10003),
        ("/order/get", 10001),
        ("/order/get?id=%ff", 10001),
        ("/order/get?id=7-1-999999", 10003),
        ("/order/get?id=8-1-1", 10003),
        ("/user/get", 0),
    ] {
        let answer = shop.get(path, &ada.token).await;
        let expected = if code == 0 { 200 } else { 400 };
        assert!(answer.status == expected || answer.status == 404, "{path}");
        if code != 0 {
            assert_eq!(answer.code(), code, "{path}");
        }
    }
    for key in ["", "a b", "\u{e4}"] {
        let token = shop.enter(&ada, 1).await;
        let answer = shop.create(&ada, &token, key, 1).await;
        assert_eq!((answer.status, answer.code()), (400, 10001), "{key:?}");
    }
    shop.stop().await;
}

#[tokio::test]
async fn a_body_that_is_cut_off_harms_nobody() {
    let shop = Shop::open().await;
    for head in [
        "POST /user/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{\"tel\":",
        "POST /user/login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffff\r\n",
        "POST /user/login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "NONSENSE\r\n\r\n",
    ] {
        let mut raw = tokio::net::TcpStream::connect(shop.running.listen[0])
            .await
            .unwrap();
        raw.write_all(head.as_bytes()).await.unwrap();
        raw.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _may_be_reset = raw.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    assert_eq!(shop.get("/live", "").await.status, 200);
    shop.stop().await;
}
