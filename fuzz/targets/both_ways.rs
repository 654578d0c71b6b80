//! Any bytes, as one connection sends them: the fast path and Pingora's way must answer alike. The two edges and
//! the comparison are those of `proxy/tests/it/both_ways.rs`.
#![no_main]
#![allow(dead_code, unused_imports, clippy::unwrap_used, missing_docs)]

#[path = "../../proxy/tests/it/both_ways.rs"]
mod both_ways;
#[path = "../../proxy/tests/it/dice.rs"]
mod dice;
#[path = "../../proxy/tests/it/harness.rs"]
mod harness;
#[path = "../../proxy/tests/it/peer.rs"]
mod peer;
#[path = "../../proxy/tests/it/requests.rs"]
mod requests;
#[path = "../../proxy/tests/it/wire.rs"]
mod wire;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

use both_ways::Both;

static EDGES: LazyLock<(Runtime, Both)> = LazyLock::new(|| {
    // One thread, as in the test.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let both = runtime.block_on(Both::open(|_| ()));
    (runtime, both)
});

fuzz_target!(|bytes: &[u8]| {
    let (runtime, both) = &*EDGES;
    runtime.block_on(both.answer_alike(bytes, "found"));
});
