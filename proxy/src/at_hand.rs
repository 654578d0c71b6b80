//! A few values that many read and few replace: found without a lock.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// The values.
pub(crate) struct AtHand<K, V> {
    values: ArcSwap<HashMap<K, Arc<V>>>,
    max: usize,
}

impl<K: Copy + Eq + Hash, V> AtHand<K, V> {
    /// Holds at most `max` values.
    pub fn new(max: usize) -> Self {
        Self {
            values: ArcSwap::default(),
            max,
        }
    }

    /// Looks at a value. It is not given out: threads that share one would count each other's copies.
    pub fn with<T>(&self, key: K, look: impl FnOnce(&Arc<V>) -> T) -> Option<T> {
        self.values.load().get(&key).map(look)
    }

    /// Lays a value where the one before was, unless that `is_newer`. Where all places are taken, all are
    /// cleared: what is asked for often is soon back.
    pub fn lay(&self, key: K, value: &Arc<V>, is_newer: impl Fn(&V) -> bool) {
        self.values.rcu(|values| {
            let known = values.get(&key);
            if known.is_some_and(|known| is_newer(known)) {
                return values.clone();
            }
            let is_full = values.len() >= self.max && known.is_none();
            let mut values = if is_full {
                HashMap::new()
            } else {
                HashMap::clone(values)
            };
            values.insert(key, value.clone());
            Arc::new(values)
        });
    }

    pub fn forget(&self, key: K) {
        self.values.rcu(|values| {
            let mut values = HashMap::clone(values);
            values.remove(&key);
            values
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_stays_and_there_are_never_too_many() {
        let at_hand = AtHand::new(2);
        let lay = |key, value: i32| at_hand.lay(key, &Arc::new(value), |known| *known > value);
        let get = |key| at_hand.with(key, |value| **value);
        lay('a', 2);
        lay('a', 1);
        lay('b', 1);
        assert_eq!((get('a'), get('b'), get('c')), (Some(2), Some(1), None));
        lay('a', 3);
        lay('c', 1);
        assert_eq!((get('a'), get('b'), get('c')), (None, None, Some(1)));
        at_hand.forget('c');
        assert_eq!(get('c'), None);
    }
}
