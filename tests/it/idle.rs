//! A crowd of idle connections: the edge holds them while others are busy, and every one still answers
//! afterwards. No time is judged here; `perf bench` does that.

use std::time::Duration;

use floodgate_perf::bench::exchange::{Exchange, fetch};
use floodgate_perf::bench::held::Held;
use floodgate_perf::bench::open_loop;
use floodgate_perf::machine::open_files_for;

use crate::house::{House, Plan, open_promo};

/// As many as are promised.
const IDLE: usize = 10_000;
/// Where the system allows fewer open files, at least so many are tried.
const IDLE_MIN: usize = 4_000;
const BUSY: usize = 64;
/// Files that both sides need beside those connections.
const OTHER_FILES: usize = 1_000;
const LIMITS: &str = "
[edge.limits]
connections_max = 20000
connections_per_address_max = 20000
idle_timeout = \"10m\"
";

#[test]
fn ten_thousand_idle_connections_are_held_beside_busy_ones() {
    let allowed = open_files_for(IDLE + OTHER_FILES);
    let idle = IDLE.min(allowed.saturating_sub(OTHER_FILES));
    println!("{idle} idle connections beside {BUSY} busy ones; {allowed} open files are allowed");
    assert!(
        idle >= IDLE_MIN,
        "only {allowed} open files are allowed: raise the hard limit (ulimit -Hn)"
    );
    // It may have as many files open as this process.
    let house = House::open(&Plan::new(&[open_promo(1, 10)]).edge(LIMITS));
    let port = house.edge.port();

    let request = "GET /item/get?id=1 HTTP/1.1\r\nHost: shop\r\n\r\n";
    let item = fetch(port, request).unwrap();
    let text = String::from_utf8_lossy(&item.body);
    assert!(item.status == 200 && text.contains("Sneakers"), "{text}");
    // From here on every answer must be this one, byte for byte.
    let exchange = Exchange::new(request.into(), 200, item.body);

    let mut held = Held::open(port, idle, &exchange).unwrap();
    let seen = open_loop::play(&open_loop::Plan {
        port,
        exchange: &exchange,
        connections: BUSY,
        rate: 1_000.0,
        duration: Duration::from_secs(2),
        core: None,
    });
    assert!(seen.unwrap().requests >= 1_999);
    assert_eq!(held.len(), idle);
    held.ask(&exchange).unwrap();
}
