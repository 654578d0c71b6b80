//! What can go wrong in an order server: a refusal for the buyer, a detail for the operator.

use std::net::SocketAddr;

use engine::EngineError;
use lua_free_rules::refusal::Refusal;

use crate::ledger::codes;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The rules say no. There is no further detail.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Sold out, with what the edges are told about it.
    #[error("sold out")]
    SoldOut {
        /// The value of the header `floodgate-sold-out`, if the engine could say.
        signal: Option<String>,
    },
    /// The engine cannot answer now.
    #[error("the engine is not available: {0}")]
    Engine(String),
    /// The database failed, or could not be reached.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database's schema could not be brought up to date.
    #[error("the database's schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// The ledger holds something else under the same key, or nothing where there must be something.
    #[error("the ledger contradicts the stream: {0}")]
    Contradiction(String),
    /// The engine lost an event and was rebuilt before it came: its units are sold again. The detail says
    /// what is to be done about it.
    #[error("the engine lost this and was rebuilt without it: {0}")]
    RebuiltWithout(String),
    /// Another process holds the lease by now.
    #[error("another process has taken over the lease `{0}`")]
    Replaced(&'static str),
    /// An address cannot be listened at.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// What it was started with cannot work.
    #[error("{0}")]
    Settings(String),
    /// Our fault.
    #[error("unexpected: {0}")]
    Unexpected(String),
    /// Our fault too: what is ours alone could not be put into JSON.
    #[error("unexpected: {0}")]
    Json(#[from] serde_json::Error),
}

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, BackendError>;

impl From<EngineError> for BackendError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Refused(refusal) => Self::Refused(refusal),
            EngineError::Unavailable(detail) => Self::Engine(detail),
        }
    }
}

impl BackendError {
    /// What the buyer is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal.clone(),
            Self::SoldOut { .. } => Refusal::SoldOut,
            _ if self.is_outage() => Refusal::Overloaded,
            _ => Refusal::Unexpected,
        }
    }

    /// Whether what was to be written can never be written, however often it is tried. Anything that
    /// is not known to be so is waited for: an accepted order is not set aside on a guess.
    pub fn is_poison(&self) -> bool {
        match self {
            Self::Contradiction(_) | Self::RebuiltWithout(_) => true,
            Self::Database(error) => codes::is_poison(error),
            _ => false,
        }
    }

    /// Whether the engine or the database is away: the same call may succeed later, and nothing is
    /// wrong with what was asked.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Engine(_) => true,
            Self::Database(error) => codes::is_outage(error),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_as_overload_and_a_fault_as_unexpected() {
        let away = BackendError::Database(sqlx::Error::PoolTimedOut);
        assert_eq!(away.refusal(), Refusal::Overloaded);
        assert_eq!(
            BackendError::Engine("gone".to_owned()).refusal(),
            Refusal::Overloaded
        );
        assert_eq!(
            BackendError::Database(sqlx::Error::RowNotFound).refusal(),
            Refusal::Unexpected
        );
        assert_eq!(
            BackendError::from(EngineError::Refused(Refusal::SoldOut)).refusal(),
            Refusal::SoldOut
        );
    }
}
