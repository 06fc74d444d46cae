//! Implements the bus' trait for the hub.

use super::Hub;
use crate::{
    model::{SessionId, Status, Timestamp},
    server::{bus::Watchers, event::Event, owner::Owner, sightings::Sighting},
};
use std::collections::HashMap;
use tokio::sync::mpsc::UnboundedSender;

impl Watchers for Hub {
    fn publish(&self, event: &Event) -> bool {
        self.publish(event)
    }

    fn log_out(&self, owner: &Owner) {
        self.log_out(owner);
    }

    fn refresh(&self, owner: &Owner, status: &Status) {
        self.refresh(owner, status);
    }

    fn keep(&self, owner: &Owner, status: &Status) {
        self.keep(owner, status);
    }

    fn forget(&self, id: SessionId) {
        self.forget(id);
    }

    fn newest(&self, id: SessionId) -> Option<(Owner, Status)> {
        self.newest(id)
    }

    fn is_announced(&self, id: SessionId) -> bool {
        self.is_announced(id)
    }

    fn version_of(&self, id: SessionId) -> Option<u64> {
        self.version_of(id)
    }

    fn held(&self) -> HashMap<SessionId, (u64, u32)> {
        self.held()
    }

    fn held_owners(&self) -> Vec<Owner> {
        self.held_owners()
    }

    fn known_to_owner(&self, owner: &Owner, id: SessionId) -> Option<u64> {
        self.known_to_owner(owner, id)
    }

    fn is_held(&self, owner: &Owner, id: SessionId) -> bool {
        self.is_held(owner, id)
    }

    fn hear_of_page(&self, sighting: &Sighting) {
        self.sightings().hear(sighting, Timestamp::now());
    }

    fn subscribe_remote(&self, subscribe: UnboundedSender<SessionId>) {
        self.subscribe_remote(subscribe);
    }
}
