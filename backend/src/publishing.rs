//! Publishing a promo, and the rule that stands before it: the shop has the units, and none of them is
//! for sale in another promo already.

use std::time::{Duration, Instant};

use engine::{Clock as _, Engine, Publish, Published, SystemClock};
use lua_free_rules::config::Promo;
use lua_free_rules::promo::{Phase, Snapshot, Status};
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{ItemId, PromoId};

use crate::error::{BackendError, Result};
use crate::ledger::Ledger;

/// How long the ledger may take to catch up with the engine: what is reserved but not written is
/// missing from the shop's stock all the same.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Publishes a proposal now; with `only_first`, only if that promo was never published.
///
/// # Errors
/// Those of [`engine::Promos::publish`]; [`Refusal::BadParameter`] if the shop does not have the units;
/// [`Refusal::Overloaded`] if the ledger is too far behind to tell.
pub async fn publish(
    engine: &dyn Engine,
    ledger: &Ledger,
    proposal: &Promo,
    only_first: bool,
) -> Result<(Published, Snapshot)> {
    let (now, promos) = engine.promos().await?;
    let standing = promos.iter().find(|each| each.promo == proposal.id);
    // A repeated publishing finds fewer units in the shop, since some were sold.
    let stands = standing.is_some_and(|promo| {
        let is_over = matches!(promo.phase(now), Phase::Ended | Phase::Closed);
        only_first || (now >= promo.terms.starts_at && !is_over)
    });
    if !stands {
        stock_suffices(
            engine,
            ledger,
            proposal.item,
            proposal.id,
            i64::from(proposal.stock),
        )
        .await?;
    }
    let request = Publish {
        promo: proposal.id,
        terms: proposal.terms(SystemClock.now()),
        digest: proposal.digest(),
        only_first,
    };
    Ok(engine.publish(request).await?)
}

/// Whether the shop has so many units for one promo beside what its other promos have for sale.
pub(crate) async fn stock_suffices(
    engine: &dyn Engine,
    ledger: &Ledger,
    item: ItemId,
    promo: PromoId,
    units: i64,
) -> Result<()> {
    let bad = |words: String| BackendError::from(Refusal::BadParameter(words));
    let promos = engine.promos().await?.1;
    let of_item: Vec<_> = promos
        .iter()
        .filter(|each| each.terms.item == item)
        .collect();
    let until = Instant::now() + CATCH_UP_MAX;
    for each in &of_item {
        wait_for(ledger, each, until).await?;
    }
    let found = ledger.item(item).await?;
    let found = found.ok_or_else(|| bad(format!("item {item} does not exist")))?;
    // A promo that has ended, but was not closed, keeps its units for late payments.
    let elsewhere: i64 = of_item
        .iter()
        .filter(|each| each.promo != promo && each.status != Status::Closed)
        .map(|each| i64::from(each.available))
        .sum();
    if units <= found.stock - elsewhere {
        return Ok(());
    }
    let (title, stock) = (found.title, found.stock);
    Err(bad(if elsewhere > 0 {
        format!(
            "the shop has {stock} of \"{title}\", {elsewhere} of them in other promos, not {units} \
             more: publish fewer, or close what is over"
        )
    } else {
        format!("the shop has {stock} of \"{title}\", not {units}")
    }))
}

async fn wait_for(ledger: &Ledger, fence: &Snapshot, until: Instant) -> Result<()> {
    while ledger
        .reached(fence.promo, fence.generation, fence.sequence)
        .await?
        .missing
        .is_some()
    {
        if Instant::now() >= until {
            return Err(Refusal::Overloaded.into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Whether engine and ledger belong together: neither was lost, replaced or restored from an older
/// copy. With one of them behind, new orders would take the ids of old ones.
///
/// # Errors
/// [`BackendError::Settings`] naming what does not fit.
pub(crate) async fn check_pair(engine: &dyn Engine, ledger: &Ledger) -> Result<()> {
    let apart = |words: String| {
        BackendError::Settings(format!(
            "engine and ledger do not belong together: {words}. Was one of their files lost or \
             restored without the other? Bring back both from the same moment"
        ))
    };
    let mut unwritten = 0;
    let mut heights = std::collections::HashMap::new();
    for (promo, generation, height) in ledger.heights().await? {
        let reached = match engine.snapshot(promo, generation).await {
            Ok(snapshot) => snapshot.sequence,
            Err(engine::EngineError::Refused(Refusal::NotFound)) => {
                let words = format!(
                    "the engine does not know promo {promo}, generation {}",
                    generation.0
                );
                return Err(apart(words));
            }
            Err(error) => return Err(error.into()),
        };
        if reached < height {
            return Err(apart(format!(
                "of promo {promo}, generation {}, the ledger has change {}, the engine only {}",
                generation.0, height.0, reached.0
            )));
        }
        unwritten += reached.0 - height.0;
        heights.insert((promo, generation), height);
    }
    for current in engine.promos().await?.1 {
        if !heights.contains_key(&(current.promo, current.generation)) {
            unwritten += current.sequence.0;
        }
    }
    let backlog = engine.backlog().await?;
    let waiting = backlog.entries.saturating_add(backlog.dead_letters);
    if u64::try_from(unwritten).unwrap_or(0) > waiting {
        return Err(apart(format!(
            "{unwritten} changes are not in the ledger, only {waiting} wait in the stream"
        )));
    }
    Ok(())
}
