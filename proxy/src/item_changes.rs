//! Which items were changed, as the signals told it. Signals are counted, and an answer is as old as the
//! count at which it was asked for: so one that was under way when its item changed is told from one that
//! was asked for afterwards.

use std::collections::HashMap;

use lua_free_rules::units::ItemId;

use crate::item_cache::Key;

/// Most keys that are told apart.
const KEYS_MAX: usize = 4_096;

/// What has become of an answer since it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// Nothing that is known of.
    Nothing,
    /// Signals were missed: it may have changed.
    Missed,
    /// It has changed.
    Changed,
}

/// The changes, counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    count: u64,
    /// The last time that signals were missed.
    missed: u64,
    /// No answer asked for before this counts as unchanged.
    all: u64,
    /// The last change of each key.
    of: HashMap<Key, u64>,
}

impl Changes {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// An item was changed, and with it the list.
    pub fn item(&mut self, id: ItemId) {
        self.count += 1;
        if self.of.len() + 2 > KEYS_MAX {
            self.of.clear();
            self.all = self.count;
        }
        self.of.insert(Key::Item(id), self.count);
        self.of.insert(Key::List, self.count);
    }

    /// Signals were missed.
    pub fn miss(&mut self) {
        self.count += 1;
        self.missed = self.count;
    }

    /// What has become of `key` since the count stood at `asked_at`.
    pub fn since(&self, key: Key, asked_at: u64) -> Since {
        if asked_at >= self.count {
            Since::Nothing
        } else if asked_at < self.all || self.of.get(&key).is_some_and(|last| asked_at < *last) {
            Since::Changed
        } else if asked_at < self.missed {
            Since::Missed
        } else {
            Since::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Key = Key::Item(ItemId(1));
    const TWO: Key = Key::Item(ItemId(2));

    #[test]
    fn a_change_concerns_its_item_and_the_list() {
        let mut changes = Changes::default();
        changes.item(ItemId(1));
        assert_eq!(changes.since(ONE, 0), Since::Changed);
        assert_eq!(changes.since(Key::List, 0), Since::Changed);
        assert_eq!(changes.since(TWO, 0), Since::Nothing);
        assert_eq!(changes.since(ONE, changes.count()), Since::Nothing);
        changes.item(ItemId(2));
        assert_eq!(changes.since(ONE, 1), Since::Nothing);
        assert_eq!(changes.since(Key::List, 1), Since::Changed);
    }

    #[test]
    fn what_was_missed_may_concern_everything() {
        let mut changes = Changes::default();
        changes.item(ItemId(1));
        changes.miss();
        assert_eq!(changes.since(TWO, 1), Since::Missed);
        assert_eq!(changes.since(ONE, 0), Since::Changed);
        assert_eq!(changes.since(TWO, 2), Since::Nothing);
    }

    #[test]
    fn no_change_is_lost_however_many_there_are() {
        let mut changes = Changes::default();
        let many = i64::try_from(3 * KEYS_MAX).unwrap();
        for id in 0..many {
            changes.item(ItemId(id));
            assert!(changes.of.len() <= KEYS_MAX);
        }
        for id in 0..many {
            assert_eq!(changes.since(Key::Item(ItemId(id)), 0), Since::Changed);
        }
    }
}
