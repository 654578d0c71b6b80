//! Bad input to every endpoint: the documented code and status, never a 500, never a panic.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::house::{House, Plan, answer, code, open_promo};

/// How a route is guarded before its fields are looked at.
#[derive(Clone, Copy, PartialEq)]
enum Guard {
    None,
    Session,
    Operator,
}

const POSTS: [(&str, Guard); 18] = [
    ("/user/getotp", Guard::None),
    ("/user/register", Guard::None),
    ("/user/login", Guard::None),
    ("/order/generateverifycode", Guard::Session),
    ("/order/generatetoken", Guard::Session),
    ("/order/create", Guard::Session),
    ("/order/pay", Guard::Session),
    ("/order/cancel", Guard::Session),
    ("/item/create", Guard::Operator),
    ("/item/update", Guard::Operator),
    ("/item/publishpromo", Guard::Operator),
    ("/admin/promo/pause", Guard::Operator),
    ("/admin/promo/resume", Guard::Operator),
    ("/admin/promo/close", Guard::Operator),
    ("/admin/promo/stock", Guard::Operator),
    ("/admin/deadletters/replay", Guard::Operator),
    ("/payment/webhook/demo", Guard::None),
    ("/user/logout", Guard::Session),
];

const GETS: [(&str, Guard); 10] = [
    ("/item/get", Guard::None),
    ("/item/list", Guard::None),
    ("/promo/state", Guard::None),
    ("/user/get", Guard::Session),
    ("/order/get", Guard::Session),
    ("/order/list", Guard::Session),
    ("/admin/promos", Guard::Operator),
    ("/admin/audit", Guard::Operator),
    ("/admin/refunds", Guard::Operator),
    ("/admin/deadletters", Guard::Operator),
];

/// Fields that no route accepts as they are: each value is wrong for each field.
const NAMES: [&str; 14] = [
    "id", "tel", "otpCode", "name", "password", "gender", "age", "promoId", "itemId", "amount",
    "token", "orderId", "kind", "title",
];

struct Asked<'a> {
    house: &'a House,
    session: &'a str,
}

impl Asked<'_> {
    fn bearer(&self, guard: Guard) -> Option<String> {
        match guard {
            Guard::None => None,
            Guard::Session => Some(self.session.to_owned()),
            Guard::Operator => Some(self.house.operator_token()),
        }
    }

    async fn post(
        &self,
        base: &str,
        path: &str,
        guard: Guard,
        kind: &str,
        body: Vec<u8>,
    ) -> (u16, Value) {
        let mut request = self.house.http.post(format!("{base}{path}")).body(body);
        if !kind.is_empty() {
            request = request.header("Content-Type", kind);
        }
        if let Some(bearer) = self.bearer(guard) {
            request = request.bearer_auth(bearer);
        }
        answer(
            request
                .send()
                .await
                .unwrap_or_else(|error| panic!("{error:?} (edge {})", self.house.edge)),
        )
        .await
    }

    async fn get(&self, base: &str, path: &str, guard: Guard) -> (u16, Value) {
        let mut request = self.house.http.get(format!("{base}{path}"));
        if let Some(bearer) = self.bearer(guard) {
            request = request.bearer_auth(bearer);
        }
        answer(request.send().await.unwrap()).await
    }
}

/// Asserts a client's fault: a fail envelope whose code and status belong together.
fn assert_refused(what: &str, (status, body): &(u16, Value)) {
    let expected = match code(body) {
        10001 => 400,
        10003 | 20001 => 404,
        10004 => 405,
        10005 => 413,
        10006 => 415,
        20002 | 20003 => 401,
        20004 | 20005 | 30004 | 30005 => 403,
        20006 | 30001 | 30003 | 30006 | 30007 | 30010 => 409,
        30011 => 422,
        other => panic!("{what}: code {other}, status {status}: {body}"),
    };
    assert_eq!(
        (*status, body["status"].as_str()),
        (expected, Some("fail")),
        "{what}: {body}"
    );
    assert!(
        body["data"]["errMsg"]
            .as_str()
            .is_some_and(|words| !words.is_empty()),
        "{what}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_refuses_what_is_bad() {
    let house = House::open(&Plan::new(&[open_promo(1, 5)]));
    let buyer = house.buyer().await;
    let asked = Asked {
        house: &house,
        session: &buyer.session,
    };
    let bases = [
        format!("http://{}", house.edge),
        format!("http://{}", house.orders[0]),
    ];
    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";

    for base in &bases {
        let at_edge = base.ends_with(&house.edge.port().to_string());
        for (path, guard) in POSTS {
            let edge_only = path.starts_with("/order/generate");
            if (edge_only && !at_edge) || path == "/user/logout" {
                continue;
            }
            let values = [
                "-1",
                "1.5",
                "1e30",
                "99999999999999999999",
                "true",
                "[1]",
                "{}",
                "null",
                "\"\\u0000\"",
                "\"\u{202e}x\"",
            ];
            for value in values {
                let fields: Vec<_> = NAMES
                    .iter()
                    .map(|name| format!("\"{name}\":{value}"))
                    .collect();
                let body = format!("{{{}}}", fields.join(",")).into_bytes();
                let what = format!("{base}{path} {value}");
                assert_refused(&what, &asked.post(base, path, guard, JSON, body).await);
            }
            let bodies: [(&str, Vec<u8>); 13] = [
                (JSON, b"".to_vec()),
                (JSON, b"{}".to_vec()),
                (JSON, b"[]".to_vec()),
                (JSON, b"{\"id\":1".to_vec()),
                (JSON, b"{\"id\":\"\xff\xfe\"}".to_vec()),
                (JSON, "[".repeat(8_000).into_bytes()),
                (
                    JSON,
                    format!("{{\"tel\":\"{}\"}}", "9".repeat(4_000)).into_bytes(),
                ),
                (FORM, b"".to_vec()),
                (FORM, b"id=%ff%fe&tel=%zz".to_vec()),
                (FORM, b"promoId=1&promoId=2".to_vec()),
                (FORM, b"a=1&".repeat(3_000)),
                ("text/xml", b"<id>1</id>".to_vec()),
                ("", b"id=1".to_vec()),
            ];
            for (kind, body) in bodies {
                let what = format!(
                    "{base}{path} {kind} {:?}",
                    String::from_utf8_lossy(&body[..body.len().min(40)])
                );
                assert_refused(&what, &asked.post(base, path, guard, kind, body).await);
            }
            let huge = asked
                .post(base, path, guard, JSON, vec![b' '; 100_000])
                .await;
            assert_eq!(
                (huge.0, code(&huge.1)),
                (413, 10005),
                "{base}{path}: {}",
                huge.1
            );
            if guard != Guard::None {
                let nobody = asked
                    .post(base, path, Guard::None, JSON, b"{}".to_vec())
                    .await;
                assert_eq!((nobody.0, code(&nobody.1)), (401, 20003), "{base}{path}");
            }
            // Wrong methods say which are right. The picture is also given by GET.
            for method in ["GET", "PUT", "DELETE", "PATCH", "BREW"] {
                if path == "/order/generateverifycode" && method == "GET" {
                    continue;
                }
                let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
                let mut request = house.http.request(method.clone(), format!("{base}{path}"));
                if let Some(bearer) = asked.bearer(guard) {
                    request = request.bearer_auth(bearer);
                }
                let response = request.send().await.unwrap();
                assert!(
                    response.headers().contains_key("allow"),
                    "{method} {base}{path}"
                );
                let refused = answer(response).await;
                assert_eq!(
                    (refused.0, code(&refused.1)),
                    (405, 10004),
                    "{method} {base}{path}"
                );
            }
        }
        for (path, guard) in GETS {
            if path == "/promo/state" && !at_edge {
                continue;
            }
            for query in [
                "",
                "?id=",
                "?id=-1",
                "?id=x",
                "?id=1.5",
                "?id=99999999999999999999",
                "?id=%ff",
                "?id=1&id=2",
                "?id=0",
            ] {
                let got = asked.get(base, &format!("{path}{query}"), guard).await;
                let what = format!("GET {base}{path}{query}");
                let plain = matches!(
                    path,
                    "/item/list"
                        | "/user/get"
                        | "/order/list"
                        | "/admin/promos"
                        | "/admin/audit"
                        | "/admin/refunds"
                        | "/admin/deadletters"
                );
                if plain && got.0 == 200 {
                    continue;
                }
                assert_refused(&what, &got);
            }
            let mut request = house.http.post(format!("{base}{path}"));
            if let Some(bearer) = asked.bearer(guard) {
                request = request.bearer_auth(bearer);
            }
            let response = request.send().await.unwrap();
            assert!(
                response.headers().contains_key("allow"),
                "POST {base}{path}"
            );
            assert_eq!(answer(response).await.0, 405, "POST {base}{path}");
        }
        for path in [
            "/nothing",
            "/order",
            "/item/get/1",
            "/resources/../Cargo.toml",
            "/resources/none.html",
            "/%00",
            "/metrics",
            "/running.json",
        ] {
            let got = asked.get(base, path, Guard::None).await;
            assert_eq!(
                (got.0, code(&got.1)),
                (404, 10003),
                "{base}{path}: {}",
                got.1
            );
        }
        let absent = asked.get(base, "/item/get?id=777", Guard::None).await;
        assert_eq!((absent.0, code(&absent.1)), (404, 10003));
    }
    let (_, foreign) = buyer.get("/order/get?id=1-1-999").await;
    assert_eq!(code(&foreign), 10003);
    assert!(!house.log().contains("panicked"), "{}", house.log());
    assert_eq!(buyer.get("/item/get?id=1").await.0, 200, "it still serves");
    house.assert_clean();
}

/// Bytes that no HTTP library would send.
#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_do_not_break_it() {
    let house =
        House::open(&Plan::new(&[open_promo(1, 5)]).edge("[edge.limits]\nread_timeout = \"1s\"\n"));
    let head = "POST /order/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let cases: [(&str, Vec<u8>); 9] = [
        ("garbage", b"\x16\x03\x01\x02\x00\x01\x00".to_vec()),
        ("no version", b"GET /\r\n\r\n".to_vec()),
        (
            "truncated body",
            format!("{head}Content-Length: 100\r\n\r\n{{\"itemId\"").into_bytes(),
        ),
        (
            "bad length",
            format!("{head}Content-Length: -5\r\n\r\n").into_bytes(),
        ),
        (
            "two lengths",
            format!("{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab").into_bytes(),
        ),
        (
            "bad chunk",
            format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n").into_bytes(),
        ),
        (
            "huge header",
            format!(
                "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
                "a".repeat(200_000)
            )
            .into_bytes(),
        ),
        (
            "many headers",
            format!(
                "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
                "A: b\r\n".repeat(5_000)
            )
            .into_bytes(),
        ),
        (
            "long url",
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000)).into_bytes(),
        ),
    ];
    for address in [house.edge, house.orders[0]] {
        for (what, bytes) in &cases {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            // The peer may close before it has read all of it.
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let read =
                tokio::time::timeout(crate::house::PATIENCE, stream.read_to_end(&mut answer));
            let _ = read
                .await
                .unwrap_or_else(|_| panic!("{what}: the connection stays open"));
            let answer = String::from_utf8_lossy(&answer);
            let status = answer.split(' ').nth(1).unwrap_or("400");
            assert!(status.starts_with('4'), "{what} at {address}: {answer}");
        }
    }
    assert!(!house.log().contains("panicked"), "{}", house.log());
    assert_eq!(
        house
            .http
            .get(house.url("/"))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}
