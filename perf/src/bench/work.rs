//! What is asked for, and which answer is the right one.

/// Requests of one kind.
#[derive(Debug, Clone)]
pub struct Work {
    /// What they are called.
    pub name: &'static str,
    /// The status of the right answer.
    pub status: u16,
    /// They are sent in turn, as they are; there is at least one.
    pub requests: Vec<String>,
}

impl Work {
    /// The details of an item.
    pub fn item() -> Self {
        Self {
            name: "cached item",
            status: 200,
            requests: vec![request("GET", "/item/get?id=1", &[], "")],
        }
    }

    /// An order without a token: a refusal that checks no signature.
    pub fn order_without_token() -> Self {
        Self {
            name: "order without a token, refused",
            status: 401,
            requests: vec![order(&[], r#"{"promoId":1,"itemId":1,"amount":1}"#)],
        }
    }

    /// A page, or what is said of it, to a request for it.
    pub fn page(name: &'static str, status: u16, request: String) -> Self {
        Self {
            name,
            status,
            requests: vec![request],
        }
    }
}

/// A request to create an order.
pub fn order(headers: &[(&str, &str)], body: &str) -> String {
    request("POST", "/order/create", headers, body)
}

/// A request as it goes over the wire; a body is JSON.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: shop\r\n");
    for (name, value) in headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    if !body.is_empty() {
        let length = body.len().to_string();
        text.push_str("Content-Type: application/json\r\nContent-Length: ");
        text.push_str(&length);
        text.push_str("\r\n");
    }
    text.extend(["\r\n", body]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_out_as_buyers_send_them() {
        assert_eq!(
            Work::item().requests,
            ["GET /item/get?id=1 HTTP/1.1\r\nHost: shop\r\n\r\n"]
        );
        assert_eq!(
            order(&[("Cookie", "a=b")], "{}"),
            "POST /order/create HTTP/1.1\r\nHost: shop\r\nCookie: a=b\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        );
    }
}
