//! A promo under test with its buyers: what the cases are written with.

use std::time::Duration;

use lua_free_rules::challenge::{Attempt, Kind};
use lua_free_rules::promo::{Snapshot, Terms};
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::{Access, Session};
use lua_free_rules::units::{
    BuyerId, Generation, ItemId, Millis, Money, Nonce, PromoId, Timestamp,
};

use super::Home;
use crate::{
    EngineError, Entry, Event, Publish, Published, Release, Reservation, Reserve, Reserved, Result,
    SharedEngine,
};

/// The promo of the suite.
pub const PROMO: PromoId = PromoId(7);

/// A sale on a home.
pub struct Sale<H> {
    /// The home it runs on.
    pub home: H,
    /// The engine of that home.
    pub engine: SharedEngine,
}

impl<H: Home> Sale<H> {
    /// An engine without a promo.
    pub async fn none() -> Self {
        Self::bounded(u64::MAX).await
    }

    /// An engine without a promo, whose stream has a bound.
    pub async fn bounded(stream_max: u64) -> Self {
        let home = H::start(stream_max).await;
        let engine = home.engine();
        Self { home, engine }
    }

    /// An engine with a promo that is open.
    pub async fn open(change: impl FnOnce(&mut Terms)) -> Self {
        let sale = Self::none().await;
        sale.publish("first", change).await.unwrap();
        sale
    }

    /// Publishes under a digest.
    pub async fn publish(
        &self,
        digest: &str,
        change: impl FnOnce(&mut Terms),
    ) -> Result<(Published, Snapshot)> {
        let mut terms = terms(self.now().await);
        change(&mut terms);
        let request = Publish {
            promo: PROMO,
            terms,
            digest: digest.to_owned(),
            only_first: false,
        };
        self.engine.publish(request).await
    }

    /// The engine's time.
    pub async fn now(&self) -> Timestamp {
        self.engine.promos().await.unwrap().0
    }

    /// The promo as it stands.
    pub async fn promo(&self) -> Snapshot {
        let (_, promos) = self.engine.promos().await.unwrap();
        promos.into_iter().find(|it| it.promo == PROMO).unwrap()
    }

    /// A generation of the promo as it stands.
    pub async fn generation(&self, generation: i64) -> Snapshot {
        let generation = Generation(generation);
        self.engine.snapshot(PROMO, generation).await.unwrap()
    }

    /// Signs a buyer in, in a session of its own.
    pub async fn sign_in(&self, buyer: i64) -> Session {
        let session = Session {
            buyer: BuyerId(buyer),
            id: nonce(),
            expires_at: self.now().await.plus_ms(3_600_000),
        };
        self.engine.sign_in(session).await.unwrap();
        session
    }

    /// Asks for a place without a challenge.
    pub async fn enter(&self, session: Session) -> Result<Access> {
        self.enter_with(session, None).await
    }

    /// Asks for a place with an answered challenge.
    pub async fn enter_with(&self, session: Session, attempt: Option<Attempt>) -> Result<Access> {
        let entry = Entry {
            promo: PROMO,
            session,
            attempt,
            jti: nonce(),
        };
        self.engine.enter(entry).await
    }

    /// A challenge that can be answered for the next minute.
    pub async fn challenge(&self) -> Attempt {
        Attempt {
            id: nonce(),
            expires_at: self.now().await.plus_ms(60_000),
        }
    }

    /// Signs a buyer in and lets him order.
    pub async fn buy(&self, buyer: i64, amount: u32) -> Result<Reserved> {
        let session = self.sign_in(buyer).await;
        let access = self.enter(session).await?;
        self.engine.reserve(request(session, access, amount)).await
    }

    /// Gives the units of a reservation back.
    pub async fn release(&self, reservation: &Reservation) -> Result<bool> {
        self.engine.release(release(reservation)).await
    }

    /// Every event since the stream began that was not acknowledged.
    pub async fn events(&self) -> Vec<Event> {
        self.engine.rewind().await.unwrap();
        let mut events = Vec::new();
        loop {
            let entries = self.engine.read(100, Duration::ZERO).await.unwrap();
            if entries.is_empty() {
                return events;
            }
            events.extend(
                entries
                    .iter()
                    .map(|entry| serde_json::from_str::<Event>(&entry.payload).unwrap()),
            );
        }
    }

    /// Checks one generation against every event it left: numbers without a gap, and deltas that
    /// add up. Nothing of the stream may have been acknowledged.
    pub async fn check_events(&self, generation: i64) {
        let promo = self.generation(generation).await;
        let events = self.events().await;
        let of_it = || {
            events
                .iter()
                .filter(|event| event.promo == PROMO && event.generation.0 == generation)
        };
        let numbers: Vec<i64> = of_it().map(|event| event.sequence.0).collect();
        let expected: Vec<i64> = (1..=promo.sequence.0).collect();
        assert_eq!(
            numbers, expected,
            "sequence numbers of generation {generation}"
        );
        let sum: i64 = of_it().map(|event| event.change.delta()).sum();
        assert_eq!(sum, i64::from(promo.available), "the sum of all changes");
    }

    /// Starts the engine again after a crash.
    pub async fn crash(self) -> Self {
        let Self { home, engine } = self;
        drop(engine);
        let home = home.crash().await;
        let engine = home.engine();
        Self { home, engine }
    }
}

/// The terms of the suite: open now, for ten minutes.
pub fn terms(now: Timestamp) -> Terms {
    Terms {
        item: ItemId(3),
        starts_at: now,
        ends_at: now.plus_ms(600_000),
        price: Money::from_minor(9_900).unwrap(),
        stock: 10,
        door: 5,
        per_buyer: 2,
        pay_within: Millis::seconds(900),
        token_ttl: Millis::seconds(60),
        challenges: vec![Kind::Altcha, Kind::Image],
    }
}

/// A request to reserve, keyed by its token.
pub fn request(session: Session, access: Access, amount: u32) -> Reserve {
    keyed(session, access, amount, &access.jti.to_string())
}

/// A request to reserve under a key.
pub fn keyed(session: Session, access: Access, amount: u32, key: &str) -> Reserve {
    Reserve {
        access,
        session,
        amount,
        key: key.to_owned(),
        body: format!("{}:{}:{amount}", access.item, access.promo),
    }
}

/// The release of a reservation.
pub fn release(reservation: &Reservation) -> Release {
    Release {
        order: reservation.order,
        number: reservation.number,
    }
}

/// 128 bits drawn by chance.
pub fn nonce() -> Nonce {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    Nonce(bytes)
}

/// The refusal that an answer must be.
#[track_caller]
pub fn refusal<T: std::fmt::Debug>(answer: Result<T>) -> Refusal {
    match answer {
        Err(EngineError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Longer than any token of `ttl_ms` can be used, whatever fraction of a second it was issued at.
pub const fn past_use_ms(ttl_ms: u64) -> u64 {
    ttl_ms + lua_free_rules::token::LEEWAY_S.unsigned_abs() * 1_000
}
