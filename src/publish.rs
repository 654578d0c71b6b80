//! `floodgate publish`: asks the process that has the files; where none has, goes to engine and ledger
//! itself.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use backend::publishing;
use engine::Published;
use lua_free_rules::config::Promo;
use lua_free_rules::units::PromoId;
use reqwest::Method;

use crate::engine::Stores;
use crate::load::{Loaded, load};
use crate::running::Running;
use crate::{Failure, Outcome, secrets};

/// How long what waits in the stream may take to be written.
const DRAIN_MAX: Duration = Duration::from_secs(60);

pub fn publish(folder: &Path, promo: i64) -> Outcome {
    let loaded = load(folder, None)?;
    let known = loaded
        .config
        .promos
        .iter()
        .find(|known| known.id == PromoId(promo));
    let Some(proposal) = known else {
        let words = format!("{}: no file in promos/ has id = {promo}", folder.display());
        return Err(Failure::Config(vec![words]));
    };
    if !loaded.is_shared() {
        loaded.make_data_dir()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match Stores::open_unless_held(&loaded, "publish").await? {
            Some(stores) => Ok(directly(stores, &loaded, proposal).await?),
            None => ask(&loaded, proposal).await,
        }
    })
}

async fn directly(stores: Stores, loaded: &Loaded, proposal: &Promo) -> anyhow::Result<()> {
    let ledger = &stores.ledger;
    ledger.seed(&loaded.config.catalog).await?;
    // What waits in the stream was sold.
    if !stores.catch_up(DRAIN_MAX).await? {
        bail!("the ledger cannot be written now");
    }
    let publishing = publishing::publish(stores.engine.as_ref(), ledger, proposal, false);
    let published = ledger
        .noted(&format!("publish {}", proposal.id), publishing)
        .await;
    stores.close().await;
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
