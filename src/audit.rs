//! `floodgate audit`: asks the process that has the files; where none has, looks into engine and ledger
//! itself. Then it holds the histories of crowds, if there are any, against the ledger.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use backend::AuditReport;
use backend::audit::PromoAudit;
use backend::history::{History, HistoryReport};
use backend::ledger::Fault;
use lua_free_rules::units::{PromoId, Timestamp};
use reqwest::Method;
use serde::Serialize;

use crate::engine::Stores;
use crate::load::{Loaded, load};
use crate::running::Running;
use crate::{Failure, Outcome, secrets};

/// The longest that a running process lets its ledger catch up for.
const ASK_WAIT_MAX: Duration = Duration::from_secs(25);

/// Both reports as one, in JSON.
#[derive(Serialize)]
struct Both<'a> {
    /// Whether nothing is off in either.
    clean: bool,
    #[serde(flatten)]
    books: Books<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<&'a HistoryReport>,
}

/// The audit but for its own verdict, which is part of the whole one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Books<'a> {
    at: Timestamp,
    dead_letters: u64,
    faults: &'a [Fault],
    promos: &'a [PromoAudit],
}

pub fn audit(
    folder: &Path,
    promo: Option<i64>,
    histories: &[PathBuf],
    json: bool,
    wait: Duration,
) -> Outcome {
    let loaded = load(folder, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Before the audit: then its fence comes after every order that they tell of.
    let histories = read(histories, promo)?;
    let audit = runtime.block_on(report(&loaded, promo.map(PromoId), wait))?;
    let history = match histories.as_slice() {
        [] => None,
        histories => {
            let ledger = secrets::ledger(&loaded)?;
            let judging = backend::history::hold_against(histories, &audit, &ledger);
            Some(runtime.block_on(judging)?)
        }
    };
    let clean = audit.clean && history.as_ref().is_none_or(|history| history.clean);
    if json {
        let both = Both {
            clean,
            books: Books {
                at: audit.at,
                dead_letters: audit.dead_letters,
                faults: &audit.faults,
                promos: &audit.promos,
            },
            history: history.as_ref(),
        };
        println!("{}", serde_json::to_string_pretty(&both)?);
    } else {
        print(&audit);
        if let Some(history) = &history {
            print_history(history);
        }
    }
    if clean {
        Ok(())
    } else {
        Err(Failure::Unbalanced)
    }
}

fn read(paths: &[PathBuf], promo: Option<i64>) -> anyhow::Result<Vec<History>> {
    let read = paths.iter().map(|path| {
        let history = History::read(path)?;
        match promo {
            Some(promo) if promo != history.promo => bail!(
                "{} is the history of promo {}, not of promo {promo}",
                path.display(),
                history.promo
            ),
            _ => Ok(history),
        }
    });
    read.collect()
}

async fn report(
    loaded: &Loaded,
    promo: Option<PromoId>,
    wait: Duration,
) -> Result<AuditReport, Failure> {
    let path = loaded.engine();
    if !loaded.config.node.engine.is_shared() && !path.exists() {
        let words = format!(
            "nothing was sold here yet: {} does not exist",
            path.display()
        );
        return Err(Failure::Other(anyhow::anyhow!(words)));
    }
    match Stores::open_unless_held(loaded, "audit").await? {
        Some(stores) => Ok(of_stores(stores, promo, wait).await?),
        None => ask(loaded, promo, wait).await,
    }
}

async fn of_stores(
    stores: Stores,
    promo: Option<PromoId>,
    wait: Duration,
) -> anyhow::Result<AuditReport> {
    // A ledger that cannot be written now is told by the audit: it is late.
    stores.catch_up(wait).await?;
    let report = backend::audit(stores.engine.as_ref(), &stores.ledger, promo, wait).await;
    stores.close().await;
    Ok(report?)
}

async fn ask(
    loaded: &Loaded,
    promo: Option<PromoId>,
    wait: Duration,
) -> Result<AuditReport, Failure> {
    let running = Running::read(&loaded.data_dir())?;
    let wait = wait.min(ASK_WAIT_MAX);
    let mut path = format!("/admin/audit?waitMs={}", wait.as_millis());
    if let Some(promo) = promo {
        path.push_str(&format!("&promoId={promo}"));
    }
    let token = secrets::operator_token(loaded)?;
    let request = running.ask(Method::GET, &path, &token)?;
    // The running process bounds the wait; what is added is for the way.
    let request = request.timeout(wait + Duration::from_secs(10));
    Ok(answered(request).await?)
}

async fn answered(request: reqwest::RequestBuilder) -> anyhow::Result<AuditReport> {
    let answer = request
        .send()
        .await
        .context("the running process does not answer")?;
    let mut body: serde_json::Value = answer.json().await?;
    if body["status"] != "success" {
        bail!(
            "the audit was refused: {}",
            body["data"]["errMsg"].as_str().unwrap_or("no reason")
        );
    }
    Ok(serde_json::from_value(body["data"].take())?)
}

fn print(report: &AuditReport) {
    for promo in &report.promos {
        let (books, generation) = (&promo.books, promo.generation.0);
        println!(
            "promo {}, generation {generation}, up to change {}:",
            promo.promo_id, promo.sequence.0
        );
        println!(
            "  published {} = available {} + reserved {} + written {} + paid {} + releasing {}",
            books.published,
            books.available,
            books.reserved,
            books.written,
            books.paid,
            books.releasing
        );
        let payments = &promo.payments;
        println!(
            "  payments: {} accepted, {} of them late with units left; {} late and not settled; \
             {} refund due, {} orders refund due",
            payments.accepted,
            payments.reserved_again,
            payments.late,
            payments.refund_due,
            payments.refund_due_orders
        );
        for fault in &promo.faults {
            println!("  FAULT: {}", fault.0);
        }
    }
    for fault in &report.faults {
        println!("FAULT: {}", fault.0);
    }
    if report.dead_letters > 0 {
        println!(
            "FAULT: {} events were set aside and are not in the ledger",
            report.dead_letters
        );
    }
    println!(
        "{}",
        if report.clean {
            "the books balance"
        } else {
            "the books do not balance"
        }
    );
}

fn print_history(report: &HistoryReport) {
    println!(
        "history: {} requests of {} buyers; {} orders accepted, {} in the ledger ({} whose answer was lost)",
        report.requests, report.buyers, report.accepted, report.in_ledger, report.answer_lost
    );
    let counts = |counts: &BTreeMap<String, u64>| {
        let counts: Vec<_> = counts
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        if counts.is_empty() {
            "none".to_owned()
        } else {
            counts.join(", ")
        }
    };
    println!("  refusals judged: {}", counts(&report.refusals));
    println!(
        "  not to be judged from outside: {}",
        counts(&report.not_judged)
    );
    if report.others > 0 {
        println!(
            "  {} buyers with orders are in no history: theirs are not judged, nor is a full door",
            report.others
        );
    }
    for fault in &report.faults {
        println!("  FAULT: {}", fault.0);
    }
    let more = report.fault_count - report.faults.len() as u64;
    if more > 0 {
        println!("  FAULT: and {more} more");
    }
    println!(
        "{}",
        if report.clean {
            "the history and the books agree"
        } else {
            "the history and the books do not agree"
        }
    );
}
