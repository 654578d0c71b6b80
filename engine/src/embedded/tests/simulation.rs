//! A seeded simulation: the steps without threads, under a clock that also jumps back, with every
//! table checked after each step. A failure names its seed and its step.

use std::collections::HashMap;

use lua_free_rules::challenge::Attempt;
use lua_free_rules::token::{Access, Session};
use lua_free_rules::units::{BuyerId, Millis, Nonce, PromoId};

use super::*;
use crate::conformance::sale::{keyed, release, terms};
use crate::embedded::step::{Step, StepResult};
use crate::{Control, Entry, EntryId, Event, Publish, Reservation, Result};

const PROMO: PromoId = PromoId(7);
const SEEDS: u64 = 40;
const STEPS: usize = 300;
const BUYERS: u64 = 6;

/// Everyone's tokens, orders and challenges so far: all of them are tried again and again.
struct Simulation {
    store: Store,
    clock: Arc<ManualClock>,
    random: Random,
    tokens: Vec<Access>,
    orders: Vec<Reservation>,
    challenges: Vec<Attempt>,
    made: u64,
    sold_epoch: i64,
}

#[test]
fn every_table_agrees_after_every_step() {
    let mut made = 0;
    for seed in 1..=SEEDS {
        let mut simulation = Simulation::new(seed);
        for step in 0..STEPS {
            simulation.act();
            simulation.check(&format!("seed {seed}, step {step}"));
        }
        made += simulation.made;
    }
    assert!(
        made > 10 * SEEDS,
        "only {made} orders: too few to prove anything"
    );
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut db = Connection::open_in_memory().unwrap();
        schema::prepare(&mut db).unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let committed = Arc::new(Committed::default());
        let mut simulation = Self {
            store: Store::new(db, clock.clone(), 150, committed).unwrap(),
            clock,
            random: Random(seed),
            tokens: Vec::new(),
            orders: Vec::new(),
            challenges: Vec::new(),
            made: 0,
            sold_epoch: 0,
        };
        for buyer in 0..BUYERS {
            let session = session(buyer);
            simulation
                .take(move |step| sessions::sign_in(step, session))
                .unwrap();
        }
        simulation
    }

    fn take<T: Send + 'static>(
        &mut self,
        step: impl FnMut(&mut Step<'_>) -> StepResult<T> + Send + 'static,
    ) -> Result<T> {
        let taken = self.store.step(step);
        if let Err(crate::EngineError::Unavailable(detail)) = &taken {
            panic!("{detail}");
        }
        taken
    }

    /// One step of somebody. Most are refused at some time; none may break anything.
    fn act(&mut self) {
        match self.random.below(20) {
            0..=3 => self.enter(),
            4..=9 => self.reserve(),
            10..=12 => self.release(),
            13 => self.reserve_again(),
            14 => {
                let _ = self.take(tend::pass).unwrap();
            }
            15 => self.operate(),
            16 => self.publish(),
            17 => self.acknowledge(),
            18 => self.clock.advance_ms(self.random.below(3_000) as i64),
            _ => {
                let jumps = [-5_000, -700, -1, 1, 999, 20_000];
                self.clock.advance_ms(jumps[self.random.below(6) as usize]);
            }
        }
    }

    fn enter(&mut self) {
        let attempt = match self.random.below(3) {
            0 => None,
            1 => Some(Attempt {
                id: self.random.nonce(),
                expires_at: self.clock.now().plus_ms(5_000),
            }),
            _ => self.random.pick(&self.challenges),
        };
        self.challenges.extend(attempt);
        let entry = Entry {
            promo: PROMO,
            session: session(self.random.below(BUYERS)),
            attempt,
            jti: self.random.nonce(),
        };
        let entered = self.take(move |step| door::enter(step, &entry));
        self.tokens.extend(entered);
    }

    fn reserve(&mut self) {
        // Mostly the last token, which can be used; now and then any token that ever was.
        let token = match self.random.below(3) {
            0 => self.random.pick(&self.tokens),
            _ => self.tokens.last().copied(),
        };
        let Some(access) = token else {
            return;
        };
        let key = match self.random.below(4) {
            0 => self.random.below(8).to_string(),
            _ => access.jti.to_string(),
        };
        let session = session(access.buyer.0.unsigned_abs());
        let amount = [0, 1, 1, 1, 1, 2, 2, 3][self.random.below(8) as usize];
        let request = keyed(session, access, amount, &key);
        let reserved = self.take(move |step| stock::reserve(step, &request));
        if let Some(new) = reserved.ok().filter(|reserved| !reserved.repeated) {
            self.made += 1;
            self.orders.push(new.reservation);
        }
    }

    fn release(&mut self) {
        // Mostly one that may still hold its units.
        let recent = self.orders.len().saturating_sub(6);
        let from = [0, recent, recent][self.random.below(3) as usize];
        if let Some(order) = self.random.pick(&self.orders[from..]) {
            let _ = self.take(move |step| stock::release(step, release(&order)));
        }
    }

    fn reserve_again(&mut self) {
        if let Some(order) = self.random.pick(&self.orders) {
            let payment = self.random.below(3).to_string();
            let again = self.take(move |step| stock::reserve_again(step, order.order, &payment));
            self.orders.extend(again);
        }
    }

    fn operate(&mut self) {
        let control = match self.random.below(12) {
            0 => Control::Close,
            1 => Control::Pause,
            2..=9 => Control::Resume,
            _ => Control::AddStock(self.random.below(3) as u32),
        };
        let _ = self.take(move |step| promos::control(step, PROMO, control));
    }

    fn publish(&mut self) {
        let mut terms = terms(self.clock.now());
        terms.ends_at = terms.starts_at.plus_ms(120_000);
        terms.stock = 1 + self.random.below(8) as u32;
        terms.door = 1 + self.random.below(2) as u32;
        terms.per_buyer = 2 + self.random.below(3) as u32;
        terms.token_ttl = Millis::seconds(1 + self.random.below(4));
        let request = Publish {
            promo: PROMO,
            terms,
            digest: self.random.below(1 << 40).to_string(),
            only_first: false,
        };
        let _ = self.take(move |step| promos::publish(step, &request));
    }

    fn acknowledge(&mut self) {
        let (most, aside) = (self.random.below(40) as usize, self.random.below(8) == 0);
        self.take(move |step| {
            let entries = stream::read(step.db, 0, most)?;
            let ids: Vec<EntryId> = entries.iter().map(|entry| entry.id).collect();
            if aside && let Some(id) = ids.first() {
                return stream::set_aside(step, *id, "chance");
            }
            // What is taken off here is kept for the checks.
            step.db.execute_batch(
                "CREATE TABLE IF NOT EXISTS ledger (id INTEGER PRIMARY KEY, payload TEXT)",
            )?;
            for entry in &entries {
                let row = (entry.id.number, &entry.payload);
                step.db.execute("INSERT INTO ledger VALUES (?1, ?2)", row)?;
            }
            stream::acknowledge(step, &ids)
        })
        .unwrap();
    }

    fn check(&mut self, at: &str) {
        for (what, sql) in INVARIANTS {
            let sql = (*sql).to_owned();
            let broken = self
                .take(move |step| Ok(step.db.prepare_cached(&sql)?.exists([])?))
                .unwrap();
            assert!(!broken, "{at}: {what}");
        }
        let (current, level) = self
            .take(|step| {
                let counted = stream::count(step.db)?;
                assert_eq!(counted, step.level.entries);
                Ok((promos::current(step.db, PROMO)?, counted))
            })
            .unwrap();
        assert!(level < 400, "{at}");
        if let Some(row) = current {
            let promo = row.snapshot;
            assert!(
                promo.sold_epoch.0 >= self.sold_epoch,
                "{at}: the epoch fell"
            );
            assert!(
                promo.available > 0 || promo.sold_out,
                "{at}: nothing is left, nobody is told"
            );
            assert_eq!(
                promo.sold_epoch.0 % 2 == 1,
                promo.sold_out,
                "{at}: a change was not counted"
            );
            self.sold_epoch = promo.sold_epoch.0;
        }
        self.check_events(at);
    }

    /// The events of each generation, acknowledged, waiting or set aside: numbered without a gap,
    /// and adding up to what is available.
    fn check_events(&mut self, at: &str) {
        let (payloads, stands) = self
            .take(|step| {
                step.db.execute_batch(
                    "CREATE TABLE IF NOT EXISTS ledger (id INTEGER PRIMARY KEY, payload TEXT)",
                )?;
                let mut all = step.db.prepare_cached(
                    "SELECT id, payload FROM stream UNION SELECT id, payload FROM ledger
                     UNION SELECT id, payload FROM dead_letters ORDER BY id",
                )?;
                let payloads: Vec<String> = all
                    .query_map([], |row| row.get(1))?
                    .collect::<std::result::Result<_, _>>()?;
                let mut rows = step
                    .db
                    .prepare_cached("SELECT generation, sequence, available FROM promos")?;
                let stands: Vec<(i64, i64, i64)> = rows
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                    .collect::<std::result::Result<_, _>>()?;
                Ok((payloads, stands))
            })
            .unwrap();
        let mut counted: HashMap<i64, (i64, i64)> = HashMap::new();
        for payload in payloads {
            let event: Event = serde_json::from_str(&payload).unwrap();
            let (sequence, available) = counted.entry(event.generation.0).or_default();
            *sequence += 1;
            assert_eq!(event.sequence.0, *sequence, "{at}: a gap in the events");
            *available += event.change.delta();
        }
        for (generation, sequence, available) in stands {
            assert_eq!(
                counted[&generation],
                (sequence, available),
                "{at}: events do not add up"
            );
        }
    }
}

/// Each finds what must not be.
const INVARIANTS: &[(&str, &str)] = &[
    (
        "units were lost or oversold",
        "SELECT 1 FROM promos p WHERE stock != available + (SELECT coalesce(sum(amount), 0)
             FROM reservations r WHERE r.promo = p.promo AND r.generation = p.generation
                 AND is_released = 0)",
    ),
    (
        "a buyer holds other than he ordered",
        "SELECT 1 FROM holdings h WHERE held != (SELECT coalesce(sum(amount), 0)
             FROM reservations r WHERE r.promo = h.promo AND r.generation = h.generation
                 AND r.buyer = h.buyer AND is_released = 0)",
    ),
    (
        "units are held by nobody",
        "SELECT 1 FROM reservations r WHERE is_released = 0 AND NOT EXISTS (SELECT 1
             FROM holdings h WHERE h.promo = r.promo AND h.generation = r.generation
                 AND h.buyer = r.buyer)",
    ),
    (
        "a buyer holds more than his limit",
        "SELECT 1 FROM holdings JOIN promos USING (promo, generation) WHERE held > per_buyer",
    ),
    (
        "places are miscounted",
        "SELECT 1 FROM promos p WHERE (places_issued, places_used) != (SELECT
             coalesce(sum(place = 1), 0), coalesce(sum(place = 2), 0) FROM holdings h
                 WHERE h.promo = p.promo AND h.generation = p.generation)",
    ),
    (
        "the door let in too many",
        "SELECT 1 FROM promos WHERE places_issued + places_used > stock * door",
    ),
    (
        "a place is used by a buyer without units, or a row holds nothing",
        "SELECT 1 FROM holdings WHERE held = 0 AND place IN (0, 2)",
    ),
    (
        "an order holds its units twice",
        "SELECT 1 FROM reservations WHERE is_released = 0
             GROUP BY promo, generation, order_number HAVING count(*) > 1",
    ),
    (
        "a token made two orders",
        "SELECT 1 FROM reservations WHERE jti IS NOT NULL GROUP BY jti HAVING count(*) > 1",
    ),
    (
        "a token that made an order can be used again",
        "SELECT 1 FROM holdings JOIN reservations USING (jti)",
    ),
    (
        "reservation numbers have a gap",
        "SELECT 1 FROM promos p WHERE last_number != (SELECT count(*) FROM reservations r
             WHERE r.promo = p.promo AND r.generation = p.generation)",
    ),
];

fn session(buyer: u64) -> Session {
    Session {
        buyer: BuyerId(buyer as i64),
        id: Nonce([buyer as u8; 16]),
        expires_at: START.plus_ms(1_000_000_000),
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn nonce(&mut self) -> Nonce {
        let (a, b) = (self.next().to_le_bytes(), self.next().to_le_bytes());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&a);
        bytes[8..].copy_from_slice(&b);
        Nonce(bytes)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let end = from.len() as u64;
        (end > 0).then(|| from[self.below(end) as usize])
    }
}
