//! How many of something each key has: uploads of an owner, streams of an address. Keys that have none take no memory.
//! Called by `uploads` and `stream::permits`.

use std::{collections::HashMap, hash::Hash};

/// A count for each key; 0 for those that are not there.
#[derive(Debug)]
pub(super) struct Counts<K>(HashMap<K, u32>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Counts<K> {
    pub(super) fn get(&self, key: &K) -> u32 {
        self.0.get(key).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, key: K) {
        *self.0.entry(key).or_default() += 1;
    }

    /// Takes one off. Nothing happens to a key that has none.
    pub(super) fn remove(&mut self, key: &K) {
        if let Some(count) = self.0.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_any_are_forgotten() {
        let mut counts = Counts::default();
        counts.add("a");
        counts.add("a");
        counts.remove(&"a");
        counts.remove(&"b");
        assert_eq!((counts.get(&"a"), counts.get(&"b"), counts.is_empty()), (1, 0, false));
        counts.remove(&"a");
        assert!(counts.is_empty());
    }
}
