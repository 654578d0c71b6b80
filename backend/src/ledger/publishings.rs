//! Publishings: the terms under which each generation of a promo was sold.

use engine::{Change, Event};
use lua_free_rules::promo::Terms;
use lua_free_rules::units::{Generation, PromoId, Timestamp};

use super::Ledger;
use super::connection::Tx;
use super::values::Row;
use crate::error::{BackendError, Result};

/// A publishing as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publishing {
    /// Which promo.
    pub promo: PromoId,
    /// Which publishing of it.
    pub generation: Generation,
    /// The digest of the proposal.
    pub digest: String,
    /// What was published; units that were added later are not counted in its stock.
    pub terms: Terms,
    /// When, by the engine's clock.
    pub at: Timestamp,
}

impl Publishing {
    /// What an event tells of a publishing.
    pub(super) fn told_by(event: &Event) -> Option<Self> {
        match &event.change {
            Change::Published { terms, digest, .. } => Some(Self {
                promo: event.promo,
                generation: event.generation,
                digest: digest.clone(),
                terms: (**terms).clone(),
                at: event.at,
            }),
            _ => None,
        }
    }
}

macro_rules! select {
    ($condition:literal) => {
        concat!(
            "SELECT promo, generation, digest, terms, at FROM publishings ",
            $condition
        )
    };
}

impl Ledger {
    /// Every publishing of a promo, the first one first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn publishings(&self, promo: PromoId) -> Result<Vec<Publishing>> {
        self.read(ALL)
            .await?
            .bind(promo.0)
            .fetch_all()
            .await?
            .iter()
            .map(read_publishing)
            .collect()
    }
}

const ALL: &str = select!("WHERE promo = ? ORDER BY generation");

/// The same, inside a transaction.
pub(super) async fn publishings_in(tx: &mut Tx, promo: PromoId) -> Result<Vec<Publishing>> {
    let rows = tx.query(ALL).bind(promo.0).fetch_all().await?;
    rows.iter().map(read_publishing).collect()
}

/// The publishing that an event tells of, if the ledger has it.
pub(super) async fn publishing_in(tx: &mut Tx, event: &Event) -> Result<Option<Publishing>> {
    let row = tx
        .query(select!("WHERE promo = ? AND generation = ?"))
        .bind(event.promo.0)
        .bind(event.generation.0)
        .fetch_optional()
        .await?;
    row.as_ref().map(read_publishing).transpose()
}

pub(super) async fn insert_publishing(tx: &mut Tx, publishing: &Publishing) -> Result<()> {
    tx.query(
        "INSERT INTO publishings (promo, generation, digest, terms, at) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(publishing.promo.0)
    .bind(publishing.generation.0)
    .bind(&publishing.digest)
    .bind(serde_json::to_string(&publishing.terms)?)
    .bind(publishing.at.0)
    .execute()
    .await?;
    Ok(())
}

fn read_publishing(row: &Row) -> Result<Publishing> {
    let terms: String = row.get("terms")?;
    Ok(Publishing {
        promo: PromoId(row.get("promo")?),
        generation: Generation(row.get("generation")?),
        digest: row.get("digest")?,
        terms: serde_json::from_str(&terms)
            .map_err(|error| BackendError::Unexpected(format!("`{terms}`: {error}")))?,
        at: Timestamp(row.get("at")?),
    })
}
