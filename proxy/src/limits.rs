//! Rate limits by key, in bounded memory; a key that is remembered is judged without a lock. The rule is GCRA;
//! here is only what it remembers: one number for each key, the moment from which its whole allowance is there
//! again. When that has passed, forgetting the key changes nothing: so the place of the earliest moment is the
//! first to be given away.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use lua_free_rules::limit::{Arrival, Rate, Verdict};
use lua_free_rules::units::{BuyerId, Timestamp};

/// A key has its place among so many.
const PLACES: usize = 8;

/// Who is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// All requests of an address.
    Address(Network),
    /// Requests of an address about accounts.
    Accounts(Network),
    /// Requests of a buyer.
    Buyer(BuyerId),
}

/// What counts as one address: an IPv4 address, or the /64 that an IPv6 subscriber has to himself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// The memory of all limits.
#[derive(Debug)]
pub(crate) struct Limits {
    sets: Box<[Set]>,
    hasher: RandomState,
}

/// The places of the keys whose hash leads here.
#[derive(Debug, Default)]
struct Set {
    places: [Place; PLACES],
    /// Held while a place is given away.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct Place {
    /// The hash of the key; 0 if there is none. Nobody outside can tell which keys share one.
    key: AtomicU64,
    arrival: AtomicI64,
}

impl Limits {
    /// Remembers at most about `keys_max` keys.
    pub fn new(keys_max: usize) -> Self {
        let sets = (keys_max / PLACES).max(1);
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Judges one request of `key`, and remembers it if it passes.
    pub fn judge(&self, key: Key, rate: Rate, now: Timestamp) -> Verdict {
        let key = self.hasher.hash_one(key).max(1);
        let set = usize::try_from(key % self.sets.len() as u64).unwrap_or(0);
        let set = &self.sets[set];
        loop {
            let place = set.find(key);
            let seen = place.map_or(0, |place| place.arrival.load(Ordering::Acquire));
            let verdict = rate.judge(Arrival(seen), now);
            let Verdict::Pass(Arrival(next)) = verdict else {
                return verdict;
            };
            // Whoever comes second judges anew.
            let is_first = match place {
                Some(place) => place.remember(seen, next),
                None => set.take_in(key, next),
            };
            if is_first {
                return verdict;
            }
        }
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        let places = self.sets.iter().flat_map(|set| &set.places);
        places
            .filter(|place| place.key.load(Ordering::Relaxed) != 0)
            .count()
    }
}

impl Set {
    fn find(&self, key: u64) -> Option<&Place> {
        let is_its = |place: &&Place| place.key.load(Ordering::Acquire) == key;
        self.places.iter().find(is_its)
    }

    /// Gives the key the place whose moment is the earliest; `false` if it has got one already.
    fn take_in(&self, key: u64, next: i64) -> bool {
        // Nothing is half done in here, so a panic elsewhere leaves nothing to repair.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.find(key).is_some() {
            return false;
        }
        let moment = |place: &&Place| place.arrival.load(Ordering::Acquire);
        if let Some(place) = self.places.iter().min_by_key(moment) {
            place.arrival.store(next, Ordering::Release);
            place.key.store(key, Ordering::Release);
        }
        true
    }
}

impl Place {
    fn remember(&self, seen: i64, next: i64) -> bool {
        self.arrival
            .compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const RATE: Rate = Rate {
        per_second: 1,
        burst: 2,
    };

    fn passes(limits: &Limits, key: Key) -> bool {
        matches!(limits.judge(key, RATE, NOW), Verdict::Pass(_))
    }

    fn address(text: &str) -> Key {
        Key::Address(Network::from(text.parse::<IpAddr>().unwrap()))
    }

    #[test]
    fn each_key_has_its_own_allowance() {
        let limits = Limits::new(1_000);
        let key = address("192.0.2.1");
        assert_eq!([0; 3].map(|_| passes(&limits, key)), [true, true, false]);
        assert!(passes(&limits, address("192.0.2.2")));
        assert!(passes(&limits, Key::Buyer(BuyerId(1))));
        let same = Key::Accounts(Network::from("192.0.2.1".parse::<IpAddr>().unwrap()));
        assert!(passes(&limits, same));
    }

    #[test]
    fn one_ipv6_subscriber_is_one_key() {
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:2"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
    }

    #[test]
    fn memory_is_bounded_and_the_longest_unseen_go_first() {
        let limits = Limits::new(3_200);
        let busy = Key::Buyer(BuyerId(-1));
        let judged: Vec<bool> = (0..100_000)
            .map(|buyer| {
                passes(&limits, Key::Buyer(BuyerId(buyer)));
                passes(&limits, busy)
            })
            .collect();
        assert!(limits.len() <= 3_200);
        assert_eq!(judged.iter().filter(|passed| **passed).count(), 2);
    }

    #[test]
    fn many_at_once_get_no_more_than_one_after_the_other() {
        let limits = Limits::new(1_000);
        let key = address("192.0.2.1");
        let rate = Rate {
            per_second: 1,
            burst: 500,
        };
        let passed: usize = std::thread::scope(|scope| {
            let ask = || {
                let verdicts = (0..1_000).map(|_| limits.judge(key, rate, NOW));
                verdicts
                    .filter(|verdict| matches!(verdict, Verdict::Pass(_)))
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!((passed, limits.len()), (500, 1));
    }

    #[test]
    fn a_rate_of_zero_lets_nothing_through() {
        let none = Rate {
            per_second: 0,
            burst: 5,
        };
        let limits = Limits::new(10);
        let verdict = limits.judge(address("192.0.2.1"), none, NOW);
        assert!(matches!(verdict, Verdict::Wait { .. }));
    }
}
