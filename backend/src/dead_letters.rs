//! Entries of the stream that could not be written: what an operator sees of them, and putting them back.

use engine::{DeadLetter, Engine, EntryId};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Most entries that one call puts back.
const REPLAY_MAX: usize = 5_000;

/// What was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetters {
    /// How many there are.
    pub count: u64,
    /// The oldest of them.
    pub letters: Vec<DeadLetter>,
}

/// Which entries are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// That one.
    One(EntryId),
    /// As many as there are now, oldest first.
    All,
}

/// What putting back did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Those that are in the stream again, by the ids they had.
    pub replayed: Vec<EntryId>,
    /// How many are still set aside.
    pub left: u64,
}

/// Up to `max` entries that were set aside.
///
/// # Errors
/// If the engine is away.
pub async fn list(engine: &dyn Engine, max: usize) -> Result<DeadLetters> {
    Ok(DeadLetters {
        letters: engine.dead_letters(max).await?,
        count: engine.backlog().await?.dead_letters,
    })
}

/// Puts entries back at the end of the stream. One that still cannot be written will be set aside again,
/// so each is put back once, whatever becomes of it meanwhile.
///
/// # Errors
/// If the engine is away; what was put back until then stays so.
pub async fn replay(engine: &dyn Engine, which: Which) -> Result<Replayed> {
    let ids = match which {
        Which::One(id) => vec![id],
        Which::All => {
            let letters = engine.dead_letters(REPLAY_MAX).await?;
            letters.into_iter().map(|letter| letter.id).collect()
        }
    };
    let mut replayed = Vec::new();
    for id in ids {
        if engine.replay(id).await? {
            tracing::info!(entry = %id, "a stream entry was put back");
            replayed.push(id);
        }
    }
    let left = engine.backlog().await?.dead_letters;
    Ok(Replayed { replayed, left })
}
