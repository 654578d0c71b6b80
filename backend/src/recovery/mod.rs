//! Recovery: an engine that may have lost its memory is rebuilt from the ledger, without a hand. Every
//! process that has both looks; one of them does it.
//!
//! First what is still in the order stream is written, so that the ledger holds everything that was
//! accepted and is known anywhere; then every promo is rebuilt from the events of the ledger and from
//! those that were set aside. Until then the engine answers nobody: buyers get 503 and try again.

use std::time::Duration;

use engine::{Event, SharedEngine};
use tokio::sync::watch;

use crate::error::{BackendError, Result};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::settings::hex;
use crate::writer::OrderWriter;

/// How often the engine is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Most events set aside that are taken into account: an operator who has more has other work first.
const DEAD_LETTERS_MAX: usize = 10_000;

/// The recovery of a process.
#[derive(Clone)]
pub struct Recovery {
    engine: SharedEngine,
    ledger: Ledger,
    writer: OrderWriter,
    metrics: Metrics,
    holder: String,
}

impl Recovery {
    /// Makes it; `writer` writes what is left in the stream.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn new(
        engine: SharedEngine,
        ledger: Ledger,
        writer: OrderWriter,
        metrics: Metrics,
    ) -> Result<Self> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|error| BackendError::Unexpected(error.to_string()))?;
        Ok(Self {
            engine,
            ledger,
            writer,
            metrics,
            holder: hex(&name),
        })
    }

    /// Looks until `stop` says true.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.look_on() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn look_on(&self) {
        let mut told = String::new();
        loop {
            match self.recover().await {
                Ok(_) => told.clear(),
                Err(error) => {
                    // The same trouble is told once.
                    let words = error.to_string();
                    if words != told {
                        tracing::warn!(%error, "the engine cannot be looked after; trying again");
                        told = words;
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Rebuilds the engine if it needs it and nobody else does. Returns whether it was done; call it again
    /// if it was not, since others may have to finish first.
    ///
    /// # Errors
    /// If the engine or the database is away, or another process took over.
    pub async fn recover(&self) -> Result<bool> {
        if !self.engine.is_lost().await? || !self.engine.begin_rebuild(&self.holder).await? {
            return Ok(false);
        }
        self.writer.drain().await?;
        if self.engine.backlog().await?.entries > 0 {
            return Ok(false);
        }
        let mut pasts = self.ledger.pasts().await?;
        let letters = self.engine.dead_letters(DEAD_LETTERS_MAX).await?;
        if letters.len() >= DEAD_LETTERS_MAX {
            let words = "too many events were set aside to rebuild the engine: replay them first";
            return Err(BackendError::Unexpected(words.to_owned()));
        }
        for letter in letters {
            // One that cannot be read changed nothing that anyone can know of.
            let Ok(event) = serde_json::from_str::<Event>(&letter.payload) else {
                continue;
            };
            if let Some(past) = pasts.iter_mut().find(|past| past.promo == event.promo) {
                past.apply(&event);
            }
        }
        let promos = pasts.len();
        self.engine.rebuild(&self.holder, pasts).await?;
        self.metrics.engine_rebuilt();
        tracing::warn!(
            promos,
            "the engine was started anew and has been rebuilt from the ledger"
        );
        Ok(true)
    }
}
