//! Reservations of many callers at once through the embedded engine, as order servers make them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use engine::embedded::{Embedded, Options};
use engine::{
    Clock as _, Door as _, Entry, Promos as _, Publish, Reserve, Sessions as _, Stock as _,
    SystemClock,
};
use lua_free_rules::promo::Terms;
use lua_free_rules::token::Session;
use lua_free_rules::units::{BuyerId, ItemId, Millis, Money, Nonce, PromoId};
use tokio::task::JoinSet;

use super::Failure;

/// Most requests in one transaction when they are grouped.
pub const GROUPED: usize = 1_024;
/// Callers that sign in and enter beforehand, which is not measured.
const PREPARING: usize = 512;

/// Reservations a second: `orders` of them by `callers`, each of whom waits for his answer.
pub async fn rate(
    folder: &Path,
    orders: usize,
    callers: usize,
    batch_max: usize,
) -> Result<f64, Failure> {
    let directory = tempfile::tempdir_in(folder)?;
    let path = directory.path().join("engine.db");
    let prepared = prepare(&path, orders).await?;
    let options = Options {
        stream_max: u64::MAX,
        batch_max,
        ..Options::default()
    };
    let engine = Arc::new(Embedded::open(&path, Arc::new(SystemClock), options)?);
    let begun = Instant::now();
    let mut lanes = JoinSet::new();
    for lane in split(prepared, callers) {
        let engine = engine.clone();
        lanes.spawn(async move {
            for request in lane {
                engine.reserve(request).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    finish(lanes).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let left = engine
        .promos()
        .await?
        .1
        .first()
        .map_or(1, |promo| promo.available);
    engine.close().await;
    if left != 0 {
        return Err(format!("{left} units are left: not every reservation was made").into());
    }
    Ok(orders as f64 / seconds)
}

/// Publishes, signs everyone in and lets everyone through the door.
async fn prepare(path: &Path, orders: usize) -> Result<Vec<Reserve>, Failure> {
    let options = Options {
        stream_max: u64::MAX,
        ..Options::default()
    };
    let engine = Arc::new(Embedded::open(path, Arc::new(SystemClock), options)?);
    let (promo, now) = (PromoId(1), SystemClock.now());
    let terms = Terms {
        item: ItemId(1),
        starts_at: now,
        ends_at: now.plus_ms(3_600_000),
        price: Money::from_minor(9_900).unwrap_or_default(),
        stock: u32::try_from(orders)?,
        door: 1,
        per_buyer: 1,
        pay_within: Millis::seconds(900),
        token_ttl: Millis::seconds(3_000),
        challenges: Vec::new(),
    };
    engine
        .publish(Publish {
            promo,
            terms,
            digest: String::new(),
            only_first: true,
        })
        .await?;
    let mut lanes = JoinSet::new();
    for buyers in split((0..u64::try_from(orders)?).collect(), PREPARING) {
        let engine = engine.clone();
        lanes.spawn(async move {
            let mut requests = Vec::new();
            for number in buyers {
                requests.push(enter(&engine, promo, number).await?);
            }
            Ok::<_, Failure>(requests)
        });
    }
    let requests = finish(lanes).await?.into_iter().flatten().collect();
    engine.close().await;
    Ok(requests)
}

async fn enter(engine: &Embedded, promo: PromoId, number: u64) -> Result<Reserve, Failure> {
    let nonce = Nonce(u128::from(number).to_be_bytes());
    let buyer = BuyerId(i64::try_from(number)?);
    let session = Session {
        buyer,
        id: nonce,
        expires_at: SystemClock.now().plus_ms(3_600_000),
    };
    engine.sign_in(session).await?;
    let access = engine
        .enter(Entry {
            promo,
            session,
            attempt: None,
            jti: nonce,
        })
        .await?;
    Ok(Reserve {
        access,
        session,
        amount: 1,
        key: nonce.to_string(),
        body: "1:1:1".to_owned(),
    })
}

async fn finish<T: 'static>(mut lanes: JoinSet<Result<T, Failure>>) -> Result<Vec<T>, Failure> {
    let mut done = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        done.push(lane??);
    }
    Ok(done)
}

fn split<T>(all: Vec<T>, lanes: usize) -> Vec<Vec<T>> {
    let lanes = lanes.max(1);
    let mut split: Vec<Vec<T>> = (0..lanes).map(|_| Vec::new()).collect();
    for (index, one) in all.into_iter().enumerate() {
        split[index % lanes].push(one);
    }
    split
}
