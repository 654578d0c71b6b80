//! `floodgate dead-letters`: asks the process that has the files; where none has, goes to the engine
//! itself.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use backend::Ledger;
use backend::dead_letters::{self, DeadLetters, Replayed, Which};
use engine::{EntryId, SharedEngine};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cli::DeadLetterAction;
use crate::engine::Home;
use crate::load::{Loaded, load};
use crate::running::Running;
use crate::{Outcome, secrets};

/// Most characters of a payload that are shown to people; `--json` has it whole.
const PAYLOAD_CHARS_MAX: usize = 300;

pub fn dead_letters(folder: &Path, action: &DeadLetterAction) -> Outcome {
    let loaded = load(folder, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let way = Way::find(&loaded).await?;
        let done = match action {
            DeadLetterAction::List { json, max } => list(&way, *max, *json).await,
            DeadLetterAction::Replay { ids, .. } => {
                // Who has the files, or asks who has them, notes it in the ledger.
                let ledger = match &way {
                    Way::Direct(..) => Some(Ledger::open(&secrets::ledger(&loaded)?).await?),
                    Way::Ask(..) => None,
                };
                let done = replay(&way, ids, ledger.as_ref()).await;
                if let Some(ledger) = ledger {
                    ledger.close().await;
                }
                done
            }
        };
        way.leave().await;
        Ok(done?)
    })
}

/// How the engine is reached.
enum Way {
    /// Directly.
    Direct(Home, SharedEngine),
    /// By asking the process that has the files.
    Ask(Running, String),
}

impl Way {
    async fn find(loaded: &Loaded) -> Outcome<Self> {
        let path = loaded.engine();
        if !loaded.config.node.engine.is_shared() && !path.exists() {
            return Err(anyhow!(
                "nothing was sold here yet: {} does not exist",
                path.display()
            )
            .into());
        }
        match Home::open_unless_held(loaded, &loaded.command_name("dead-letters")).await? {
            Some(home) => {
                let engine = home.shared();
                Ok(Self::Direct(home, engine))
            }
            None => {
                let running = Running::read(&loaded.data_dir())?;
                Ok(Self::Ask(running, secrets::operator_token(loaded)?))
            }
        }
    }

    async fn leave(self) {
        if let Self::Direct(home, ..) = self {
            home.close().await;
        }
    }

    async fn list(&self, max: u16) -> anyhow::Result<DeadLetters> {
        match self {
            Self::Direct(_, engine) => Ok(dead_letters::list(engine.as_ref(), max.into()).await?),
            Self::Ask(running, token) => {
                let path = format!("/admin/deadletters?max={max}");
                answered(running.ask(Method::GET, &path, token)?).await
            }
        }
    }

    async fn replay(&self, which: Which, ledger: Option<&Ledger>) -> anyhow::Result<Replayed> {
        let id = match which {
            Which::One(id) => id.to_string(),
            Which::All => "all".to_owned(),
        };
        match (self, ledger) {
            (Self::Direct(_, engine), Some(ledger)) => {
                let replay = dead_letters::replay(engine.as_ref(), which);
                let what = format!("dead-letters replay {id}");
                Ok(ledger.noted(&what, replay).await?)
            }
            (Self::Direct(..), None) => bail!("nothing is put back that cannot be noted"),
            (Self::Ask(running, token), _) => {
                let request = running.ask(Method::POST, "/admin/deadletters/replay", token)?;
                answered(request.json(&json!({ "id": id }))).await
            }
        }
    }
}

async fn answered<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> anyhow::Result<T> {
    let answer = request
        .send()
        .await
        .context("the running process does not answer")?;
    let mut body: Value = answer.json().await?;
    if body["status"] != "success" {
        bail!(
            "refused: {}",
            body["data"]["errMsg"].as_str().unwrap_or("no reason")
        );
    }
    Ok(serde_json::from_value(body["data"].take())?)
}

async fn list(way: &Way, max: u16, json: bool) -> anyhow::Result<()> {
    let found = way.list(max).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(());
    }
    for letter in &found.letters {
        println!("{}  {}", letter.id, plain(&letter.reason));
        println!("    {}", plain(&letter.payload));
    }
    let more = found.count.saturating_sub(found.letters.len() as u64);
    match (found.letters.len(), more) {
        (0, 0) => println!("no entry is set aside"),
        (_, 0) => {}
        _ => println!("and {more} more: see --max"),
    }
    Ok(())
}

/// Text of unknown origin as one short line that does nothing to a terminal.
fn plain(text: &str) -> String {
    let mut letters = text.chars();
    let mut shown = String::new();
    for letter in letters.by_ref().take(PAYLOAD_CHARS_MAX) {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    if letters.next().is_some() {
        shown.push('…');
    }
    shown
}

async fn replay(way: &Way, ids: &[EntryId], ledger: Option<&Ledger>) -> anyhow::Result<()> {
    let mut left = 0;
    let which: Vec<_> = match ids {
        [] => vec![Which::All],
        ids => ids.iter().copied().map(Which::One).collect(),
    };
    let (mut replayed, mut failed) = (0, Vec::new());
    for which in which {
        match (way.replay(which, ledger).await, which) {
            (Ok(done), Which::One(id)) if done.replayed.is_empty() => {
                failed.push(format!("{id}: not among the dead letters"));
            }
            (Ok(done), _) => {
                replayed += done.replayed.len();
                left = done.left;
            }
            (Err(error), Which::One(id)) => failed.push(format!("{id}: {error:#}")),
            (Err(error), Which::All) => return Err(error),
        }
    }
    if failed.is_empty() || replayed > 0 {
        println!(
            "put back: {replayed}; the order writer takes them up, {left} are still set aside"
        );
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(anyhow!("not put back: {}", failed.join("; ")))
}
