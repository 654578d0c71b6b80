//! Measures the embedded engine: how many reservations a second it takes from callers at the same
//! time, each commit on the disk. `cargo run --release -p floodgate-engine --example reservations --
//! [orders] [callers] [most in one transaction]`; the last as 1 is one transaction each.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use floodgate_engine::conformance::sale::{PROMO, nonce, request, terms};
use floodgate_engine::embedded::{Embedded, Options};
use floodgate_engine::{Clock as _, Entry, Publish, Reserve, SharedEngine, SystemClock};
use lua_free_rules::token::Session;
use lua_free_rules::units::BuyerId;
use tokio::task::JoinSet;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>());
    let orders = args.next().transpose()?.unwrap_or(50_000);
    let callers = args.next().transpose()?.unwrap_or(512).max(1);
    let batch_max = args.next().transpose()?.unwrap_or(1_024);
    let directory = tempfile::tempdir_in(".")?;
    let engine = open(&directory.path().join("engine.db"), batch_max)?;

    let mut terms = terms(SystemClock.now());
    terms.stock = u32::try_from(orders)?;
    let promo = PROMO;
    let publish = Publish {
        promo,
        terms,
        digest: String::new(),
        only_first: false,
    };
    engine.publish(publish).await?;
    let requests = enter(&engine, orders, callers).await?;

    let begun = Instant::now();
    let mut lanes = JoinSet::new();
    for lane in split(requests, callers) {
        let engine = engine.clone();
        lanes.spawn(async move {
            for request in lane {
                engine.reserve(request).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{orders} reservations by {callers} callers, up to {batch_max} in one transaction: \
         {seconds:.2} s, {:.0} a second",
        orders as f64 / seconds
    );
    Ok(())
}

fn open(path: &Path, batch_max: usize) -> Result<SharedEngine, Failure> {
    let options = Options {
        stream_max: u64::MAX,
        batch_max,
        ..Options::default()
    };
    Ok(Arc::new(Embedded::open(
        path,
        Arc::new(SystemClock),
        options,
    )?))
}

/// Signs all buyers in and lets them through the door.
async fn enter(
    engine: &SharedEngine,
    orders: usize,
    callers: usize,
) -> Result<Vec<Reserve>, Failure> {
    let mut lanes = JoinSet::new();
    for buyers in split((0_i64..).take(orders).collect(), callers) {
        let engine = engine.clone();
        lanes.spawn(async move {
            let mut requests = Vec::new();
            for buyer in buyers {
                let session = Session {
                    buyer: BuyerId(buyer),
                    id: nonce(),
                    expires_at: SystemClock.now().plus_ms(600_000),
                };
                engine.sign_in(session).await?;
                let entry = Entry {
                    promo: PROMO,
                    session,
                    attempt: None,
                    jti: nonce(),
                };
                requests.push(request(session, engine.enter(entry).await?, 1));
            }
            Ok::<_, Failure>(requests)
        });
    }
    let mut requests = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        requests.extend(lane??);
    }
    Ok(requests)
}

fn split<T>(all: Vec<T>, lanes: usize) -> Vec<Vec<T>> {
    let mut split: Vec<Vec<T>> = (0..lanes).map(|_| Vec::new()).collect();
    for (index, one) in all.into_iter().enumerate() {
        split[index % lanes].push(one);
    }
    split
}
