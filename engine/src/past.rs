//! What the events of a promo add up to: from this an engine that lost its memory is rebuilt.

use std::collections::BTreeMap;

use lua_free_rules::promo::{Status, Terms};
use lua_free_rules::units::{BuyerId, Generation, Nonce, PromoId, ReservationNumber, Sequence};

use crate::{Change, Event, Reservation};

/// Begins the digest of a generation that was not published by anyone, but goes on with the one before.
const REBUILT: &str = "rebuilt:";

/// Whether a generation of that digest goes on with the one before: the engine was rebuilt.
pub fn is_rebuilt(digest: &str) -> bool {
    digest.starts_with(REBUILT)
}

/// All generations of a promo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Which promo.
    pub promo: PromoId,
    /// What an operator made of it last, as far as is known beside the engine.
    pub status: Status,
    /// The highest number that a generation of it may have been given, whether or not anything else is
    /// known of that one: the next one gets a higher number.
    pub numbered: Generation,
    /// Its generations.
    pub generations: BTreeMap<Generation, PastGeneration>,
}

/// One generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastGeneration {
    /// What was published, additions included.
    pub terms: Terms,
    /// The digest of the proposal.
    pub digest: String,
    /// Units that are available.
    pub available: i64,
    /// The highest number of a change.
    pub sequence: Sequence,
    /// The highest number of a reservation.
    pub last_number: ReservationNumber,
    /// Its reservations by number.
    pub reservations: BTreeMap<ReservationNumber, PastReservation>,
}

/// A reservation, and what it was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastReservation {
    /// The reservation.
    pub reservation: Reservation,
    /// Whether its units went back.
    pub is_released: bool,
    /// Key, digest and token of the request; none for a late payment's.
    pub request: Option<(String, String, Nonce)>,
    /// The late payment that asked for it.
    pub payment: Option<String>,
}

impl Past {
    /// A promo of which nothing is known yet.
    pub const fn new(promo: PromoId) -> Self {
        Self {
            promo,
            status: Status::Open,
            numbered: Generation(0),
            generations: BTreeMap::new(),
        }
    }

    /// Takes in an event. Those of a generation may come in any order after its publishing; an event of
    /// a generation whose publishing is not known says nothing and is passed over.
    pub fn apply(&mut self, event: &Event) {
        if let Change::Published { terms, digest, .. } = &event.change {
            self.generations
                .entry(event.generation)
                .or_insert_with(|| PastGeneration {
                    terms: Terms {
                        stock: 0,
                        ..Terms::clone(terms)
                    },
                    digest: digest.clone(),
                    available: 0,
                    sequence: Sequence::default(),
                    last_number: ReservationNumber::default(),
                    reservations: BTreeMap::new(),
                });
        }
        if let Some(generation) = self.generations.get_mut(&event.generation) {
            generation.apply(event);
        }
    }

    /// The last generation, with its number.
    pub fn last(&self) -> Option<(Generation, &PastGeneration)> {
        let (number, generation) = self.generations.last_key_value()?;
        Some((*number, generation))
    }

    /// The generations that the last one goes on with, itself included: those that were rebuilt into
    /// it one after the other.
    pub fn line(&self) -> Vec<Generation> {
        let mut line = Vec::new();
        for (number, generation) in self.generations.iter().rev() {
            line.push(*number);
            if !is_rebuilt(&generation.digest) {
                break;
            }
        }
        line
    }
}

impl PastGeneration {
    fn apply(&mut self, event: &Event) {
        self.available += event.change.delta();
        self.sequence = self.sequence.max(event.sequence);
        let (reservation, request, payment) = match &event.change {
            Change::Published { stock, .. } | Change::Added { stock } => {
                self.terms.stock = self.terms.stock.saturating_add(*stock);
                return;
            }
            Change::Released { release, .. } => {
                if let Some(made) = self.reservations.get_mut(&release.number) {
                    made.is_released = true;
                }
                return;
            }
            Change::Reserved {
                reservation,
                key,
                body,
                jti,
            } => (reservation, Some((key.clone(), body.clone(), *jti)), None),
            Change::ReservedAgain {
                reservation,
                payment,
            } => (reservation, None, Some(payment.clone())),
        };
        self.last_number = self.last_number.max(reservation.number);
        self.reservations.insert(
            reservation.number,
            PastReservation {
                reservation: *reservation,
                is_released: false,
                request,
                payment,
            },
        );
    }

    /// The digest of the proposal that was published, however often it was rebuilt since.
    pub fn proposal(&self) -> &str {
        self.digest.strip_prefix(REBUILT).unwrap_or(&self.digest)
    }

    /// The digest of a generation that goes on with this one.
    pub fn rebuilt(&self) -> String {
        format!("{REBUILT}{}", self.proposal())
    }

    /// The units that each buyer holds.
    pub fn held(&self) -> BTreeMap<BuyerId, u32> {
        let mut held = BTreeMap::new();
        for made in self.reservations.values().filter(|made| !made.is_released) {
            let units: &mut u32 = held.entry(made.reservation.buyer).or_default();
            *units = units.saturating_add(made.reservation.amount);
        }
        held
    }
}
