//! Rate limits by key in bounded memory. The rule is GCRA; here is only what it remembers: one number
//! for each key, in shards of two generations. A key that is seen moves to the young generation; when
//! that is full, the old one, whose keys were unseen the longest, is forgotten.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use lua_free_rules::limit::{Arrival, Rate, Verdict};
use lua_free_rules::units::{BuyerId, Timestamp};

const SHARDS: usize = 16;

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
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    generation_max: usize,
}

#[derive(Debug, Default)]
struct Shard {
    young: HashMap<Key, Arrival>,
    old: HashMap<Key, Arrival>,
}

impl Limits {
    /// Remembers at most about `keys_max` keys.
    pub fn new(keys_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            generation_max: (keys_max / (2 * SHARDS)).max(1),
        }
    }

    /// Judges one request of `key`, and remembers it if it passes.
    pub fn judge(&self, key: Key, rate: Rate, now: Timestamp) -> Verdict {
        let at = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        // The maps are whole after each statement, so a panic elsewhere leaves nothing to repair.
        let mut shard = self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let seen = shard.seen(key);
        let verdict = rate.judge(seen, now);
        if let Verdict::Pass(next) = verdict {
            shard.remember(key, next, self.generation_max);
        } else if seen != Arrival::default() {
            shard.remember(key, seen, self.generation_max);
        }
        verdict
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        let count = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(count).sum()
    }
}

impl Shard {
    fn seen(&self, key: Key) -> Arrival {
        let found = self.young.get(&key).or_else(|| self.old.get(&key));
        found.copied().unwrap_or_default()
    }

    fn remember(&mut self, key: Key, arrival: Arrival, generation_max: usize) {
        if let Some(known) = self.young.get_mut(&key) {
            *known = arrival;
            return;
        }
        self.old.remove(&key);
        if self.young.len() >= generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, arrival);
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
