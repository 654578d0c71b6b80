//! Recovery: an engine that may have lost its memory is rebuilt from the ledger, without a hand. Every
//! process that has both looks; one of them does it.
//!
//! First what is still in the order stream is written, so that the ledger holds everything that was
//! accepted and that the engine still knows. Then every generation ends in the ledger: from that moment no
//! writer writes what the engine lost, however long it has had it in hand; it sets it aside, and the
//! audit tells. Then every promo is rebuilt from the events of the ledger and from those that were set
//! aside before. Until then the engine answers nobody: buyers get 503 and try again.
//!
//! A rebuild may be cut off anywhere and begun again by another process: whatever ended stays so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::{Event, Past, SharedEngine};
use tokio::sync::watch;

use crate::error::{BackendError, Result};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::settings::hex;
use crate::writer::OrderWriter;

/// How often the engine is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Most events set aside that are taken into account: an operator who has more has other work first.
const DEAD_LETTERS_MAX: usize = 200_000;

/// The recovery of a process.
#[derive(Clone)]
pub struct Recovery {
    engine: SharedEngine,
    ledger: Ledger,
    writer: OrderWriter,
    metrics: Metrics,
    holder: String,
    /// Whether no ending is left to be taken back, as far as this process knows.
    is_settled: Arc<AtomicBool>,
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
            is_settled: Arc::default(),
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
        if !self.engine.is_lost().await? {
            if !self.is_settled.load(Ordering::SeqCst) {
                self.settle().await?;
            }
            return Ok(false);
        }
        self.is_settled.store(false, Ordering::SeqCst);
        if !self.engine.begin_rebuild(&self.holder).await? {
            return Ok(false);
        }
        self.writer.drain().await?;
        if self.engine.backlog().await?.entries > 0 {
            return Ok(false);
        }
        let Some(counted) = self.end().await? else {
            return Ok(false);
        };
        let pasts = self.pasts(&counted).await?;
        let promos = pasts.len();
        self.engine.rebuild(&self.holder, pasts).await?;
        self.metrics.engine_rebuilt();
        tracing::warn!(
            promos,
            "the engine was started anew and has been rebuilt from the ledger"
        );
        if let Err(error) = self.settle().await {
            tracing::warn!(%error, "promos whose sale was over cannot be published again until this is done");
        }
        Ok(true)
    }

    /// Ends every generation in the ledger, so that nobody writes what is not counted from here on. Returns
    /// what counts beside the ledger; none if another process rebuilds by now, or has done it.
    async fn end(&self) -> Result<Option<Vec<Event>>> {
        let ending = self.ledger.begin_ending().await?;
        // Asked while nobody else can end anything: one who stood still until the sale went on would end
        // the generation that is sold.
        if !self.engine.is_lost().await? || !self.engine.begin_rebuild(&self.holder).await? {
            return Ok(None);
        }
        let letters = self.engine.dead_letters(DEAD_LETTERS_MAX).await?;
        if letters.len() >= DEAD_LETTERS_MAX {
            let words = "too many events were set aside to rebuild the engine: replay them first";
            return Err(BackendError::Unexpected(words.to_owned()));
        }
        // One that cannot be read changed nothing that anyone can know of.
        let events = letters
            .iter()
            .filter_map(|letter| serde_json::from_str(&letter.payload).ok());
        let events: Vec<Event> = events.collect();
        Ok(Some(ending.finish(&events).await?))
    }

    /// What the ledger holds, and what counts beside it.
    async fn pasts(&self, counted: &[Event]) -> Result<Vec<Past>> {
        let mut pasts = self.ledger.pasts().await?;
        for event in counted {
            if let Some(past) = pasts.iter_mut().find(|past| past.promo == event.promo) {
                past.apply(event);
            }
        }
        Ok(pasts)
    }

    /// Takes back that numbers have ended which nobody was given: where a sale was over nothing goes on, and
    /// the next publishing gets the next number. That it was over, the engine's own word says.
    async fn settle(&self) -> Result<()> {
        // Read before the engine is asked: a rebuild that begins meanwhile changes them, and is left alone.
        let endings = self.ledger.endings().await?;
        if !endings.is_empty() {
            for promo in self.engine.promos().await?.1 {
                let ended = endings.get(&promo.promo).copied();
                if let Some(ended) = ended.filter(|ended| promo.generation <= *ended) {
                    let current = promo.generation;
                    self.ledger
                        .take_back_ending(promo.promo, ended, current)
                        .await?;
                }
            }
        }
        self.is_settled.store(true, Ordering::SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
