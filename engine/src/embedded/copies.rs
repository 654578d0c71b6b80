//! What the order servers of this process remember together: a few copies of what the ledger holds,
//! in memory only.

use std::collections::HashMap;
use std::time::Duration;

use lua_free_rules::units::Timestamp;

use crate::FORGOTTEN_FOR;

/// Most keys.
const KEYS_MAX: usize = 2_048;
/// Most bytes of all values.
const BYTES_MAX: usize = 16 << 20;

/// The copies.
#[derive(Default)]
pub(super) struct Copies {
    kept: HashMap<String, Copy>,
    /// Until then nothing is remembered: so many keys were forgotten that they cannot be told apart.
    closed_until: Timestamp,
}

struct Copy {
    /// None: it was forgotten, and nothing is remembered in its place.
    value: Option<Vec<u8>>,
    from: Timestamp,
    until: Timestamp,
}

impl Copies {
    /// What is remembered under `key`.
    pub(super) fn recall(&self, key: &str, now: Timestamp) -> Option<Vec<u8>> {
        let copy = self.kept.get(key)?;
        // A clock that was set back ends it too: better early than late.
        let is_live = copy.from <= now && now < copy.until;
        copy.value.as_ref().filter(|_| is_live).cloned()
    }

    /// Remembers a value, unless its key was forgotten a moment ago or there is no room.
    pub(super) fn remember(&mut self, key: &str, value: &[u8], now: Timestamp, ttl: Duration) {
        let was_forgotten = self
            .kept
            .get(key)
            .is_some_and(|copy| copy.value.is_none() && now < copy.until);
        if was_forgotten || now < self.closed_until || !self.has_room(key, value.len(), now) {
            return;
        }
        let copy = Copy {
            value: Some(value.to_vec()),
            from: now,
            until: after(now, ttl),
        };
        self.kept.insert(key.to_owned(), copy);
    }

    /// Forgets what is under `key`.
    pub(super) fn forget(&mut self, key: &str, now: Timestamp) {
        let until = after(now, FORGOTTEN_FOR);
        if !self.has_room(key, 0, now) {
            self.kept.clear();
            self.closed_until = until;
            return;
        }
        let copy = Copy {
            value: None,
            from: now,
            until,
        };
        self.kept.insert(key.to_owned(), copy);
    }

    /// Makes room for a value: what has ended goes first, then every value.
    fn has_room(&mut self, key: &str, bytes: usize, now: Timestamp) -> bool {
        let fits = |kept: &HashMap<String, Copy>| {
            let held = kept.values().filter_map(|copy| copy.value.as_ref());
            let held: usize = held.map(Vec::len).sum();
            (kept.len() < KEYS_MAX || kept.contains_key(key)) && held + bytes <= BYTES_MAX
        };
        if !fits(&self.kept) {
            self.kept.retain(|_, copy| now < copy.until);
        }
        if !fits(&self.kept) {
            self.kept.retain(|_, copy| copy.value.is_none());
        }
        fits(&self.kept)
    }
}

fn after(now: Timestamp, time: Duration) -> Timestamp {
    now.plus_ms(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);
    const TTL: Duration = Duration::from_secs(1);

    #[test]
    fn a_copy_is_kept_until_it_is_forgotten_or_over() {
        let mut copies = Copies::default();
        copies.remember("a", b"one", NOW, TTL);
        assert_eq!(copies.recall("a", NOW).unwrap(), b"one");
        assert_eq!(copies.recall("a", NOW.plus_ms(999)).unwrap(), b"one");
        for other in [-1, 1_000] {
            assert_eq!(copies.recall("a", NOW.plus_ms(other)), None, "{other}");
        }
        copies.forget("a", NOW);
        assert_eq!(copies.recall("a", NOW), None);
        copies.remember("a", b"old", NOW.plus_ms(1_999), TTL);
        assert_eq!(copies.recall("a", NOW.plus_ms(1_999)), None);
        let later = NOW.plus_ms(2_000);
        copies.remember("a", b"new", later, TTL);
        assert_eq!(copies.recall("a", later).unwrap(), b"new");
    }

    #[test]
    fn what_was_forgotten_stays_so_however_many_keys_there_are() {
        let mut copies = Copies::default();
        for number in 0..KEYS_MAX {
            copies.remember(&format!("kept-{number}"), b"x", NOW, TTL);
        }
        for number in 0..3 * KEYS_MAX {
            copies.forget(&format!("gone-{number}"), NOW);
            assert!(copies.kept.len() <= KEYS_MAX);
        }
        for number in 0..3 * KEYS_MAX {
            let key = format!("gone-{number}");
            copies.remember(&key, b"old", NOW, TTL);
            assert_eq!(copies.recall(&key, NOW), None, "{key}");
        }
        let later = NOW.plus_ms(2_000);
        copies.remember("gone-0", b"new", later, TTL);
        assert_eq!(copies.recall("gone-0", later).unwrap(), b"new");
    }

    #[test]
    fn values_have_a_bound_together() {
        let mut copies = Copies::default();
        let value = vec![0; BYTES_MAX / 2];
        for key in ["a", "b", "c"] {
            copies.remember(key, &value, NOW, TTL);
        }
        let kept = ["a", "b", "c"].map(|key| copies.recall(key, NOW).is_some());
        assert_eq!(kept, [false, false, true]);
        copies.remember("d", &vec![0; BYTES_MAX + 1], NOW, TTL);
        assert_eq!(copies.recall("d", NOW), None);
    }
}
