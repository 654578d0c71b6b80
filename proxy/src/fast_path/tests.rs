//! What the fast path costs: no allocation for an answer from memory, little room for a connection that
//! waits.

use std::hint::black_box;
use std::sync::Arc;

use allocation_counter::measure;
use lua_free_rules::item::Item;
use lua_free_rules::units::{ItemId, Money};
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use tokio::sync::watch;

use super::*;
use crate::edge::tests::edge;
use crate::item_cache::Key;
use crate::promos::tests::snapshot;
use crate::service::Service;
use crate::tally;

/// One that is answered at once.
pub(super) const REQUEST: &[u8] = b"GET /none HTTP/1.1\r\nHost: shop\r\n\r\n";

pub(super) fn fast_path(files: &tempfile::TempDir) -> FastPath {
    let edge = Arc::new(edge(files.path()));
    let proxy = http_proxy(&Arc::new(ServerConf::default()), Service(edge.clone()));
    let limits = edge.config.limits.clone();
    FastPath::new(edge, Front::new(proxy, &limits))
}

fn item() -> Item {
    Item {
        id: ItemId(3),
        title: "Sneakers".to_owned(),
        price: Money::from_minor(12_900).unwrap(),
        stock: 400,
        description: String::new(),
        sales: 0,
        img_url: String::new(),
    }
}

#[tokio::test]
async fn what_is_answered_from_memory_allocates_nothing() {
    let files = tempfile::tempdir().unwrap();
    let fast_path = fast_path(&files);
    tally::begin(fast_path.edge.metrics.clone());
    let one = measure(|| drop(black_box(vec![1])));
    assert_eq!(one.count_total, 1, "allocations are counted");
    fast_path
        .edge
        .promos
        .hear(vec![snapshot()], tokio::time::Instant::now());
    for key in [Key::Item(ItemId(3)), Key::List] {
        fast_path.edge.items.lay(key, vec![item()]);
    }
    for (request, status) in [
        (
            "GET /resources/a.html HTTP/1.1\r\nAccept-Encoding: br\r\n",
            200,
        ),
        (
            "HEAD /resources/a.html HTTP/1.1\r\nIf-None-Match: *\r\n",
            304,
        ),
        ("GET /resources/none HTTP/1.1\r\n", 404),
        ("GET /item/get?id=3 HTTP/1.1\r\nUser-Agent: x\r\n", 200),
        ("GET /item/list HTTP/1.1\r\n", 200),
        ("GET /promo/state?id=3 HTTP/1.1\r\n", 404),
        ("GET /promo/state?id=7 HTTP/1.1\r\n", 200),
        ("GET /user/get HTTP/1.1\r\nCookie: a=b\r\n", 401),
        ("POST /order/create HTTP/1.1\r\nContent-Length: 0\r\n", 401),
        (
            "POST /order/generatetoken HTTP/1.1\r\nContent-Length: 0\r\n",
            401,
        ),
    ] {
        let request = format!("{request}Host: shop\r\n\r\n");
        let serve = || match fast_path.step(request.as_bytes(), None, Moment::now(&fast_path.edge))
        {
            Ok(Step::Now(Deed::Send(begun, mut message))) => {
                assert_eq!(message.status, status, "{request}");
                assert!(message.write_now(&mut io::sink()).unwrap());
                assert!(fast_path.settle(begun, &message, Ok(())).is_ok());
            }
            _ => panic!("not answered: {request}"),
        };
        // The first one is met, written, or remembered.
        serve();
        serve();
        let counted = measure(serve);
        assert_eq!(counted.count_total, 0, "{request}");
    }
}

#[tokio::test]
async fn a_connection_that_waits_takes_little_room() {
    let files = tempfile::tempdir().unwrap();
    let fast_path = fast_path(&files);
    let (_stopping, shutdown) = watch::channel(false);
    let (stream, _client) = tokio::io::duplex(1);
    // One that is encrypted: others that wait have no task.
    let waiting = fast_path.serve(Box::new(stream), &shutdown);
    assert!(
        size_of_val(&waiting) <= 3 << 10,
        "{}",
        size_of_val(&waiting)
    );
}
