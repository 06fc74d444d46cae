//! How many streams an owner and the node may have. A newcomer is refused; nobody is put out for one.

use super::hub::lock;
use crate::server::owner::Owner;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Owner,
    Node,
}

#[derive(Debug)]
pub(super) struct Places {
    per_owner: u32,
    per_node: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u32,
    by_owner: HashMap<Owner, u32>,
}

/// A place taken; free again when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    owner: Owner,
}

impl Places {
    pub(super) fn new(per_owner: u32, per_node: u32) -> Self {
        Self { per_owner, per_node, taken: Mutex::default() }
    }

    pub(super) fn taken(&self) -> usize {
        lock(&self.taken).all as usize
    }

    pub(super) fn take(places: &Arc<Self>, owner: &Owner) -> Result<Place, Refusal> {
        let mut taken = lock(&places.taken);
        if taken.all >= places.per_node {
            return Err(Refusal::Node);
        }
        let own = taken.by_owner.entry(owner.clone()).or_default();
        if *own >= places.per_owner {
            return Err(Refusal::Owner);
        }
        *own += 1;
        taken.all += 1;
        drop(taken);
        Ok(Place { places: Arc::clone(places), owner: owner.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        taken.all -= 1;
        if let Some(own) = taken.by_owner.get_mut(&self.owner) {
            *own -= 1;
            if *own == 0 {
                taken.by_owner.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomers_are_refused_and_places_come_back() {
        let places = Arc::new(Places::new(2, 3));
        let (a, b) = (Owner::fresh(), Owner::fresh());
        let first = Places::take(&places, &a).unwrap();
        let second = Places::take(&places, &a).unwrap();
        assert_eq!(Places::take(&places, &a).unwrap_err(), Refusal::Owner);
        let third = Places::take(&places, &b).unwrap();
        assert_eq!(Places::take(&places, &b).unwrap_err(), Refusal::Node);
        drop(first);
        assert!(Places::take(&places, &b).is_ok());
        drop((second, third));
        assert_eq!((places.taken(), lock(&places.taken).by_owner.len()), (0, 0));
    }
}
