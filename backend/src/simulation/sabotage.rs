//! One rule broken on purpose, so that it is seen that the simulation would find it. Most are triggers in
//! the tables: the code that runs is the real one, and what it is told to keep is not kept.

use super::house::House;
use super::invariants::Invariant;

/// A rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Reserving takes no units.
    ReserveTakesNothing,
    /// The engine lets a buyer hold a unit more than was published.
    LimitIsOff,
    /// The door has twice the places.
    DoorIsWide,
    /// The writer acknowledges before it writes.
    AcknowledgeBeforeWrite,
    /// Keys and tokens are forgotten at once.
    KeysAreForgotten,
    /// The writer skips some entries.
    EntryIsSkipped,
    /// That a release was applied is forgotten.
    ReleaseIsForgotten,
    /// Epochs fall back.
    EpochFalls,
    /// A sequence number is skipped.
    SequenceSkips,
    /// Closing brings the generation before back.
    GenerationComesBack,
    /// The ledger writes another price.
    PriceIsOff,
    /// Cancelled orders come back.
    CancelledComesBack,
    /// Spent challenges are forgotten.
    ChallengeIsForgotten,
    /// Who signs out is signed in again.
    SignOutDoesNothing,
    /// The engine says sold out while units are left.
    SoldOutTooEarly,
    /// Releases are noted as done before the engine has them.
    ReleaseIsNotBrought,
    /// The ledger lets a sweeper in that was replaced.
    FenceIsOpen,
    /// A unit too many is counted in the item's sales.
    SalesCountedTwice,
    /// The engine cannot keep reservations.
    EngineFails,
}

impl Sabotage {
    /// Every one, with the promise that it breaks.
    pub const ALL: [(Self, Invariant); 19] = [
        (Self::ReserveTakesNothing, Invariant::NeverOversell),
        (Self::LimitIsOff, Invariant::BuyerLimit),
        (Self::DoorIsWide, Invariant::DoorBound),
        (Self::AcknowledgeBeforeWrite, Invariant::NoOrderLost),
        (Self::KeysAreForgotten, Invariant::NoOrderTwice),
        (Self::EntryIsSkipped, Invariant::NoOrderLost),
        (Self::ReleaseIsForgotten, Invariant::ReleasedOnce),
        (Self::EpochFalls, Invariant::Epochs),
        (Self::SequenceSkips, Invariant::Sequence),
        (Self::GenerationComesBack, Invariant::Generations),
        (Self::PriceIsOff, Invariant::Content),
        (Self::CancelledComesBack, Invariant::OrderSteps),
        (Self::ChallengeIsForgotten, Invariant::ChallengeOnce),
        (Self::SignOutDoesNothing, Invariant::SignedOut),
        (Self::ReleaseIsNotBrought, Invariant::CleanAudit),
        (Self::FenceIsOpen, Invariant::OneSweeper),
        (Self::SalesCountedTwice, Invariant::NoOrderTwice),
        (Self::SoldOutTooEarly, Invariant::TrueRefusal),
        (Self::EngineFails, Invariant::NothingBreaks),
    ];

    /// Breaks it, if it is one of the tables'; the others [`super::line::Line`] breaks.
    pub fn break_rule(self, house: &House) {
        let (engine, ledger) = (&house.engine_rows, &house.ledger_rows);
        let (rows, trigger) = match self {
            Self::ReserveTakesNothing => (
                engine,
                "AFTER UPDATE OF available ON promos WHEN NEW.available < OLD.available
                 BEGIN UPDATE promos SET available = OLD.available
                     WHERE promo = NEW.promo AND generation = NEW.generation; END",
            ),
            Self::LimitIsOff => (
                engine,
                "AFTER INSERT ON promos BEGIN UPDATE promos SET per_buyer = per_buyer + 1
                     WHERE promo = NEW.promo AND generation = NEW.generation; END",
            ),
            Self::DoorIsWide => (
                engine,
                "AFTER INSERT ON promos BEGIN UPDATE promos SET door = door * 2
                     WHERE promo = NEW.promo AND generation = NEW.generation; END",
            ),
            Self::AcknowledgeBeforeWrite | Self::EntryIsSkipped | Self::SoldOutTooEarly => return,
            Self::KeysAreForgotten => (
                engine,
                "AFTER INSERT ON reservations BEGIN UPDATE reservations
                     SET key = NULL, body = NULL, jti = NULL WHERE promo = NEW.promo
                         AND generation = NEW.generation AND number = NEW.number; END",
            ),
            Self::ReleaseIsForgotten => (
                engine,
                "AFTER UPDATE OF is_released ON reservations WHEN NEW.is_released = 1
                 BEGIN UPDATE reservations SET is_released = 0 WHERE promo = NEW.promo
                         AND generation = NEW.generation AND number = NEW.number; END",
            ),
            Self::EpochFalls => (
                engine,
                "AFTER UPDATE OF sold_epoch ON promos WHEN NEW.sold_epoch > 1
                 BEGIN UPDATE promos SET sold_epoch = NEW.sold_epoch - 2
                     WHERE promo = NEW.promo AND generation = NEW.generation; END",
            ),
            Self::SequenceSkips => (
                engine,
                "AFTER UPDATE OF sequence ON promos
                 WHEN NEW.sequence = 5 AND OLD.sequence = 4
                 BEGIN UPDATE promos SET sequence = 6
                     WHERE promo = NEW.promo AND generation = NEW.generation; END",
            ),
            Self::GenerationComesBack => (
                engine,
                "AFTER UPDATE OF status ON promos
                 WHEN NEW.status = 'closed' AND NEW.generation > 1
                 BEGIN UPDATE promos SET is_current = 0
                         WHERE promo = NEW.promo AND generation = NEW.generation;
                     UPDATE promos SET is_current = 1
                         WHERE promo = NEW.promo AND generation = NEW.generation - 1; END",
            ),
            Self::EngineFails => (
                engine,
                "BEFORE INSERT ON reservations WHEN NEW.number > 2
                 BEGIN SELECT RAISE (ABORT, 'broken on purpose'); END",
            ),
            Self::PriceIsOff => (
                ledger,
                "AFTER INSERT ON orders WHEN NEW.amount > 1
                 BEGIN UPDATE orders SET unit_price = unit_price + 1 WHERE id = NEW.id; END",
            ),
            Self::CancelledComesBack => (
                ledger,
                "AFTER INSERT ON stock_movements WHEN NEW.kind = 'released'
                 BEGIN UPDATE orders SET state = 'written' WHERE id = NEW.order_id; END",
            ),
            Self::ChallengeIsForgotten => (
                engine,
                "AFTER INSERT ON challenges
                 BEGIN DELETE FROM challenges WHERE id = NEW.id; END",
            ),
            Self::SignOutDoesNothing => (
                engine,
                "AFTER DELETE ON sessions
                 BEGIN INSERT INTO sessions VALUES (OLD.id, OLD.buyer, OLD.expires_at); END",
            ),
            Self::ReleaseIsNotBrought => (
                ledger,
                "AFTER INSERT ON releases BEGIN UPDATE releases SET state = 'done'
                     WHERE order_id = NEW.order_id AND number = NEW.number; END",
            ),
            Self::FenceIsOpen => (
                ledger,
                "AFTER UPDATE OF fence ON fences
                 BEGIN UPDATE fences SET fence = 0 WHERE name = NEW.name; END",
            ),
            Self::SalesCountedTwice => (
                ledger,
                "AFTER UPDATE OF sales ON items WHEN NEW.sales > OLD.sales
                 BEGIN UPDATE items SET sales = NEW.sales + 1 WHERE id = NEW.id; END",
            ),
        };
        let sql = format!("CREATE TRIGGER sabotage {trigger}");
        rows.execute_batch(&sql).unwrap();
    }
}
