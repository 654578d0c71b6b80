//! A step: what it works with and what it returns. Steps are plain functions of an open transaction and
//! the time, so that they can be driven without threads, under any clock.

use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::Timestamp;
use rusqlite::Connection;

use crate::{EngineError, Signal};

/// Why a step was not taken.
#[derive(Debug)]
pub(super) enum StepError {
    /// The rules say no.
    Refused(Refusal),
    /// The file could not be read or written, or holds what cannot be.
    Broken(String),
}

/// What a step returns.
pub(super) type StepResult<T> = std::result::Result<T, StepError>;

impl From<Refusal> for StepError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<rusqlite::Error> for StepError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<serde_json::Error> for StepError {
    fn from(error: serde_json::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<StepError> for EngineError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Refused(refusal) => Self::Refused(refusal),
            StepError::Broken(detail) => Self::Unavailable(detail),
        }
    }
}

/// What a step works with: an open transaction and the time. It is all a step sees, so steps can be
/// driven without threads, under any clock. A step that refuses has written nothing before.
pub(super) struct Step<'s> {
    /// The transaction.
    pub(super) db: &'s Connection,
    /// The engine's time.
    pub(super) now: Timestamp,
    /// The stream's level.
    pub(super) level: &'s mut Level,
}

/// How full the stream is. Counting it would cost a walk through the table, so it is kept here.
#[derive(Debug)]
pub(super) struct Level {
    /// Entries that were not acknowledged.
    pub(super) entries: u64,
    /// From this many on, no new order is taken.
    pub(super) max: u64,
    /// Whether any entry was added since this was last set to false.
    pub(super) is_added: bool,
    /// What is told to the nodes once the transaction is committed.
    pub(super) signals: Vec<Signal>,
}
