//! Counts by key, such as the uploads of an owner or the streams of an address. A key with a count of 0 takes no
//! memory. Called by `uploads`, `connections`, `turns` and `stream::permits`.

use std::{collections::HashMap, hash::Hash};

/// A count for each key; 0 for keys that aren't in the map.
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

    /// Subtracts one. A count of 0 stays.
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
    fn keys_with_a_count_of_zero_are_removed() {
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
