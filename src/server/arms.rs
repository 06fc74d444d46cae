//! Assigns each browser to streams or to polling, by a hash of its owner: the same on every node and after every restart.
//! Asked by `http` for every request of a page, and by `router` for the document.

use super::{
    config::{RolloutConfig, StreamShare},
    owner::Owner,
};
use crate::model::Arm;
use sha2::{Digest, Sha256};

/// The assignment, as the settings have it.
#[derive(Clone, Copy, Debug)]
pub struct Arms {
    control_percent: u32,
    streams: StreamShare,
}

impl Arms {
    #[must_use]
    pub fn new(config: &RolloutConfig) -> Self {
        Self { control_percent: config.control_percent, streams: config.streams_for }
    }

    /// What the browser of this owner is assigned to. The control group has the lowest numbers and browsers without streams
    /// the highest, so neither setting moves more browsers than it says.
    #[must_use]
    pub fn of(&self, owner: &Owner) -> Arm {
        let number = number(owner);
        if number < self.control_percent || number >= self.streams.0 { Arm::Polling } else { Arm::Stream }
    }

    /// Whether nobody is given streams, programs neither.
    #[must_use]
    pub fn streams_are_off(&self) -> bool {
        self.streams == StreamShare(0)
    }
}

/// A number from 0 to 99 that is always the same for an owner, and evenly distributed over owners.
fn number(owner: &Owner) -> u32 {
    let hash = Sha256::new().chain_update("hark: the arm of an owner ").chain_update(owner.as_str()).finalize();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % 100
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arms(control_percent: u32, streams: u32) -> Arms {
        Arms { control_percent, streams: StreamShare(streams) }
    }

    fn owners() -> impl Iterator<Item = Owner> {
        (0..10_000).map(|n| Owner::from_store(format!("owner {n}")))
    }

    #[test]
    fn each_owner_has_a_fixed_number() {
        // Fixed for good: with another hash, everybody's browser would change its arm at an update.
        let numbers = ["a", "b", "0af3"].map(|id| number(&Owner::from_store(id.to_owned())));
        assert_eq!(numbers, [72, 80, 95]);
    }

    #[test]
    fn the_shares_are_as_set_and_the_groups_are_nested() {
        for (control, streams, expected) in
            [(0, 100, 0), (10, 100, 10), (0, 25, 75), (10, 50, 60), (100, 100, 100), (0, 0, 100)]
        {
            let polling = owners().filter(|owner| arms(control, streams).of(owner) == Arm::Polling).count();
            assert!(polling.abs_diff(expected * 100) < 150, "{control} {streams}: {polling}");
        }
        // Who has streams at 25% still has them at 50%.
        for owner in owners().filter(|owner| arms(0, 25).of(owner) == Arm::Stream) {
            assert_eq!(arms(0, 50).of(&owner), Arm::Stream);
        }
        assert!(arms(0, 0).streams_are_off() && !arms(100, 1).streams_are_off());
    }
}
