//! Buyers who are signed in and let through the door before anything is measured, the race in which they
//! reserve, and the check afterwards that each of them got his unit.

use std::collections::HashSet;
use std::future::Future;
use std::time::{Duration, Instant};

use engine::{Clock as _, Entry, Event, Publish, Reserve, SharedEngine, SystemClock};
use lua_free_rules::promo::Terms;
use lua_free_rules::token::Session;
use lua_free_rules::units::{BuyerId, ItemId, Millis, Money, Nonce, PromoId};
use tokio::task::JoinSet;

use super::Failure;

/// Callers that sign in and enter, which is not measured.
const PREPARING: usize = 512;
/// Events that are read at once.
const READ_MAX: usize = 10_000;
const PROMO: PromoId = PromoId(1);
/// Times this odd number, every number becomes another one that looks as if it was drawn by chance, as ids
/// are: ids that begin alike would fall into one place of Redis' hash tables.
const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// Publishes a promo of one unit for each buyer, signs everyone in and lets everyone through the door.
pub async fn admit(engine: &SharedEngine, buyers: usize) -> Result<Vec<Reserve>, Failure> {
    let now = SystemClock.now();
    let terms = Terms {
        item: ItemId(1),
        starts_at: now,
        ends_at: now.plus_ms(3_600_000),
        price: Money::from_minor(9_900).unwrap_or_default(),
        stock: u32::try_from(buyers)?,
        door: 1,
        per_buyer: 1,
        pay_within: Millis::seconds(900),
        token_ttl: Millis::seconds(3_000),
        challenges: Vec::new(),
    };
    engine
        .publish(Publish {
            promo: PROMO,
            terms,
            digest: String::new(),
            only_first: true,
        })
        .await?;
    let mut lanes = JoinSet::new();
    for numbers in split((0..u64::try_from(buyers)?).collect(), PREPARING) {
        let engine = engine.clone();
        lanes.spawn(async move {
            let mut requests = Vec::new();
            for number in numbers {
                requests.push(enter(&engine, number).await?);
            }
            Ok::<_, Failure>(requests)
        });
    }
    Ok(finish(lanes).await?.into_iter().flatten().collect())
}

async fn enter(engine: &SharedEngine, number: u64) -> Result<Reserve, Failure> {
    let nonce = Nonce(u128::from(number + 1).wrapping_mul(SPREAD).to_be_bytes());
    let session = Session {
        buyer: BuyerId(i64::try_from(number)?),
        id: nonce,
        expires_at: SystemClock.now().plus_ms(3_600_000),
    };
    engine.sign_in(session).await?;
    let access = engine
        .enter(Entry {
            promo: PROMO,
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

/// Reserves for everyone, by callers each of whom waits for one answer before he asks again. `reserve`
/// is told the number of the caller too. Returns the seconds it took.
pub async fn race<F, R>(requests: Vec<Reserve>, callers: usize, reserve: F) -> Result<f64, Failure>
where
    F: Fn(usize, Reserve) -> R + Clone + Send + 'static,
    R: Future<Output = Result<(), Failure>> + Send,
{
    let begun = Instant::now();
    let mut lanes = JoinSet::new();
    for (caller, lane) in split(requests, callers).into_iter().enumerate() {
        let reserve = reserve.clone();
        lanes.spawn(async move {
            for request in lane {
                reserve(caller, request).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    finish(lanes).await?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Whether every unit is sold, and the stream has one order of each buyer. Reads the stream.
pub async fn check(engine: &SharedEngine, buyers: usize) -> Result<(), Failure> {
    let left: u64 = engine
        .promos()
        .await?
        .1
        .iter()
        .map(|promo| u64::from(promo.available))
        .sum();
    let (mut orders, mut whose) = (0_usize, HashSet::new());
    loop {
        let entries = engine.read(READ_MAX, Duration::ZERO).await?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            let event: Event = serde_json::from_str(&entry.payload)?;
            if let Some(reservation) = event.change.reservation() {
                orders += 1;
                whose.insert(reservation.buyer);
            }
        }
    }
    if left == 0 && orders == buyers && whose.len() == buyers {
        return Ok(());
    }
    Err(format!(
        "of {buyers} units {left} are left, and the stream has {orders} orders of {} buyers",
        whose.len()
    )
    .into())
}

/// Waits for every task.
pub async fn finish<T: 'static>(mut lanes: JoinSet<Result<T, Failure>>) -> Result<Vec<T>, Failure> {
    let mut done = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        done.push(lane??);
    }
    Ok(done)
}

/// Deals everything out, one after the other.
pub fn split<T>(all: Vec<T>, lanes: usize) -> Vec<Vec<T>> {
    let lanes = lanes.max(1);
    let mut split: Vec<Vec<T>> = (0..lanes).map(|_| Vec::new()).collect();
    for (index, one) in all.into_iter().enumerate() {
        split[index % lanes].push(one);
    }
    split
}
