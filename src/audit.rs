//! `floodgate audit`: asks the running process, or opens the files when none runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use backend::metrics::Metrics;
use backend::writer::OrderWriter;
use backend::{AuditReport, Ledger};
use engine::SystemClock;
use engine::embedded::{Embedded, OpenError};
use lua_free_rules::units::PromoId;
use reqwest::Method;

use crate::load::{Loaded, load};
use crate::running::Running;
use crate::{Failure, Outcome, secrets};

/// The longest that a running process lets its ledger catch up for.
const ASK_WAIT_MAX: Duration = Duration::from_secs(25);

pub fn audit(folder: &Path, promo: Option<i64>, json: bool, wait: Duration) -> Outcome {
    let loaded = load(folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(report(&loaded, promo.map(PromoId), wait))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    if report.clean {
        Ok(())
    } else {
        Err(Failure::Unbalanced)
    }
}

async fn report(
    loaded: &Loaded,
    promo: Option<PromoId>,
    wait: Duration,
) -> Result<AuditReport, Failure> {
    let path = loaded.engine();
    if !path.exists() {
        let words = format!(
            "nothing was sold here yet: {} does not exist",
            path.display()
        );
        return Err(Failure::Other(anyhow::anyhow!(words)));
    }
    match Embedded::open(&path, Arc::new(SystemClock), loaded.engine_options()) {
        Ok(engine) => Ok(of_files(Arc::new(engine), loaded, promo, wait).await?),
        Err(OpenError::Locked(_)) => ask(loaded, promo, wait).await,
        Err(error) => Err(error.into()),
    }
}

/// Audits the files. What waits in the stream is written first, as the next start would do.
async fn of_files(
    engine: Arc<Embedded>,
    loaded: &Loaded,
    promo: Option<PromoId>,
    wait: Duration,
) -> anyhow::Result<AuditReport> {
    let ledger = Ledger::open(&loaded.ledger()).await?;
    let batch_max = loaded.config.node.writer.batch_max;
    OrderWriter::new(engine.clone(), ledger.clone(), Metrics::new()?, batch_max)
        .drain()
        .await?;
    let report = backend::audit(engine.as_ref(), &ledger, promo, wait).await;
    ledger.close().await;
    engine.close().await;
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
