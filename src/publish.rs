//! `floodgate publish`: asks the running process, or publishes into the files when none runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use backend::metrics::Metrics;
use backend::writer::OrderWriter;
use backend::{Ledger, publishing};
use engine::embedded::{Embedded, OpenError};
use engine::{Published, SystemClock};
use lua_free_rules::config::Promo;
use lua_free_rules::units::PromoId;
use reqwest::Method;

use crate::load::{Loaded, load};
use crate::running::Running;
use crate::{Failure, Outcome, secrets};

/// How long what waits in the stream may take to be written.
const DRAIN_MAX: Duration = Duration::from_secs(60);

pub fn publish(folder: &Path, promo: i64) -> Outcome {
    let loaded = load(folder)?;
    let known = loaded
        .config
        .promos
        .iter()
        .find(|known| known.id == PromoId(promo));
    let Some(proposal) = known else {
        let words = format!("{}: no file in promos/ has id = {promo}", folder.display());
        return Err(Failure::Config(vec![words]));
    };
    loaded.make_data_dir()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let options = loaded.engine_options();
        match Embedded::open(&loaded.engine(), Arc::new(SystemClock), options) {
            Ok(engine) => into_files(Arc::new(engine), &loaded, proposal).await,
            Err(OpenError::Locked { .. }) => ask(&loaded, proposal).await,
            Err(error) => Err(error.into()),
        }
    })
}

async fn into_files(engine: Arc<Embedded>, loaded: &Loaded, proposal: &Promo) -> Outcome {
    let ledger = Ledger::open(&secrets::ledger(loaded)?).await?;
    ledger.seed(&loaded.config.catalog).await?;
    // What waits in the stream was sold: it is written first, as the next start would do.
    let batch_max = loaded.config.node.writer.batch_max;
    let writer = OrderWriter::new(engine.clone(), ledger.clone(), Metrics::new()?, batch_max);
    tokio::time::timeout(DRAIN_MAX, writer.drain())
        .await
        .context("the ledger cannot be written now")??;
    let published = publishing::publish(engine.as_ref(), &ledger, proposal, false).await;
    ledger.close().await;
    engine.close().await;
    let (published, snapshot) =
        published.with_context(|| format!("promo {} was not published", proposal.id))?;
    let what = match published {
        Published::New => "published",
        Published::Unchanged => "unchanged",
    };
    println!(
        "promo {}: {what}, generation {}",
        proposal.id, snapshot.generation.0
    );
    Ok(())
}

async fn ask(loaded: &Loaded, proposal: &Promo) -> Outcome {
    let running = Running::read(&loaded.data_dir())?;
    let (path, token) = (
        format!("/item/publishpromo?id={}", proposal.id),
        secrets::operator_token(loaded)?,
    );
    let answer = running
        .ask(Method::POST, &path, &token)?
        .json(&serde_json::json!({ "digest": proposal.digest() }))
        .send()
        .await
        .context("the running process does not answer")?;
    let body: serde_json::Value = answer.json().await?;
    if body["status"] == "success" {
        let (result, generation) = (
            &body["data"]["result"],
            &body["data"]["promo"]["generation"],
        );
        let what = if result == "new" {
            "published"
        } else {
            "unchanged"
        };
        println!("promo {}: {what}, generation {generation}", proposal.id);
        return Ok(());
    }
    let words = body["data"]["errMsg"]
        .as_str()
        .unwrap_or("the answer makes no sense");
    Err(anyhow!("promo {} was not published: {words}", proposal.id).into())
}
