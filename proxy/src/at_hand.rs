//! A few values that many read and few replace: found without a lock.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// The values.
pub(crate) struct AtHand<K, V> {
    /// By key: to be found sooner than by a hash, so few are they.
    values: ArcSwap<Vec<(K, Arc<V>)>>,
    max: usize,
}

impl<K: Copy + Ord, V> AtHand<K, V> {
    /// Holds at most `max` values.
    pub fn new(max: usize) -> Self {
        Self {
            values: ArcSwap::default(),
            max,
        }
    }

    /// Looks at a value. It is not given out: threads that share one would count each other's copies.
    pub fn with<T>(&self, key: K, look: impl FnOnce(&Arc<V>) -> T) -> Option<T> {
        let values = self.values.load();
        let at = place(&values, key).ok()?;
        values.get(at).map(|(_, value)| look(value))
    }

    /// Lays a value where the one before was, unless that `is_newer`. Where all places are taken, all are
    /// cleared: what is asked for often is soon back.
    pub fn lay(&self, key: K, value: &Arc<V>, is_newer: impl Fn(&V) -> bool) {
        self.values.rcu(|values| {
            let mut new = Vec::clone(values);
            match place(values, key) {
                Ok(at) if is_newer(&values[at].1) => return values.clone(),
                Ok(at) => new[at].1 = value.clone(),
                Err(_) if values.len() >= self.max => new = vec![(key, value.clone())],
                Err(at) => new.insert(at, (key, value.clone())),
            }
            Arc::new(new)
        });
    }

    pub fn forget(&self, key: K) {
        self.values.rcu(|values| {
            let mut values = Vec::clone(values);
            values.retain(|(known, _)| *known != key);
            values
        });
    }
}

/// Where a key is, or would be.
fn place<K: Copy + Ord, V>(values: &[(K, V)], key: K) -> Result<usize, usize> {
    values.binary_search_by_key(&key, |(key, _)| *key)
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
