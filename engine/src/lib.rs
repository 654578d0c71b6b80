//! The sale state that Floodgate's nodes share, behind one family of traits with one home for each
//! deployment: [`embedded`] (SQLite with group commit, one machine) and [`redis`] (many machines).
//!
//! | trait | holds |
//! |---|---|
//! | [`Promos`] | publishing, pausing, closing; what every node knows of a promo |
//! | [`Door`] | places: who holds a token; challenges that were spent |
//! | [`Stock`] | reservations: window, limit, idempotency key, place, stock and order event in one step |
//! | [`OrderStream`] | the queue between reservations and the ledger |
//! | [`Sessions`] | who is signed in |
//! | [`Signals`] | what nodes tell each other at once: sold out, published, an item changed |
//! | [`Leases`] | which process does what only one may do |
//! | [`Cache`] | what order servers remember together, for a while |
//! | [`Recovery`] | being rebuilt from the ledger after memory may have been lost |
//!
//! [`conformance`] is the suite that every home passes. Invariants of every home: each method that
//! changes something is one atomic, durable step; once it has returned, a crash does not undo it; a
//! step that is refused changes nothing; each change of a promo's available stock takes the promo's
//! next [`Sequence`] and leaves one [`Event`] in the stream in the same step; times are the engine's own.
//!
//! What is absent: no home trusts the caller's clock, and no call blocks the async thread it is on.
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lua_free_rules::challenge::Attempt;
use lua_free_rules::promo::{Snapshot, Terms};
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::{Access, Session};
use lua_free_rules::units::{
    BuyerId, Generation, ItemId, Millis, Money, Nonce, OrderId, PromoId, ReservationNumber,
    Sequence, SoldEpoch, Timestamp,
};
use serde::{Deserialize, Serialize};

mod bounds;
pub mod clock;
pub mod conformance;
pub mod embedded;
pub mod past;
pub mod redis;

pub use clock::{Clock, SystemClock};
pub use past::Past;

/// Why a step was not taken. Either way nothing has changed, except where a deadline passed or the
/// disk failed while the answer was under way: then the same call may be made again, since every
/// step but adding stock is idempotent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The rules say no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The engine cannot answer now. The detail is for the operator.
    #[error("the engine is not available: {0}")]
    Unavailable(String),
}

/// What a step returns.
pub type Result<T> = std::result::Result<T, EngineError>;

/// Everything a node needs of the engine, as one shared object.
pub trait Engine:
    Promos + Door + Stock + OrderStream + Sessions + Signals + Leases + Cache + Recovery
{
}

impl<T: Promos + Door + Stock + OrderStream + Sessions + Signals + Leases + Cache + Recovery> Engine
    for T
{
}

/// An engine of any home.
pub type SharedEngine = Arc<dyn Engine>;

/// What an operator asks of a published promo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// Answer 503 until resumed.
    Pause,
    /// Sell again.
    Resume,
    /// Over for good. Orders made before stay as they are.
    Close,
    /// Publish so many units more.
    AddStock(u32),
}

/// What publishing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Published {
    /// A new generation stands, with its whole stock available.
    New,
    /// The same publishing stands already; nothing changed.
    Unchanged,
}

/// A request to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// Which promo.
    pub promo: PromoId,
    /// What is proposed, its window absolute.
    pub terms: Terms,
    /// Stands for what was proposed before relative times were resolved: equal digests mean the
    /// same proposal, so that publishing twice changes nothing.
    pub digest: String,
    /// Publish only if the promo was never published: what `run` does at its start.
    pub only_first: bool,
}

/// Publishing and steering promos.
#[async_trait]
pub trait Promos: Send + Sync + 'static {
    /// Publishes a promo. The first publishing has generation 1. A publishing whose digest equals
    /// that of the current one, while this has not ended and is not closed, is
    /// [`Published::Unchanged`]. One that differs replaces a promo that has not begun (generation
    /// + 1, whole stock); it also follows one that has ended or was closed (generation + 1).
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] while the current publishing has begun and is neither over nor
    /// closed: a running sale is never reset. [`Refusal::BadParameter`] for terms that cannot sell
    /// (no stock, no price, no places, a limit of zero, tokens that live less than a second, a
    /// window that is empty or already past).
    async fn publish(&self, request: Publish) -> Result<(Published, Snapshot)>;

    /// Pauses, resumes, closes, or adds stock. Repeating pause, resume or close changes nothing.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] for a promo never published; [`Refusal::NotAllowed`] to pause, resume
    /// or add stock to a closed one; [`Refusal::BadParameter`] for zero units, or more than fit.
    async fn control(&self, promo: PromoId, control: Control) -> Result<Snapshot>;

    /// Every promo in its current generation, with the engine's time of the answer.
    async fn promos(&self) -> Result<(Timestamp, Vec<Snapshot>)>;

    /// One generation of a promo as it stands, for the audit: `available` and `sequence` are read
    /// together. Earlier generations are kept while their orders are.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    async fn snapshot(&self, promo: PromoId, generation: Generation) -> Result<Snapshot>;

    /// Upkeep that follows the clock: takes back places whose tokens expired unused, tells buyers
    /// of stock that came back, forgets spent challenges, ended sessions, and idempotency keys and
    /// places past their keeping (promo end + `pay_within` + 24 h). Reservations stay, and with them
    /// what their buyers hold. Call it about once a second.
    async fn tend(&self) -> Result<()>;
}

/// A request for a place behind the door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which promo.
    pub promo: PromoId,
    /// Whose session asks; its record is checked in the same step.
    pub session: Session,
    /// The challenge that was answered; `None` where the promo asks for none.
    pub attempt: Option<Attempt>,
    /// The id of the token that would be issued, drawn by the caller.
    pub jti: Nonce,
}

/// The door: at most `stock x door` places, each charged to one buyer once.
#[async_trait]
pub trait Door: Send + Sync + 'static {
    /// Gives the buyer a place, or the live token of the place he has.
    ///
    /// In this order, in one step: the session must be alive; the promo open and within its window
    /// and not sold out (`available > 0`); an unused token is returned as it is until it expires
    /// (no leeway: it would be of no use) and the challenge stays unspent; a buyer at his limit is
    /// refused; a buyer who has a place, used or with an expired token, gets a new token on that
    /// place; else a new place is charged if one is free, places whose tokens expired unused, the
    /// leeway over, being taken back first. The limit counts the units a buyer holds in this
    /// generation. A token that is issued
    /// spends the challenge in the same step. Issued and expiry times are whole seconds of the
    /// engine's clock; a token never outlives the promo's end.
    ///
    /// # Errors
    /// [`Refusal::NotSignedIn`], [`Refusal::NotFound`], [`Refusal::NotOpen`], [`Refusal::Paused`],
    /// [`Refusal::SoldOut`], [`Refusal::PerBuyerLimit`], [`Refusal::ChallengeFailed`] (spent or
    /// expired), [`Refusal::DoorFull`] (the challenge stays unspent).
    async fn enter(&self, entry: Entry) -> Result<Access>;

    /// Spends a challenge of that promo that was answered wrongly. Returns whether this was its first
    /// attempt.
    async fn spend(&self, promo: PromoId, attempt: Attempt) -> Result<bool>;
}

/// A request to reserve units for an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    /// The verified access token.
    pub access: Access,
    /// The session of the request; its record is checked in the same step.
    pub session: Session,
    /// How many units.
    pub amount: u32,
    /// The idempotency key; without one, the token's jti.
    pub key: String,
    /// A digest of what was asked (item, promo, amount), to tell a retry from another request
    /// under the same key.
    pub body: String,
}

/// A reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The order it is for.
    pub order: OrderId,
    /// Its number; for a first reservation the number in the order id.
    pub number: ReservationNumber,
    /// Whose it is.
    pub buyer: BuyerId,
    /// What is bought.
    pub item: ItemId,
    /// How many units.
    pub amount: u32,
    /// The price of one, as published.
    pub price: Money,
    /// When it was made, by the engine's clock.
    pub made_at: Timestamp,
    /// How long the written order waits for payment.
    pub pay_within: Millis,
    /// The number of the change of stock it made.
    pub sequence: Sequence,
}

/// What reserving did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// The reservation, new or found.
    pub reservation: Reservation,
    /// Whether it had been made before, under this key or with this token.
    pub repeated: bool,
    /// Whether the promo is sold out after this step, and its epoch: what edges are told.
    pub sold_out: bool,
    /// The epoch that belongs to `sold_out`.
    pub sold_epoch: SoldEpoch,
}

/// A release: units of an order that ended unpaid go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Release {
    /// The order that ended.
    pub order: OrderId,
    /// Which of its reservations.
    pub number: ReservationNumber,
}

/// Stock and reservations.
#[async_trait]
pub trait Stock: Send + Sync + 'static {
    /// Reserves units and stores the order event, in one step.
    ///
    /// In this order: the session must be alive and its buyer the token's; an order under (buyer,
    /// promo, key) is returned, or [`Refusal::KeyReused`] if its body differs; an order made with
    /// this token is returned whatever its body, all this also after sell-out, close, and expiry;
    /// then generation, status, window, expiry (by the engine's clock, leeway granted) and the
    /// place's current jti must allow it, the buyer's limit must hold, and the stock suffice.
    /// A home may bound how often one buyer may order and give back in a sale, far beyond what anyone does
    /// who means to buy; then it is [`Refusal::PerBuyerLimit`].
    /// Reserving moves the place to used. The sold-out epoch is raised if nothing is left.
    ///
    /// # Errors
    /// [`Refusal::NotSignedIn`], [`Refusal::KeyReused`], [`Refusal::NotFound`],
    /// [`Refusal::TokenInvalid`] (buyer, item, generation, expiry, or not the place's current token),
    /// [`Refusal::NotOpen`], [`Refusal::Paused`], [`Refusal::PerBuyerLimit`], [`Refusal::SoldOut`]
    /// (available = 0), [`Refusal::BadParameter`] (amount zero, fewer units left than asked for, or
    /// a key or body beyond its bound), [`Refusal::Overloaded`] (rebuilding, or the stream is at its bound).
    async fn reserve(&self, request: Reserve) -> Result<Reserved>;

    /// Reserves again for an order whose payment came late, under a new number. Repeating it with
    /// the same `payment` returns the same reservation. A closed promo or an earlier generation has
    /// nothing left: its unsold units may have been published again. The window, the door and the stream's bound
    /// do not matter here; stock and the buyer's limit do.
    ///
    /// # Errors
    /// [`Refusal::SoldOut`] (fewer units left than the order had), [`Refusal::PerBuyerLimit`],
    /// [`Refusal::NotFound`], and [`Refusal::NotAllowed`] while the order's last reservation is not
    /// released.
    async fn reserve_again(&self, order: OrderId, payment: &str) -> Result<Reservation>;

    /// Gives the units of a reservation back. Returns whether this call did; each pair of order and
    /// number is applied once, whatever is repeated. A buyer none of whose orders holds units gives
    /// his place back too, unless a token he did not use yet still stands on it. The units go back
    /// to the generation they were reserved in. Available stock is told to buyers at most once a
    /// second.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] for a reservation never made.
    async fn release(&self, release: Release) -> Result<bool>;

    /// The first reservation of an order.
    async fn reservation(&self, order: OrderId) -> Result<Option<Reservation>>;
}

/// Something that changed a promo's available stock. The events of a promo tell everything that an
/// engine would have to know again if it lost its memory, places and sessions excepted: the ledger
/// keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Which promo.
    pub promo: PromoId,
    /// Which publishing of it.
    pub generation: Generation,
    /// The number of the change.
    pub sequence: Sequence,
    /// When, by the engine's clock.
    pub at: Timestamp,
    /// What.
    pub change: Change,
}

/// The kinds of change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Units were published: the first event of a generation.
    Published {
        /// How many.
        stock: u32,
        /// All that was published.
        terms: Box<Terms>,
        /// The digest of the proposal.
        digest: String,
    },
    /// Units were added.
    Added {
        /// How many.
        stock: u32,
    },
    /// Units were reserved for a new order.
    Reserved {
        /// The reservation.
        reservation: Reservation,
        /// The idempotency key it was made under.
        key: String,
        /// The digest of the request.
        body: String,
        /// The id of the token it was made with.
        jti: Nonce,
    },
    /// Units were reserved again for an order whose payment came late.
    ReservedAgain {
        /// The new reservation.
        reservation: Reservation,
        /// The payment that asked for it.
        payment: String,
    },
    /// Units came back.
    Released {
        /// Which reservation they were of.
        release: Release,
        /// How many.
        amount: u32,
    },
}

impl Change {
    /// By how many units `available` changed.
    pub fn delta(&self) -> i64 {
        match self {
            Self::Published { stock, .. } | Self::Added { stock } => i64::from(*stock),
            Self::Reserved { reservation, .. } | Self::ReservedAgain { reservation, .. } => {
                -i64::from(reservation.amount)
            }
            Self::Released { amount, .. } => i64::from(*amount),
        }
    }

    /// The first reservation of an order, if one was made.
    pub const fn reservation(&self) -> Option<&Reservation> {
        match self {
            Self::Reserved { reservation, .. } => Some(reservation),
            _ => None,
        }
    }

    /// The order whose units moved.
    pub const fn order(&self) -> Option<OrderId> {
        match self {
            Self::Published { .. } | Self::Added { .. } => None,
            Self::Reserved { reservation, .. } | Self::ReservedAgain { reservation, .. } => {
                Some(reservation.order)
            }
            Self::Released { release, .. } => Some(release.order),
        }
    }
}

/// Where an event lies: in which stream, and as which of its events. Later events of a stream have
/// greater numbers; a number never comes twice. Written `7-42`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryId {
    /// The stream: a home may have one for each promo, or one for all (0).
    pub stream: i64,
    /// The event in it.
    pub number: i64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.stream, self.number)
    }
}

impl FromStr for EntryId {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parts = text.split_once('-').and_then(|(stream, number)| {
            Some(Self {
                stream: stream.parse().ok()?,
                number: number.parse().ok()?,
            })
        });
        // One spelling only: what is parsed must print as it was written.
        parts
            .filter(|id: &Self| id.to_string() == text)
            .ok_or_else(|| "not an entry's id: write one like 7-42".to_owned())
    }
}

impl TryFrom<String> for EntryId {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<EntryId> for String {
    fn from(id: EntryId) -> Self {
        id.to_string()
    }
}

/// An event as it lies in the stream. The payload is kept as text so that one that cannot be read
/// is set aside, not lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntry {
    /// Where it lies.
    pub id: EntryId,
    /// The event in JSON.
    pub payload: String,
}

/// How much waits in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Backlog {
    /// Entries that were not acknowledged.
    pub entries: u64,
    /// When the oldest of them was made.
    pub oldest: Option<Timestamp>,
    /// Entries set aside.
    pub dead_letters: u64,
}

/// An entry that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where it lay.
    pub id: EntryId,
    /// The event in JSON, or what should have been one.
    pub payload: String,
    /// Why it was set aside.
    pub reason: String,
}

/// The queue between reservations and the ledger. Each event is delivered at least once: to one of the
/// processes that read, and to another one if that one is gone. To one reader the events of a promo
/// come in the order of the steps that made them; what was not acknowledged before a crash comes again.
#[async_trait]
pub trait OrderStream: Send + Sync + 'static {
    /// Up to `max` entries that no process has read, waiting up to `wait` for the first. The first read
    /// of a process begins with what it had read before and not acknowledged. A read that is given up
    /// takes nothing with it.
    async fn read(&self, max: usize, wait: Duration) -> Result<Vec<StreamEntry>>;

    /// Reads again from the oldest entry that this process read and did not acknowledge: after a batch
    /// failed.
    async fn rewind(&self) -> Result<()>;

    /// Takes entries off the stream: the ledger has them. Repeating it changes nothing.
    async fn acknowledge(&self, ids: &[EntryId]) -> Result<()>;

    /// Moves an entry that this process has read among the dead letters, so that the rest can go on; also
    /// one that the engine has lost meanwhile.
    async fn set_aside(&self, id: EntryId, reason: &str) -> Result<()>;

    /// How much waits.
    async fn backlog(&self) -> Result<Backlog>;

    /// Up to `max` entries that were set aside, oldest first.
    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>>;

    /// Puts an entry that was set aside back at the end of the stream, for another try. False if it is
    /// not among the dead letters.
    async fn replay(&self, id: EntryId) -> Result<bool>;
}

/// Who is signed in.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// Records a session.
    async fn sign_in(&self, session: Session) -> Result<()>;

    /// Whether the session has a record of the same buyer and has not ended.
    async fn is_signed_in(&self, session: Session) -> Result<bool>;

    /// Removes a session's record: from now on nothing accepts it. Repeating it changes nothing.
    async fn sign_out(&self, session: Session) -> Result<()>;
}

/// Something that other nodes should know at once. It says no more than where to look again: a node
/// that misses one learns the same by asking, a little later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// A promo sold out, or its stock came back.
    Sold {
        /// Which promo.
        promo: PromoId,
        /// Which publishing of it.
        generation: Generation,
        /// Which change between sold out and available this is.
        epoch: SoldEpoch,
        /// What it is now.
        sold_out: bool,
    },
    /// A promo was published or steered.
    Promo(PromoId),
    /// An item was changed.
    Item(ItemId),
    /// Signals may have been missed: look at everything again.
    Missed,
}

/// What nodes tell each other at once.
#[async_trait]
pub trait Signals: Send + Sync + 'static {
    /// Every signal from now on, this process' own included. The engine itself tells of promos; a
    /// listener that is too slow, or was cut off, gets [`Signal::Missed`] or a lag error.
    fn listen(&self) -> tokio::sync::broadcast::Receiver<Signal>;

    /// Tells all nodes. Best effort: while the engine is away nobody hears it.
    async fn tell(&self, signal: Signal) -> Result<()>;
}

/// A number that rises each time a lease passes to another holder. What a holder writes elsewhere
/// carries it, so that one who was replaced and does not know it yet can be told. It never falls, not
/// even where the engine lost its memory: none is less than the engine's clock, in milliseconds, when the
/// lease passed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Fence(pub i64);

/// Which process does what only one may do.
#[async_trait]
pub trait Leases: Send + Sync + 'static {
    /// Takes the lease `name` for `holder` until `ttl` from now by the engine's clock; renewed by its
    /// holder, it keeps its fence. `None` while another one holds it. Each start of a process needs
    /// a holder's name of its own.
    async fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<Fence>>;

    /// Gives the lease back, if `holder` has it.
    async fn give_back(&self, name: &str, holder: &str) -> Result<()>;
}

/// For so long after a key was forgotten nothing is remembered under it.
pub const FORGOTTEN_FOR: Duration = Duration::from_secs(2);

/// What order servers remember together, for a while: copies of what the ledger holds, nothing else.
/// A home may forget early, never late.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// What is remembered under `key`.
    async fn recall(&self, key: &str) -> Result<Option<Vec<u8>>>;

    /// Remembers `value` under `key` for `ttl`, but not within [`FORGOTTEN_FOR`] of its being
    /// forgotten: whoever read the ledger before it changed does not bring the old copy back. So call
    /// it only with what was read less than that time ago.
    async fn remember(&self, key: &str, value: &[u8], ttl: Duration) -> Result<()>;

    /// Forgets what is under `key`, and what anyone remembers there within [`FORGOTTEN_FOR`].
    async fn forget(&self, key: &str) -> Result<()>;
}

/// Being rebuilt from the ledger. A home that may come back without what it had answered for takes no
/// step until this was done; its order stream can be read and acknowledged all the same.
#[async_trait]
pub trait Recovery: Send + Sync + 'static {
    /// Whether the engine waits to be rebuilt.
    async fn is_lost(&self) -> Result<bool>;

    /// Makes `holder` the one who rebuilds, for a minute; what other readers of the stream have taken
    /// and not acknowledged is handed to this process. False while another one is at it. Call it again
    /// to go on.
    async fn begin_rebuild(&self, holder: &str) -> Result<bool>;

    /// Rebuilds every promo from its past, and opens the engine. The stream must be empty: all of it is
    /// in `past`, and so are those events that were set aside and still count. A sale that is not over goes on in a new
    /// generation: what is left becomes its stock, buyers keep what they hold, idempotency keys find
    /// their orders, and tokens must be asked for again. Units that come back later are added to it.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] if `holder` was replaced meanwhile: then nothing was opened.
    async fn rebuild(&self, holder: &str, past: Vec<Past>) -> Result<()>;
}
