//! Requests as buyers, robots and attackers send them, drawn by dice.

use serde_json::json;

use crate::dice::Dice;
use crate::harness::{ITEM, OPERATOR, PROMO, access, cookie, keys, other_keys, session};

/// How many buyers are signed in.
pub const BUYERS: i64 = 40;

pub struct Sent {
    pub bytes: Vec<u8>,
}

impl Sent {
    pub fn is_head(&self) -> bool {
        self.bytes.starts_with(b"HEAD ")
    }
}

impl From<String> for Sent {
    fn from(text: String) -> Self {
        Self {
            bytes: text.into_bytes(),
        }
    }
}

/// Answered by the edge, whatever comes.
const ANSWERED: [&str; 22] = [
    "/",
    "/resources/listItem.html",
    "/resources/js/a.js",
    "/resources/none.html",
    "/resources/",
    "/item/get?id=3",
    "/item/get?id=3",
    "/item/get?id=404",
    "/item/get?id=x",
    "/item/get?id=3&id=4",
    "/item/get?id=%33",
    "/item/get?",
    "/item/get",
    "/item/get/",
    "/item/list",
    "/item/list?all",
    "/promo/state?id=7",
    "/promo/state?id=8",
    "/nothing",
    "/order/generateverifycode?promoId=7",
    "/item/get?id=3&a=b?c",
    "/item/get?id=3;x",
];
const ODD: [&str; 14] = [
    "//",
    "//evil.example/",
    "/a//b",
    "/./",
    "/resources/../engine.db",
    "/resources/%2e%2e/engine.db",
    "/\\evil.example",
    "http://shop/item/get?id=3",
    "http://evil.example/item/get?id=3",
    "*",
    "/item/get?id=3#x",
    "/item/get?id=\"3\"",
    "/item/get?id=\u{e9}",
    "item/get",
];
const GUARDED: [&str; 9] = [
    "/order/get?id=7-1-1",
    "/order/list",
    "/user/get",
    "/admin/dead-letters",
    "/user/login",
    "/user/logout",
    "/order/pay",
    "/item/create",
    "/payment/webhook/demo",
];
const PURCHASE: [&str; 3] = [
    "/order/generateverifycode",
    "/order/generatetoken",
    "/order/create",
];

/// A whole request of any kind, framed as it should be.
pub fn any(dice: &mut Dice) -> Sent {
    let method = match dice.below(20) {
        0..9 => "GET",
        9..11 => "HEAD",
        11..18 => "POST",
        _ => dice.pick(&["PUT", "DELETE", "OPTIONS", "PATCH", "BREW", "get"]),
    };
    let target = match dice.below(10) {
        0..4 => dice.pick(&ANSWERED),
        4..6 => dice.pick(&GUARDED),
        6..9 => dice.pick(&PURCHASE),
        _ => dice.pick(&ODD),
    };
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !dice.one_in(40) {
        head += dice.pick(&["Host: shop\r\n", "host:shop\r\n", "HOST:   shop  \r\n"]);
    }
    for _ in 0..dice.below(5) {
        head += &field(dice);
    }
    if dice.one_in(30) {
        head += &"X-More: of the same\r\n".repeat(dice.below(70));
    }
    let body = if method == "POST" || dice.one_in(30) {
        body(dice, target)
    } else {
        String::new()
    };
    head += &framing(dice, method, &body);
    head.into()
}

/// How the body's length is told, the end of the header, and the body.
fn framing(dice: &mut Dice, method: &str, body: &str) -> String {
    let length = body.len();
    match dice.below(20) {
        0 if body.is_empty() => "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        0 => format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
        1 => format!("Content-Length: {length}\r\nContent-Length: {length}\r\n\r\n{body}"),
        2 => format!("Content-Length: 0{length}\r\n\r\n{body}"),
        3 if method == "POST" => {
            format!("Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n{body}")
        }
        _ if body.is_empty() && method != "POST" => "\r\n".to_owned(),
        _ => format!("Content-Length: {length}\r\n\r\n{body}"),
    }
}

fn field(dice: &mut Dice) -> String {
    let buyer = 1 + dice.up_to(BUYERS - 1);
    let signed_in = cookie(session(buyer));
    let bearer = session(buyer).mint(&keys()).unwrap();
    let forged = session(buyer).mint(&other_keys()).unwrap();
    match dice.below(16) {
        0..4 => format!("Cookie: {signed_in}\r\n"),
        4 => format!("Cookie: a=b\r\ncookie: {signed_in}\r\n"),
        5 => format!("Authorization: Bearer {bearer}\r\n"),
        6 => format!("Authorization: Bearer {OPERATOR}\r\n"),
        7 => format!("Cookie: floodgate_session={forged}\r\n"),
        8 => "Authorization: Basic eDp5\r\n".to_owned(),
        9 => {
            let value = dice.pick(&[
                "gzip, br",
                "br;q=0, gzip",
                "GZIP",
                "identity",
                "*",
                "br\u{e9}",
            ]);
            format!("Accept-Encoding: {value}\r\n")
        }
        10 => format!(
            "If-None-Match: {}\r\n",
            dice.pick(&["*", "\"x\"", "W/\"y\", *"])
        ),
        11 => format!(
            "Origin: {}\r\n",
            dice.pick(&["http://shop", "http://evil", "null"])
        ),
        12 => {
            let value = dice.pick(&["cross-site", "same-origin", "none"]);
            format!("Sec-Fetch-Site: {value}\r\n")
        }
        13 => {
            let value = dice.pick(&["192.0.2.1", "192.0.2.2, 127.0.0.1", "x", "2001:db8::1"]);
            format!("X-Forwarded-For: {value}\r\n")
        }
        14 => {
            let value = dice.pick(&["keep-alive", "close", "Close", "Keep-Alive, TE", "upgrade"]);
            format!("Connection: {value}\r\n")
        }
        _ => format!(
            "{}\r\n",
            dice.pick(&[
                "Accept: image/*",
                "Content-Type: application/json",
                "Content-Type: application/x-www-form-urlencoded",
                "X: ",
                "X_Y: z",
                "X: tab\tbed",
                "X: \u{fc}",
                "TE: trailers",
                "Idempotency-Key: k1",
                "Range: bytes=0-3",
                "User-Agent: Mozilla/5.0 (X11; Linux x86_64)",
            ])
        ),
    }
}

fn body(dice: &mut Dice, target: &str) -> String {
    let buyer = 1 + dice.up_to(BUYERS - 1);
    let token = access(buyer).mint(&keys()).unwrap();
    let amount = dice.up_to(3);
    match dice.below(8) {
        0 => String::new(),
        1 => "{".to_owned(),
        2 => format!("promoId={PROMO}&itemId={ITEM}"),
        3 => json!({"promoId": PROMO, "x": "y".repeat(dice.below(6_000))}).to_string(),
        _ if target == "/order/create" => {
            json!({"itemId": ITEM, "promoId": PROMO, "amount": amount, "token": token}).to_string()
        }
        _ => json!({"itemId": ITEM, "promoId": PROMO}).to_string(),
    }
}

/// A request that the fast path answers.
pub fn plain(dice: &mut Dice) -> Sent {
    let target = dice.pick(&ANSWERED);
    if dice.one_in(4) {
        let target = dice.pick(&[
            "/order/generatetoken",
            "/order/create",
            "/order/pay",
            "/nothing",
        ]);
        let body = dice.pick(&["", "{", "{\"promoId\":7}", "promoId=7&itemId=3"]);
        let length = body.len();
        return format!(
            "POST {target} HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into();
    }
    let method = dice.pick(&["GET", "GET", "HEAD"]);
    format!("{method} {target} HTTP/1.1\r\nHost: shop\r\n\r\n").into()
}

/// A request that goes to Pingora, well-formed or not, with a body that may be taken for a request.
pub fn unusual(dice: &mut Dice) -> Vec<u8> {
    let inner = "GET /item/get?id=3 HTTP/1.1\r\nHost: shop\r\n\r\n";
    let length = inner.len();
    let line = dice.pick(&[
        "POST /nothing HTTP/1.1\r\nHost: shop\r\n",
        "POST /order/pay HTTP/1.1\r\nHost: shop\r\n",
        "POST /order/create HTTP/1.1\r\nhost: shop\r\n",
        "PUT /item/get HTTP/1.1\r\nHost: shop\r\n",
        "GET /item/get?id=3 HTTP/1.1\r\nHost: shop\r\n",
    ]);
    let rest = match dice.below(12) {
        0 => format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n"),
        1 => format!(
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n"
        ),
        2 => format!("Transfer-Encoding: identity\r\nContent-Length: {length}\r\n\r\n{inner}"),
        3 => format!("Transfer-Encoding: xchunked\r\nContent-Length: {length}\r\n\r\n{inner}"),
        4 => format!("Content-Length: {length}\r\nContent-Length: 0\r\n\r\n{inner}"),
        5 => format!("Content-Length: 0, {length}\r\n\r\n{inner}"),
        6 => format!("Content-Length: +{length}\r\n\r\n{inner}"),
        7 => format!("Content-Length : {length}\r\n\r\n{inner}"),
        8 => format!("Content-Length: {length}\r\nConnection: upgrade\r\n\r\n{inner}"),
        9 => format!("Content-Length: {length}\nX: y\r\n\r\n{inner}"),
        10 => format!("X: y\r\n Content-Length: {length}\r\n\r\n{inner}"),
        _ => format!("Content-Length: 0{length}\r\n\r\n{inner}"),
    };
    format!("{line}{rest}").into_bytes()
}

/// A request in which a few bytes are not what they should be.
pub fn malformed(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = plain(dice).bytes;
    if dice.one_in(3) {
        bytes = unusual(dice);
    }
    for _ in 0..=dice.below(3) {
        if bytes.is_empty() {
            break;
        }
        let at = dice.below(bytes.len());
        let byte = dice.pick(&[
            "\r", "\n", "\0", " ", "\t", ":", "/", "0", "9", "x", ",", "\r\n",
        ]);
        match dice.below(6) {
            0 => bytes.truncate(at),
            1 => {
                bytes.remove(at);
            }
            2 => bytes[at] ^= 1 << dice.below(8),
            3 => {
                bytes.splice(at..at, byte.bytes());
            }
            4 => bytes[at] = byte.as_bytes()[0],
            _ => {
                let end = (at + 1 + dice.below(20)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

/// One of each kind, to be split at every byte.
pub fn samples() -> Vec<Sent> {
    let signed_in = cookie(session(1));
    let body = json!({"itemId": ITEM, "promoId": PROMO, "token": "none"}).to_string();
    let length = body.len();
    [
        "GET /item/get?id=3 HTTP/1.1\r\nHost: shop\r\nAccept: */*\r\n\r\n".to_owned(),
        "HEAD / HTTP/1.1\r\nHost: shop\r\nAccept-Encoding: gzip\r\n\r\n".to_owned(),
        format!("GET /user/get HTTP/1.1\r\nHost: shop\r\nCookie: {signed_in}\r\n\r\n"),
        format!(
            "POST /order/create HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ),
        "DELETE /item/get HTTP/1.1\r\nHost: shop\r\n\r\n".to_owned(),
    ]
    .into_iter()
    .map(Sent::from)
    .collect()
}
