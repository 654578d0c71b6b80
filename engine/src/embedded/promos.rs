//! The row of a promo's generation: its terms and counts; publishing and steering it.

use lua_free_rules::challenge::Kind;
use lua_free_rules::promo::{Snapshot, Status, Terms};
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{
    Generation, ItemId, Millis, Money, PromoId, ReservationNumber, Sequence, SoldEpoch, Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::step::{Step, StepError, StepResult};
use super::stream;
use crate::{Change, Control, Event, Publish, Published, Signal};

/// Buyers are told of stock that came back at most once in this time.
const REOPEN_EVERY_MS: i64 = 1_000;
/// One generation of a promo.
pub(super) struct Row {
    /// What nodes are told of it.
    pub(super) snapshot: Snapshot,
    /// Whether no later generation was published.
    pub(super) is_current: bool,
    /// The number of the last reservation.
    pub(super) last_number: ReservationNumber,
    /// When buyers were last told that stock came back.
    reopened_at: Option<Timestamp>,
}

const COLUMNS: &str = "promo, generation, item, starts_at, ends_at, price, stock, door, per_buyer, \
    pay_within, token_ttl, challenges, status, available, sold_out, sold_epoch, sequence, \
    places_issued, places_used, is_current, last_number, reopened_at";

/// The current generation of a promo.
pub(super) fn current(db: &Connection, promo: PromoId) -> StepResult<Option<Row>> {
    // Built once: `prepare_cached` finds the statement by its text.
    static SQL: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        format!("SELECT {COLUMNS} FROM promos WHERE promo = ?1 AND is_current = 1")
    });
    let mut statement = db.prepare_cached(&SQL)?;
    Ok(statement.query_row([promo.0], read).optional()?)
}

/// One generation of a promo.
pub(super) fn generation(
    db: &Connection,
    promo: PromoId,
    generation: Generation,
) -> StepResult<Option<Row>> {
    static SQL: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        format!("SELECT {COLUMNS} FROM promos WHERE promo = ?1 AND generation = ?2")
    });
    let mut statement = db.prepare_cached(&SQL)?;
    Ok(statement
        .query_row([promo.0, generation.0], read)
        .optional()?)
}

/// Every promo in its current generation.
pub(super) fn all(db: &Connection) -> StepResult<Vec<Row>> {
    let sql = format!("SELECT {COLUMNS} FROM promos WHERE is_current = 1 ORDER BY promo");
    let mut statement = db.prepare_cached(&sql)?;
    Ok(statement.query_map([], read)?.collect::<Result<_, _>>()?)
}

/// Publishes a promo.
pub(super) fn publish(step: &mut Step<'_>, request: &Publish) -> StepResult<(Published, Snapshot)> {
    let current = current(step.db, request.promo)?;
    if let Some(row) = &current {
        let is_over =
            row.snapshot.status == Status::Closed || step.now >= row.snapshot.terms.ends_at;
        let is_same = !is_over && digest(step.db, row)? == request.digest;
        if request.only_first || is_same {
            return Ok((Published::Unchanged, row.snapshot.clone()));
        }
        // What has sold has begun, even if the clock was set back since.
        let has_begun = step.now >= row.snapshot.terms.starts_at || row.last_number.0 > 0;
        if has_begun && !is_over {
            return Err(Refusal::NotAllowed.into());
        }
    }
    check(&request.terms, step.now)?;
    let mut row = Row {
        snapshot: Snapshot {
            promo: request.promo,
            generation: Generation(1),
            terms: request.terms.clone(),
            status: Status::Open,
            available: 0,
            sold_out: false,
            sold_epoch: SoldEpoch::default(),
            sequence: Sequence::default(),
            places_issued: 0,
            places_used: 0,
        },
        is_current: true,
        last_number: ReservationNumber::default(),
        reopened_at: None,
    };
    if let Some(before) = &current {
        row.snapshot.generation = Generation(before.snapshot.generation.0 + 1);
        // A new generation is available: that is a change if the one before was sold out.
        row.snapshot.sold_epoch =
            SoldEpoch(before.snapshot.sold_epoch.0 + i64::from(before.snapshot.sold_out));
        row.reopened_at = before.snapshot.sold_out.then_some(step.now);
        step.db
            .prepare_cached("UPDATE promos SET is_current = 0 WHERE promo = ?1 AND is_current = 1")?
            .execute([request.promo.0])?;
    }
    insert(step.db, &row, &request.digest)?;
    step.level.signals.push(Signal::Promo(request.promo));
    let published = Change::Published {
        stock: request.terms.stock,
        terms: Box::new(request.terms.clone()),
        digest: request.digest.clone(),
    };
    change(step, &mut row, published)?;
    Ok((Published::New, row.snapshot))
}

/// Pauses, resumes, closes, or adds stock.
pub(super) fn control(
    step: &mut Step<'_>,
    promo: PromoId,
    control: Control,
) -> StepResult<Snapshot> {
    let mut row = current(step.db, promo)?.ok_or(Refusal::NotFound)?;
    let status = match (control, row.snapshot.status) {
        (Control::Close, _) => Status::Closed,
        (_, Status::Closed | Status::Rebuilding) => return Err(Refusal::NotAllowed.into()),
        (Control::Pause, _) => Status::Paused,
        (Control::Resume, _) => Status::Open,
        (Control::AddStock(units), _) => {
            let stock = row.snapshot.terms.stock.checked_add(units);
            let Some(stock) = stock.filter(|_| units > 0) else {
                return Err(Refusal::BadParameter(
                    "add at least one unit, and no more than fit".to_owned(),
                )
                .into());
            };
            row.snapshot.terms.stock = stock;
            step.level.signals.push(Signal::Promo(promo));
            change(step, &mut row, Change::Added { stock: units })?;
            return Ok(row.snapshot);
        }
    };
    if status != row.snapshot.status {
        row.snapshot.status = status;
        step.level.signals.push(Signal::Promo(promo));
        save(step.db, &row)?;
    }
    Ok(row.snapshot)
}

impl Row {
    /// The number of the next change of its available stock.
    pub(super) const fn next_sequence(&self) -> Sequence {
        Sequence(self.snapshot.sequence.0 + 1)
    }

    /// What the nodes are told when it sold out or came back.
    pub(super) const fn sold(&self) -> Signal {
        Signal::Sold {
            promo: self.snapshot.promo,
            generation: self.snapshot.generation,
            epoch: self.snapshot.sold_epoch,
            sold_out: self.snapshot.sold_out,
        }
    }

    /// Takes the next reservation number.
    pub(super) const fn next_number(&mut self) -> ReservationNumber {
        self.last_number.0 += 1;
        self.last_number
    }

    /// Lets `sold_out` follow `available`: at once when nothing is left, and at most once a second
    /// when something came back. An earlier generation is no longer told to anyone. Returns whether
    /// it changed.
    pub(super) fn follow(&mut self, now: Timestamp) -> bool {
        let promo = &mut self.snapshot;
        let sold_out = promo.available == 0;
        if !self.is_current || sold_out == promo.sold_out {
            return false;
        }
        if !sold_out {
            // A clock that was set back far does not keep buyers waiting.
            let is_early = self.reopened_at.is_some_and(|last| {
                now.ms_since(last).checked_abs().unwrap_or(i64::MAX) < REOPEN_EVERY_MS
            });
            if is_early {
                return false;
            }
            self.reopened_at = Some(now);
        }
        promo.sold_out = sold_out;
        promo.sold_epoch.0 += 1;
        true
    }
}

/// Applies a change of available stock: its sequence number, its event, and what buyers are told.
pub(super) fn change(step: &mut Step<'_>, row: &mut Row, change: Change) -> StepResult<()> {
    let promo = &mut row.snapshot;
    let available = i64::from(promo.available) + change.delta();
    promo.available = u32::try_from(available)
        .ok()
        .filter(|available| *available <= promo.terms.stock)
        .ok_or_else(|| StepError::Broken(format!("{available} units would be available")))?;
    promo.sequence.0 += 1;
    let event = Event {
        promo: promo.promo,
        generation: promo.generation,
        sequence: promo.sequence,
        at: step.now,
        change,
    };
    if row.follow(step.now) {
        step.level.signals.push(row.sold());
    }
    save(step.db, row)?;
    stream::append(step, &event)
}

/// Writes what changes in a row.
pub(super) fn save(db: &Connection, row: &Row) -> StepResult<()> {
    let promo = &row.snapshot;
    let saved = db
        .prepare_cached(
            "UPDATE promos SET stock = ?3, status = ?4, available = ?5, sold_out = ?6,
                 sold_epoch = ?7, sequence = ?8, places_issued = ?9, places_used = ?10,
                 last_number = ?11, reopened_at = ?12
             WHERE promo = ?1 AND generation = ?2",
        )?
        .execute(params![
            promo.promo.0,
            promo.generation.0,
            promo.terms.stock,
            status_name(promo.status),
            promo.available,
            promo.sold_out,
            promo.sold_epoch.0,
            promo.sequence.0,
            count(promo.places_issued)?,
            count(promo.places_used)?,
            row.last_number.0,
            row.reopened_at.map(|at| at.0),
        ])?;
    if saved != 1 {
        return Err(StepError::Broken("a promo's row is missing".to_owned()));
    }
    Ok(())
}

fn check(terms: &Terms, now: Timestamp) -> Result<(), Refusal> {
    let is_past = terms.ends_at <= now;
    match terms
        .fault()
        .or(is_past.then_some("the sale would be over already"))
    {
        Some(fault) => Err(Refusal::BadParameter(fault.to_owned())),
        None => Ok(()),
    }
}

fn digest(db: &Connection, row: &Row) -> StepResult<String> {
    let mut statement =
        db.prepare_cached("SELECT digest FROM promos WHERE promo = ?1 AND generation = ?2")?;
    let key = [row.snapshot.promo.0, row.snapshot.generation.0];
    Ok(statement.query_row(key, |row| row.get(0))?)
}

fn insert(db: &Connection, row: &Row, digest: &str) -> StepResult<()> {
    let promo = &row.snapshot;
    let terms = &promo.terms;
    let challenges: Vec<&str> = terms.challenges.iter().map(|kind| kind.name()).collect();
    let forget_at = terms.forget_at();
    db.prepare_cached(
        "INSERT INTO promos (promo, generation, is_current, digest, item, starts_at, ends_at,
             price, stock, door, per_buyer, pay_within, token_ttl, challenges, status, available,
             sequence, sold_out, sold_epoch, reopened_at, places_issued, places_used, last_number,
             forget_at, forgotten_to)
         VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 0, 0, 0, ?15,
             ?16, 0, 0, 0, ?17, 0)",
    )?
    .execute(params![
        promo.promo.0,
        promo.generation.0,
        digest,
        terms.item.0,
        terms.starts_at.0,
        terms.ends_at.0,
        terms.price.minor(),
        terms.stock,
        terms.door,
        terms.per_buyer,
        terms.pay_within.ms(),
        terms.token_ttl.ms(),
        challenges.join(","),
        status_name(promo.status),
        promo.sold_epoch.0,
        row.reopened_at.map(|at| at.0),
        forget_at.0,
    ])?;
    Ok(())
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let challenges = row.get_ref(11)?.as_str()?;
    let terms = Terms {
        item: ItemId(row.get(2)?),
        starts_at: Timestamp(row.get(3)?),
        ends_at: Timestamp(row.get(4)?),
        price: price(row, 5)?,
        stock: row.get(6)?,
        door: row.get(7)?,
        per_buyer: row.get(8)?,
        pay_within: millis(row, 9)?,
        token_ttl: millis(row, 10)?,
        challenges: challenges
            .split(',')
            .filter(|name| !name.is_empty())
            .map(|name| name.parse::<Kind>().map_err(|words| invalid(11, words)))
            .collect::<Result<_, _>>()?,
    };
    let status = row.get_ref(12)?.as_str()?;
    let snapshot = Snapshot {
        promo: PromoId(row.get(0)?),
        generation: Generation(row.get(1)?),
        terms,
        status: STATUSES
            .into_iter()
            .find(|candidate| status_name(*candidate) == status)
            .ok_or_else(|| invalid(12, format!("`{status}` is not a status")))?,
        available: row.get(13)?,
        sold_out: row.get(14)?,
        sold_epoch: SoldEpoch(row.get(15)?),
        sequence: Sequence(row.get(16)?),
        places_issued: row.get::<_, i64>(17)?.unsigned_abs(),
        places_used: row.get::<_, i64>(18)?.unsigned_abs(),
    };
    Ok(Row {
        snapshot,
        is_current: row.get(19)?,
        last_number: ReservationNumber(row.get(20)?),
        reopened_at: row.get::<_, Option<i64>>(21)?.map(Timestamp),
    })
}

/// A price as it is stored.
pub(super) fn price(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<Money> {
    let minor = row.get(index)?;
    Money::from_minor(minor).ok_or(rusqlite::Error::IntegralValueOutOfRange(index, minor))
}

/// A length of time as it is stored.
pub(super) fn millis(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<Millis> {
    let ms: i64 = row.get(index)?;
    u64::try_from(ms)
        .map(Millis::new)
        .map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, ms))
}

const STATUSES: [Status; 4] = [
    Status::Open,
    Status::Paused,
    Status::Closed,
    Status::Rebuilding,
];

const fn status_name(status: Status) -> &'static str {
    match status {
        Status::Open => "open",
        Status::Paused => "paused",
        Status::Closed => "closed",
        Status::Rebuilding => "rebuilding",
    }
}

fn count(places: u64) -> StepResult<i64> {
    i64::try_from(places).map_err(|_| StepError::Broken(format!("{places} places")))
}

fn invalid(index: usize, words: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, words.into())
}
