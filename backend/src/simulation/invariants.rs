//! The promises, by name.

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Invariant {
    /// Units held never exceed those published, and none is lost.
    NeverOversell,
    /// A buyer never holds more than his limit.
    BuyerLimit,
    /// Places never exceed stock times door.
    DoorBound,
    /// What was accepted is in the stream or in the ledger.
    NoOrderLost,
    /// One order for each key and for each token; the same answer for the same key.
    NoOrderTwice,
    /// The units of a reservation go back once, and only after its order has ended.
    ReleasedOnce,
    /// Epochs only rise, and tell sold out from available.
    Epochs,
    /// Sequence numbers rise by one.
    Sequence,
    /// Generations rise, one is current.
    Generations,
    /// The ledger holds what was reserved, for the price that was published.
    Content,
    /// Orders go only where the table of their steps says.
    OrderSteps,
    /// A sweeper that was replaced ends no order.
    OneSweeper,
    /// A challenge gives one token.
    ChallengeOnce,
    /// Nothing is bought in a session that was signed out.
    SignedOut,
    /// A refusal was true when it was given.
    TrueRefusal,
    /// At rest the audit is clean, and nothing is left on its way.
    CleanAudit,
    /// Nothing fails but what is made to fail.
    NothingBreaks,
}

impl Invariant {
    /// Every one.
    pub const ALL: [Self; 17] = [
        Self::NeverOversell,
        Self::BuyerLimit,
        Self::DoorBound,
        Self::NoOrderLost,
        Self::NoOrderTwice,
        Self::ReleasedOnce,
        Self::Epochs,
        Self::Sequence,
        Self::Generations,
        Self::Content,
        Self::OrderSteps,
        Self::OneSweeper,
        Self::ChallengeOnce,
        Self::SignedOut,
        Self::TrueRefusal,
        Self::CleanAudit,
        Self::NothingBreaks,
    ];
}

/// Which promise is broken, and how.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How.
    pub detail: String,
}

/// Whether all is well.
pub type Check<T = ()> = Result<T, Violation>;

/// Says that a promise is broken unless `holds`.
pub fn demand(invariant: Invariant, holds: bool, detail: impl FnOnce() -> String) -> Check {
    if holds {
        return Ok(());
    }
    let detail = detail();
    Err(Violation { invariant, detail })
}
