//! TLS ended at the edge, with HTTP/2 by ALPN; and certificates that cannot serve.

use lua_free_rules::challenge::Kind;
use lua_free_rules::config::Tls;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::ALPN;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use rcgen::CertifiedKey;
use serde_json::json;

use crate::harness::{ITEM, PROMO, Plan, Shop, access, cookie, keys, session};
use crate::peer::{Mode, Peer};

fn certificate(folder: &std::path::Path, name: &str) -> Tls {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let path = |kind: &str| folder.join(format!("{name}.{kind}")).display().to_string();
    let tls = Tls {
        certificate: path("crt"),
        key: path("key"),
    };
    std::fs::write(&tls.certificate, cert.pem()).unwrap();
    std::fs::write(&tls.key, signing_key.serialize_pem()).unwrap();
    tls
}

/// What is asked, over a connection of its own.
struct Asked {
    method: &'static str,
    path: &'static str,
    body: String,
}

impl Asked {
    fn get(path: &'static str) -> Self {
        Self {
            method: "GET",
            path,
            body: String::new(),
        }
    }

    async fn of(&self, shop: &Shop, alpn: ALPN) -> (bool, pingora::http::ResponseHeader) {
        let connector: Connector = Connector::new(None);
        let mut peer = HttpPeer::new(shop.edge.listen, true, "localhost".to_owned());
        peer.options.verify_cert = false;
        peer.options.verify_hostname = false;
        peer.options.alpn = alpn;
        let (mut http, _) = connector.get_http_session(&peer).await.unwrap();
        let mut request = RequestHeader::build(self.method, self.path.as_bytes(), None).unwrap();
        request.insert_header("host", "localhost").unwrap();
        request.insert_header("accept", "image/*").unwrap();
        request.append_header("cookie", "other=1").unwrap();
        let session = cookie(session(1));
        let is_h2 = matches!(http, HttpSession::H2(_));
        if is_h2 {
            request.append_header("cookie", session).unwrap();
        } else {
            request.insert_header("cookie", session).unwrap();
        }
        if !self.body.is_empty() {
            request
                .insert_header("content-type", "application/json")
                .unwrap();
            request
                .insert_header("content-length", self.body.len())
                .unwrap();
        }
        http.write_request_header(Box::new(request)).await.unwrap();
        if !self.body.is_empty() {
            let body = self.body.clone().into();
            http.write_request_body(body, true).await.unwrap();
        }
        http.finish_request_body().await.unwrap();
        http.read_response_header().await.unwrap();
        (is_h2, http.response_header().unwrap().clone())
    }
}

#[tokio::test]
async fn tls_speaks_both_versions_and_marks_cookies_secure() {
    let files = tempfile::tempdir().unwrap();
    let mut plan = Plan::new(&[]);
    plan.challenges = vec![Kind::Image];
    plan.edge.tls = Some(certificate(files.path(), "a"));
    let shop = plan.start().await;
    for (alpn, h2) in [(ALPN::H2, true), (ALPN::H1, false)] {
        let (is_h2, answer) = Asked::get("/").of(&shop, alpn).await;
        assert_eq!((is_h2, answer.status.as_u16()), (h2, 200));
        assert!(answer.headers.contains_key("etag"));
        let https_only = &answer.headers["strict-transport-security"];
        assert_eq!(https_only, "max-age=31536000");
    }
    let picture = Asked::get("/order/generateverifycode?promoId=7");
    let (_, picture) = picture.of(&shop, ALPN::H2).await;
    let cookie = picture.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.ends_with("; Secure"), "{cookie}");
}

/// HTTP/1.1 on TLS takes the fast path, HTTP/2 does not.
#[tokio::test]
async fn both_versions_are_answered_alike() {
    let files = tempfile::tempdir().unwrap();
    let peer = Peer::start().await;
    let mut plan = Plan::new(&[&peer]);
    plan.edge.tls = Some(certificate(files.path(), "a"));
    let shop = plan.start().await;
    let mut asked: Vec<Asked> = [
        "/",
        "/resources/none.html",
        "/item/get?id=3",
        "/item/list",
        "/item/get?id=x",
        "/promo/state?id=7",
        "/nothing",
        "/order/create",
        "/order/get?id=7-1-1",
        "/admin/x",
    ]
    .map(Asked::get)
    .into();
    for path in ["/order/generatetoken", "/order/create", "/order/pay", "/"] {
        asked.push(Asked {
            method: "POST",
            path,
            body: json!({"itemId": ITEM, "promoId": 9, "token": "none"}).to_string(),
        });
    }
    for asked in asked {
        let mut answers = Vec::new();
        for alpn in [ALPN::H2, ALPN::H1] {
            let (_, answer) = asked.of(&shop, alpn).await;
            let fields = answer.headers.iter().map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes());
                format!("{name}: {value}")
            });
            let mut fields: Vec<String> = fields
                .filter(|field| !field.starts_with("date:") && !field.starts_with("connection:"))
                .collect();
            fields.sort();
            answers.push((answer.status, fields));
        }
        assert_eq!(answers[0], answers[1], "{} {}", asked.method, asked.path);
    }
}

#[tokio::test]
async fn an_order_by_http_2_goes_up_whole_and_again_if_it_is_cut_off() {
    let files = tempfile::tempdir().unwrap();
    let (bad, good) = (Peer::start().await, Peer::start().await);
    let mut plan = Plan::new(&[&bad, &good]);
    plan.edge.tls = Some(certificate(files.path(), "a"));
    let shop = plan.start().await;
    bad.set(Mode::Cut);
    let token = access(1).mint(&keys()).unwrap();
    let order = Asked {
        method: "POST",
        path: "/order/create",
        body: json!({"itemId": ITEM, "promoId": PROMO, "token": token}).to_string(),
    };
    for _ in 0..4 {
        let (is_h2, answer) = order.of(&shop, ALPN::H2).await;
        assert_eq!((is_h2, answer.status.as_u16()), (true, 200));
    }
    assert!(bad.count("/order/create") > 0);
    for seen in good.seen() {
        assert_eq!(seen.body, order.body);
        let cookies = seen.headers["cookie"].to_str().unwrap();
        assert!(
            cookies.starts_with("other=1; floodgate_session="),
            "{cookies}"
        );
        assert_eq!(seen.headers.get_all("cookie").iter().count(), 1);
        assert_eq!(seen.headers["x-forwarded-proto"], "https");
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_serve_is_an_error_of_starting() {
    let files = tempfile::tempdir().unwrap();
    let (one, two) = (
        certificate(files.path(), "a"),
        certificate(files.path(), "b"),
    );
    let mixed = Tls {
        certificate: one.certificate.clone(),
        key: two.key,
    };
    let missing = Tls {
        certificate: one.certificate,
        key: "nowhere.key".to_owned(),
    };
    for tls in [mixed, missing] {
        let error = crate::harness::start_fails(tls).await;
        assert!(error.starts_with("cannot end TLS with"), "{error}");
    }
}
