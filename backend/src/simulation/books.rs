//! The invariants of the engine, checked after every step against books that are kept apart from it:
//! they know only what was proposed, and what the events in the stream say.

use std::collections::{BTreeMap, HashMap};

use engine::{Change, EntryId, Event, Reservation, StreamEntry};
use lua_free_rules::promo::Terms;
use lua_free_rules::units::{BuyerId, PromoId};
use rusqlite::{Connection, params};

use super::invariants::{Check, Invariant, demand};

type Key = (i64, i64);

/// One generation of a promo.
#[derive(Debug)]
struct Generational {
    terms: Terms,
    published: i64,
    available: i64,
    sequence: i64,
    held: BTreeMap<i64, i64>,
    reservations: BTreeMap<i64, Kept>,
}

/// A reservation.
#[derive(Debug)]
struct Kept {
    made: Reservation,
    is_released: bool,
}

/// The books.
#[derive(Debug, Default)]
pub struct Books {
    proposed: HashMap<(i64, String), Terms>,
    generations: BTreeMap<Key, Generational>,
    /// The latest generation and epoch of each promo.
    current: BTreeMap<i64, (i64, i64)>,
    last_entry: i64,
    /// Events that are in the stream, by their ids there.
    pub in_stream: BTreeMap<i64, Event>,
    /// Entries that left the stream, oldest first.
    pub delivered: Vec<StreamEntry>,
    /// Orders that were seen first since this was emptied.
    pub new_orders: Vec<Reservation>,
    /// Events that left the stream since the ledger was looked at last.
    pub left_stream: Vec<Event>,
}

impl Books {
    /// What an operator proposes, before the engine is asked.
    pub fn propose(&mut self, promo: PromoId, digest: &str, terms: &Terms) {
        self.proposed
            .insert((promo.0, digest.to_owned()), terms.clone());
    }

    /// Units that can be reserved in the current generation.
    pub fn available(&self, promo: PromoId) -> Option<i64> {
        let (generation, _) = self.current.get(&promo.0)?;
        Some(self.generations.get(&(promo.0, *generation))?.available)
    }

    /// Every order that was ever made.
    pub fn orders(&self) -> impl Iterator<Item = &Reservation> {
        let all = self
            .generations
            .values()
            .flat_map(|each| each.reservations.values());
        all.map(|kept| &kept.made)
            .filter(|made| made.number == made.order.number)
    }

    /// Looks at every table of the engine.
    pub fn check(&mut self, rows: &Connection) -> Check {
        self.read_stream(rows)?;
        self.check_promos(rows)?;
        self.check_holdings(rows)?;
        self.check_reservations(rows)
    }

    /// New events are entered into the books; those that are gone are noted.
    fn read_stream(&mut self, rows: &Connection) -> Check {
        let mut statement = rows
            .prepare_cached("SELECT id, payload FROM stream WHERE id > ?1 ORDER BY id")
            .unwrap();
        let new: Vec<(i64, String)> = statement
            .query_map([self.last_entry], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for (id, payload) in new {
            let event: Event = serde_json::from_str(&payload).unwrap();
            self.enter(rows, &event)?;
            self.last_entry = id;
            self.in_stream.insert(id, event);
        }
        let mut statement = rows.prepare_cached("SELECT id FROM stream").unwrap();
        let left: std::collections::HashSet<i64> = statement
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let gone: Vec<i64> = self.in_stream.keys().copied().collect();
        for id in gone.into_iter().filter(|id| !left.contains(id)) {
            let event = self.in_stream.remove(&id).unwrap();
            let payload = serde_json::to_string(&event).unwrap();
            let id = EntryId {
                stream: 0,
                number: id,
            };
            self.delivered.push(StreamEntry { id, payload });
            self.left_stream.push(event);
        }
        Ok(())
    }

    fn enter(&mut self, rows: &Connection, event: &Event) -> Check {
        let key = (event.promo.0, event.generation.0);
        if let Change::Published {
            stock,
            terms: told,
            digest,
        } = &event.change
        {
            let terms = self.terms_as_proposed(rows, key, digest)?;
            let is_so = terms.stock == *stock && terms == **told;
            demand(Invariant::Content, is_so, || {
                format!("published {stock} units of {told:?}, proposed was {terms:?}")
            })?;
            self.generations.insert(
                key,
                Generational {
                    terms,
                    published: 0,
                    available: 0,
                    sequence: 0,
                    held: BTreeMap::new(),
                    reservations: BTreeMap::new(),
                },
            );
        }
        let Some(books) = self.generations.get_mut(&key) else {
            return demand(Invariant::Sequence, false, || {
                format!("{key:?} has an event before it was published")
            });
        };
        if let Some(made) = event.change.reservation() {
            self.new_orders.push(*made);
        }
        books.enter(event)?;
        tells_what_was_asked(rows, event)
    }

    fn terms_as_proposed(&self, rows: &Connection, key: Key, told: &str) -> Check<Terms> {
        let digest: String = rows
            .prepare_cached("SELECT digest FROM promos WHERE promo = ?1 AND generation = ?2")
            .unwrap()
            .query_row([key.0, key.1], |row| row.get(0))
            .unwrap();
        demand(Invariant::Content, digest == told, || {
            format!("{key:?} was published under {digest}, told is {told}")
        })?;
        Ok(self.proposed[&(key.0, digest)].clone())
    }

    fn check_promos(&mut self, rows: &Connection) -> Check {
        let mut statement = rows
            .prepare_cached(
                "SELECT promo, generation, is_current, available, sequence, sold_out, sold_epoch, \
                 places_issued + places_used, stock FROM promos ORDER BY promo, generation",
            )
            .unwrap();
        let mut found = statement.query([]).unwrap();
        let mut current: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        while let Some(row) = found.next().unwrap() {
            let int = |index| row.get::<_, i64>(index).unwrap();
            let key = (int(0), int(1));
            let Some(books) = self.generations.get(&key) else {
                return demand(Invariant::Sequence, false, || {
                    format!("{key:?} was published without an event")
                });
            };
            let (available, sequence) = (int(3), int(4));
            demand(
                Invariant::NeverOversell,
                available == books.available && int(8) == books.published,
                || {
                    format!(
                        "{key:?}: {available} available of {}, the events add up to {} of {}",
                        int(8),
                        books.available,
                        books.published
                    )
                },
            )?;
            demand(Invariant::Sequence, sequence == books.sequence, || {
                format!("{key:?} is at {sequence}, its events at {}", books.sequence)
            })?;
            let places = books.published * i64::from(books.terms.door);
            demand(Invariant::DoorBound, int(7) <= places, || {
                format!("{key:?}: {} places of {places}", int(7))
            })?;
            if int(2) == 1 {
                let epoch = int(6);
                let is_told = available > 0 || int(5) == 1;
                demand(
                    Invariant::Epochs,
                    is_told && epoch.rem_euclid(2) == int(5),
                    || {
                        format!(
                            "{key:?}: {available} available, epoch {epoch}, told {}",
                            int(5)
                        )
                    },
                )?;
                let twice = current.insert(key.0, (key.1, epoch)).is_some();
                demand(Invariant::Generations, !twice, || {
                    format!("{key:?} is not the only current generation")
                })?;
            }
        }
        for (promo, before) in &self.current {
            let now = current.get(promo).copied().unwrap_or_default();
            demand(
                Invariant::Generations,
                now.0 == before.0 || now.0 == before.0 + 1,
                || {
                    format!(
                        "promo {promo} went from generation {} to {}",
                        before.0, now.0
                    )
                },
            )?;
            demand(Invariant::Epochs, now.1 >= before.1, || {
                format!("promo {promo} went from epoch {} to {}", before.1, now.1)
            })?;
        }
        self.current = current;
        Ok(())
    }

    fn check_holdings(&self, rows: &Connection) -> Check {
        let mut statement = rows
            .prepare_cached("SELECT promo, generation, buyer, held, place FROM holdings")
            .unwrap();
        let mut found = statement.query([]).unwrap();
        let mut places: BTreeMap<Key, i64> = BTreeMap::new();
        let mut held: BTreeMap<Key, i64> = BTreeMap::new();
        while let Some(row) = found.next().unwrap() {
            let int = |index| row.get::<_, i64>(index).unwrap();
            let key = (int(0), int(1));
            *places.entry(key).or_default() += i64::from(int(4) != 0);
            *held.entry(key).or_default() += int(3);
            let by_events = self.generations[&key].held.get(&int(2)).copied();
            demand(
                Invariant::BuyerLimit,
                int(3) == by_events.unwrap_or_default(),
                || {
                    format!(
                        "{key:?}: buyer {} holds {}, by the events {by_events:?}",
                        int(2),
                        int(3)
                    )
                },
            )?;
        }
        for (key, books) in &self.generations {
            let bound = books.published * i64::from(books.terms.door);
            let count = places.get(key).copied().unwrap_or_default();
            demand(Invariant::DoorBound, count <= bound, || {
                format!("{key:?}: {count} buyers have places, {bound} are allowed")
            })?;
            let held = held.get(key).copied().unwrap_or_default();
            let out = books.published - books.available;
            demand(Invariant::NeverOversell, held == out, || {
                format!("{key:?}: buyers hold {held} units, {out} are out")
            })?;
        }
        Ok(())
    }

    fn check_reservations(&self, rows: &Connection) -> Check {
        let mut statement = rows
            .prepare_cached(
                "SELECT promo, generation, number, order_number, buyer, amount, is_released \
                 FROM reservations",
            )
            .unwrap();
        let mut found = statement.query([]).unwrap();
        let mut count = 0;
        while let Some(row) = found.next().unwrap() {
            let int = |index| row.get::<_, i64>(index).unwrap();
            count += 1;
            let kept = self.generations[&(int(0), int(1))]
                .reservations
                .get(&int(2));
            let Some(kept) = kept else {
                return demand(Invariant::NoOrderLost, false, || {
                    format!(
                        "reservation {} of {:?} left no event",
                        int(2),
                        (int(0), int(1))
                    )
                });
            };
            let same = (
                kept.made.order.number.0,
                kept.made.buyer.0,
                i64::from(kept.made.amount),
            );
            demand(Invariant::Content, same == (int(3), int(4), int(5)), || {
                format!("{:?} is other than its event", kept.made)
            })?;
            demand(
                Invariant::ReleasedOnce,
                kept.is_released == (int(6) == 1),
                || {
                    format!(
                        "{:?}: released by its events {}",
                        kept.made, kept.is_released
                    )
                },
            )?;
        }
        let known: usize = self
            .generations
            .values()
            .map(|each| each.reservations.len())
            .sum();
        demand(Invariant::NoOrderLost, known == count, || {
            format!("{count} reservations of {known} are left")
        })
    }
}

/// The event of a new order tells what the engine remembers of the request.
fn tells_what_was_asked(rows: &Connection, event: &Event) -> Check {
    let Change::Reserved {
        reservation,
        key,
        body,
        jti,
    } = &event.change
    else {
        return Ok(());
    };
    let told = (Some(key.clone()), Some(body.clone()), Some(jti.0.to_vec()));
    let kept: (Option<String>, Option<String>, Option<Vec<u8>>) = rows
        .prepare_cached(
            "SELECT key, body, jti FROM reservations \
             WHERE promo = ?1 AND generation = ?2 AND number = ?3",
        )
        .unwrap()
        .query_row(
            params![event.promo.0, event.generation.0, reservation.number.0],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    // Keys are forgotten after their time.
    let is_so = kept == told || kept.0.is_none();
    demand(Invariant::Content, is_so, || {
        format!("{event:?} tells {told:?}, kept is {kept:?}")
    })
}

impl Generational {
    fn enter(&mut self, event: &Event) -> Check {
        let at = format!(
            "{} {} {}",
            event.promo, event.generation.0, event.sequence.0
        );
        demand(
            Invariant::Sequence,
            event.sequence.0 == self.sequence + 1,
            || format!("event {at} follows {}", self.sequence),
        )?;
        self.sequence = event.sequence.0;
        self.available += event.change.delta();
        match &event.change {
            Change::Published { stock, .. } => self.published = i64::from(*stock),
            Change::Added { stock } => {
                self.published += i64::from(*stock);
                self.terms.stock += stock;
            }
            Change::Reserved { reservation, .. } | Change::ReservedAgain { reservation, .. } => {
                self.hold(*reservation)?;
            }
            Change::Released { release, amount } => {
                let kept = self.reservations.get_mut(&release.number.0);
                let Some(kept) = kept.filter(|kept| {
                    !kept.is_released
                        && kept.made.order == release.order
                        && kept.made.amount == *amount
                }) else {
                    return demand(Invariant::ReleasedOnce, false, || {
                        format!("event {at} releases {release:?} once more, or not what it held")
                    });
                };
                kept.is_released = true;
                *self.held.entry(kept.made.buyer.0).or_default() -= i64::from(*amount);
            }
        }
        demand(
            Invariant::NeverOversell,
            (0..=self.published).contains(&self.available),
            || format!("event {at} leaves {} of {}", self.available, self.published),
        )
    }

    fn hold(&mut self, made: Reservation) -> Check {
        let BuyerId(buyer) = made.buyer;
        let held = self.held.entry(buyer).or_default();
        *held += i64::from(made.amount);
        let limit = i64::from(self.terms.per_buyer);
        demand(Invariant::BuyerLimit, *held <= limit, || {
            format!("buyer {buyer} holds {held} with {made:?}, {limit} are allowed")
        })?;
        let still_held = |kept: &&Kept| kept.made.order == made.order && !kept.is_released;
        let twice = self.reservations.values().find(still_held).is_some();
        demand(Invariant::NoOrderTwice, !twice, || {
            format!("{made:?} holds units already")
        })?;
        demand(Invariant::Content, made.price == self.terms.price, || {
            format!("{made:?} is sold at another price")
        })?;
        let kept = Kept {
            made,
            is_released: false,
        };
        let replaced = self.reservations.insert(made.number.0, kept);
        demand(Invariant::NoOrderTwice, replaced.is_none(), || {
            format!("number {} was given twice", made.number.0)
        })
    }
}
