//! `floodgate audit`: asks the running process, or opens the files when none runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use backend::audit::AuditReport;
use engine::SystemClock;
use engine::embedded::{Embedded, OpenError};
use lua_free_rules::units::PromoId;

use crate::load::{Loaded, load};
use crate::running::Running;
use crate::{Failure, Outcome, run, secrets};

pub fn audit(folder: &Path, promo: Option<i64>, json: bool, wait: Duration) -> Outcome {
    let loaded = load(folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(report(&loaded, promo.map(PromoId), wait))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    if report.is_clean() { Ok(()) } else { Err(Failure::Unbalanced) }
}

async fn report(
    loaded: &Loaded,
    promo: Option<PromoId>,
    wait: Duration,
) -> anyhow::Result<AuditReport> {
    let path = loaded.engine();
    if !path.exists() {
        bail!("nothing was sold here yet: {} does not exist", path.display());
    }
    match Embedded::open(&path, Arc::new(SystemClock), run::engine_options(loaded)) {
        Ok(engine) => {
            let report = backend::audit::of_files(&engine, &loaded.ledger(), promo, wait).await;
            engine.close().await;
            Ok(report?)
        }
        Err(OpenError::Locked { .. }) => ask(loaded, promo, wait).await,
        Err(error) => Err(error.into()),
    }
}

async fn ask(
    loaded: &Loaded,
    promo: Option<PromoId>,
    wait: Duration,
) -> anyhow::Result<AuditReport> {
    let running = Running::read(&loaded.data_dir())?;
    let mut url = format!("{}/admin/audit?waitMs={}", running.order_server()?, wait.as_millis());
    if let Some(promo) = promo {
        url.push_str(&format!("&promoId={promo}"));
    }
    let token = match secrets::operator_token(loaded) {
        Ok(token) => token,
        Err(_) => bail!("the operator's token cannot be read"),
    };
    let answer = reqwest::Client::new()
        .get(url)
        .bearer_auth(token)
        .timeout(wait + Duration::from_secs(10))
        .send()
        .await
        .context("the running process does not answer")?;
    let mut body: serde_json::Value = answer.json().await?;
    if body["status"] != "success" {
        bail!("the audit was refused: {}", body["data"]["errMsg"].as_str().unwrap_or("no reason"));
    }
    Ok(serde_json::from_value(body["data"].take())?)
}
