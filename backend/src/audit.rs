//! The audit: proves or refutes the stock equation, per promo and generation, across engine and
//! ledger, and holds payments against orders. It takes `available` and its sequence number at the engine as a fence, waits until the
//! ledger holds everything up to it, and compares; so it can run while a sale does.

use std::time::{Duration, Instant};

use engine::{Engine, EngineError};
use lua_free_rules::equation;
use lua_free_rules::promo::Snapshot;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{Generation, PromoId, Sequence, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ledger::{Fault, Ledger, PaymentCounts};

/// How often the ledger is looked at while it is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    /// Whether nothing is off.
    pub clean: bool,
    /// The engine's time at the beginning.
    pub at: Timestamp,
    /// Stream entries that were set aside: each is an event the ledger does not have.
    pub dead_letters: u64,
    /// What is off beyond a single promo.
    pub faults: Vec<Fault>,
    /// Each promo and generation.
    pub promos: Vec<PromoAudit>,
}

/// What an audit found of one promo and generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromoAudit {
    /// Which promo.
    pub promo_id: PromoId,
    /// Which publishing of it.
    pub generation: Generation,
    /// The fence.
    pub sequence: Sequence,
    /// What was published; absent if the engine does not know it.
    pub terms: Option<AuditedTerms>,
    /// Where the units are, at the fence.
    pub books: equation::Books,
    /// What was paid, and what goes back, by the ledger at the end of the audit.
    pub payments: PaymentCounts,
    /// What is off.
    pub faults: Vec<Fault>,
}

/// The published terms that decide who is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditedTerms {
    /// First moment at which it was sold.
    pub starts_at: Timestamp,
    /// First moment at which it no longer was.
    pub ends_at: Timestamp,
    /// Places for each unit of stock.
    pub door: u32,
    /// Units that one buyer may hold.
    pub per_buyer_limit: u32,
    /// How long an access token lives.
    pub token_ttl_ms: i64,
}

/// Audits one promo, or all there are. `wait` bounds how long the ledger is waited for, for all of
/// them together; one that is late then is at fault.
///
/// # Errors
/// If the engine or the database cannot be read. What is off is no error: it is in the report.
pub async fn audit(
    engine: &dyn Engine,
    ledger: &Ledger,
    promo: Option<PromoId>,
    wait: Duration,
) -> Result<AuditReport> {
    let until = Instant::now() + wait;
    let (at, current) = engine.promos().await?;
    let mut generations: Vec<(PromoId, Generation)> = ledger.generations().await?;
    for each in &current {
        let all = (1..=each.generation.0).map(|number| (each.promo, Generation(number)));
        generations.extend(all);
    }
    generations.sort_unstable();
    generations.dedup();
    generations.retain(|(id, _)| promo.is_none_or(|wanted| wanted == *id));
    let mut promos = Vec::new();
    for (id, generation) in generations {
        promos.push(audit_generation(engine, ledger, id, generation, at, until).await?);
    }
    let dead_letters = engine.backlog().await?.dead_letters;
    let mut faults = Vec::new();
    for item in ledger.items().await?.iter().filter(|item| item.stock < 0) {
        let (id, missing) = (item.id, -item.stock);
        faults.push(Fault(format!(
            "item {id}: {missing} units more were sold than the shop had"
        )));
    }
    Ok(AuditReport {
        clean: dead_letters == 0
            && faults.is_empty()
            && promos.iter().all(|promo| promo.faults.is_empty()),
        at,
        dead_letters,
        faults,
        promos,
    })
}

async fn audit_generation(
    engine: &dyn Engine,
    ledger: &Ledger,
    promo: PromoId,
    generation: Generation,
    at: Timestamp,
    until: Instant,
) -> Result<PromoAudit> {
    let mut report = PromoAudit {
        promo_id: promo,
        generation,
        sequence: Sequence(0),
        terms: None,
        books: equation::Books::default(),
        payments: PaymentCounts::default(),
        faults: Vec::new(),
    };
    // Read before the fence: a ledger that is ahead of it then is ahead for good.
    let height = ledger
        .heights()
        .await?
        .into_iter()
        .find(|each| (each.0, each.1) == (promo, generation));
    let fence = match engine.snapshot(promo, generation).await {
        Ok(fence) => fence,
        Err(EngineError::Refused(Refusal::NotFound)) => {
            let movements = ledger
                .reached(promo, generation, Sequence(i64::MAX))
                .await?
                .movements;
            if movements > 0 {
                report.faults.push(Fault(format!(
                    "the ledger has {movements} movements of it, the engine does not know it"
                )));
            }
            return Ok(report);
        }
        Err(error) => return Err(error.into()),
    };
    report.sequence = fence.sequence;
    report.terms = Some(AuditedTerms {
        starts_at: fence.terms.starts_at,
        ends_at: fence.terms.ends_at,
        door: fence.terms.door,
        per_buyer_limit: fence.terms.per_buyer,
        token_ttl_ms: fence.terms.token_ttl.ms(),
    });
    if let Some((.., height)) = height.filter(|each| each.2 > fence.sequence) {
        report.faults.push(Fault(format!(
            "the ledger has change {}, the engine only {}: one of them is not of this moment",
            height.0, fence.sequence.0
        )));
    }
    let late = wait_for(ledger, &fence, until).await?;
    let books = ledger.books(&fence).await?;
    report.books = books.counts;
    report.faults.extend(books.faults);
    if let Some(late) = late {
        // What is not there yet cannot be added up.
        report.faults.push(late);
    } else {
        check_sums(&mut report, &fence);
    }
    reconcile(ledger, &mut report, at, until).await?;
    Ok(report)
}

/// The stock equation, and both sides of it on their own.
fn check_sums(report: &mut PromoAudit, fence: &Snapshot) {
    let available = i64::from(fence.available);
    if report.books.available != available {
        let sum = report.books.available;
        report.faults.push(Fault(format!(
            "the engine has {available} units available, the movements add up to {sum}"
        )));
    }
    report.books.available = available;
    let published = i64::from(fence.terms.stock);
    if report.books.published != published {
        let sum = report.books.published;
        report.faults.push(Fault(format!(
            "the engine published {published} units, the movements say {sum}"
        )));
    }
    if let Err(imbalance) = report.books.check() {
        report.faults.push(Fault(imbalance.to_string()));
    }
}

/// Holds payments against orders. Payments that came late before the audit began are waited for until
/// they are settled; those that are not by then are late in that too.
async fn reconcile(
    ledger: &Ledger,
    report: &mut PromoAudit,
    began: Timestamp,
    until: Instant,
) -> Result<()> {
    let (promo, generation) = (report.promo_id, report.generation);
    let unsettled = loop {
        let unsettled = ledger.unsettled(promo, generation, began).await?;
        if unsettled.is_empty() || Instant::now() >= until {
            break unsettled;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    for (reference, order, received_at) in unsettled {
        let since = received_at.to_rfc3339();
        report.faults.push(Fault(format!(
            "late: payment {reference} came at {since}, after order {order} had ended, and is not \
             settled"
        )));
    }
    let faults = ledger.payment_faults(promo, generation).await?;
    report.faults.extend(faults);
    report.payments = ledger.payment_counts(promo, generation).await?;
    Ok(())
}

/// Waits until the ledger holds every movement up to the fence. If it is late, says by what.
async fn wait_for(ledger: &Ledger, fence: &Snapshot, until: Instant) -> Result<Option<Fault>> {
    loop {
        let reached = ledger
            .reached(fence.promo, fence.generation, fence.sequence)
            .await?;
        let Some(missing) = reached.missing else {
            return Ok(None);
        };
        if Instant::now() >= until {
            let (has, of, missing) = (reached.movements, fence.sequence.0, missing.0);
            return Ok(Some(Fault(format!(
                "late: the ledger has {has} of {of} movements, the first missing one is {missing}"
            ))));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
