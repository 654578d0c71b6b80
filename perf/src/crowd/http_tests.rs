//! The client against answers of every kind: whole, in pieces, odd and broken.

use super::*;
use tokio::io::duplex;

/// What the client makes of these bytes, given in pieces of `piece` bytes, the connection then
/// closed; and whether it would use the connection again.
async fn answer(bytes: &[u8], piece: usize) -> (Result<Response, HttpFault>, bool) {
    let (client, mut server) = duplex(64 * 1024);
    let mut connection = Connection::new(client);
    let pieces: Vec<Vec<u8>> = bytes.chunks(piece.max(1)).map(<[u8]>::to_vec).collect();
    let feed = tokio::spawn(async move {
        for piece in pieces {
            if server.write_all(&piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    });
    let answer = connection.receive().await;
    let open = connection.stays_open;
    feed.abort();
    (answer, open)
}

async fn body(bytes: &[u8]) -> (Vec<u8>, bool) {
    let (whole, open) = answer(bytes, bytes.len()).await;
    let (pieces, again) = answer(bytes, 1).await;
    let whole = whole.unwrap();
    assert_eq!(whole, pieces.unwrap(), "pieces do not matter");
    assert!(!open || again || bytes.ends_with(b"extra"));
    (whole.body, open)
}

#[tokio::test]
async fn whole_answers_are_read_however_they_are_framed() {
    let plain = b"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(body(plain).await, (b"hello".to_vec(), true));
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n\
        3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: t\r\n\r\n";
    assert_eq!(body(chunked).await, (b"hello".to_vec(), true));
    let until_close = b"HTTP/1.1 200 OK\r\n\r\nhello";
    assert_eq!(body(until_close).await, (b"hello".to_vec(), false));
    let nothing = b"HTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(body(nothing).await, (Vec::new(), true));
    let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
        HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(body(interim).await, (b"{}".to_vec(), true));
}

#[tokio::test]
async fn a_connection_is_kept_only_where_the_server_keeps_it() {
    let closing = b"HTTP/1.1 200 OK\r\nConnection: keep-alive, Close\r\nContent-Length: 0\r\n\r\n";
    assert!(!body(closing).await.1);
    let old = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert!(!body(old).await.1);
    let (_, open) = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nextra", 1_000).await;
    assert!(!open, "bytes nobody asked for");
}

#[tokio::test]
async fn retry_after_is_read_where_it_is_seconds() {
    let wait = |value: &str| {
        format!("HTTP/1.1 503 Busy\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n")
    };
    for (value, seconds) in [
        ("7", Some(7)),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("-1", None),
    ] {
        let (response, _) = answer(wait(value).as_bytes(), 1_000).await;
        let response = response.unwrap();
        assert_eq!(response.status, 503);
        assert_eq!(
            response.retry_after,
            seconds.map(Duration::from_secs),
            "{value}"
        );
    }
}

#[tokio::test]
async fn broken_answers_are_faults_and_never_answers() {
    let long = format!(
        "HTTP/1.1 200 OK\r\nX: {}\r\n\r\n",
        "x".repeat(HEAD_BYTES_MAX + 1)
    );
    let many = format!(
        "HTTP/1.1 200 OK\r\n{}\r\n",
        "a: b\r\n".repeat(HEADERS_MAX + 1)
    );
    let broken: [&[u8]; 15] = [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        long.as_bytes(),
        many.as_bytes(),
    ];
    for bytes in broken {
        for piece in [1, 7, bytes.len()] {
            let (result, _) = answer(bytes, piece).await;
            assert!(
                result.is_err(),
                "{:?}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
            );
        }
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_is_not_used() {
    let (client, mut server) = duplex(1_024);
    let mut connection = Connection::new(client);
    server
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await
        .unwrap();
    connection.receive().await.unwrap();
    assert!(connection.is_usable().await);
    drop(server);
    assert!(!connection.is_usable().await);
}

#[test]
fn a_request_is_written_as_the_protocol_asks() {
    let token: std::sync::Arc<str> = "t.t.t".into();
    let request = Request::post("/order/create", &serde_json::json!({ "amount": 1 }));
    let bytes = request.bearer(&token).key("k-1").encode("127.0.0.1:8080");
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        "POST /order/create HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAuthorization: Bearer t.t.t\r\n\
         Idempotency-Key: k-1\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n\
         {\"amount\":1}"
    );
    let bytes = Request::get("/item/get?id=1").encode("h");
    assert_eq!(bytes, b"GET /item/get?id=1 HTTP/1.1\r\nHost: h\r\n\r\n");
}
