//! A map for few entries: a list that is searched from its start. The tables of the standard library would be there once
//! for each type of key and value, to be loaded by every browser; for tens of entries this is as fast.

/// Keys and values, in the order in which the keys came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: PartialEq, V> Few<K, V> {
    fn place(&self, key: &K) -> Option<usize> {
        self.0.iter().position(|(known, _)| known == key)
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.place(key).map(|place| &self.0[place].1)
    }

    /// The value of `key`, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.place(key).map(|place| &mut self.0[place].1)
    }

    /// Sets the value of `key` and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(known) = self.get_mut(&key) {
            return Some(std::mem::replace(known, value));
        }
        self.0.push((key, value));
        None
    }

    /// Takes `key` out and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.place(key).map(|place| self.0.remove(place).1)
    }

    /// Keeps the entries for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
    }

    /// The entries.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_a_map(acts in proptest::collection::vec((0u8..8, any::<bool>(), any::<u8>()), 0..60)) {
            let (mut few, mut map) = (Few::default(), BTreeMap::new());
            for (key, insert, value) in acts {
                if insert {
                    prop_assert_eq!(few.insert(key, value), map.insert(key, value));
                } else {
                    prop_assert_eq!(few.remove(&key), map.remove(&key));
                }
                prop_assert_eq!(few.get(&key), map.get(&key));
                prop_assert_eq!((few.len(), few.is_empty()), (map.len(), map.is_empty()));
            }
            let mut entries: Vec<_> = few.iter().copied().collect();
            entries.sort_unstable();
            prop_assert_eq!(entries, map.into_iter().collect::<Vec<_>>());
        }
    }
}
