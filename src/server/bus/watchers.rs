//! The trait by which the bus reaches the streams of a node. The hub is its only implementation; the bus doesn't know
//! the hub, so that `stream` may depend on `bus`.

use crate::{
    model::{SessionId, Status},
    server::{event::Event, owner::Owner, sightings::Sighting},
};
use std::{collections::HashMap, fmt::Debug};
use tokio::sync::mpsc::UnboundedSender;

/// The watchers of a node.
pub trait Watchers: Debug + Send + Sync {
    /// Publishes a change. True if it was new to any of them.
    fn publish(&self, event: &Event) -> bool;
    /// Ends the streams of an owner who logged out.
    fn log_out(&self, owner: &Owner);
    /// Takes in a status read from the store, and publishes it if it is newer.
    fn refresh(&self, owner: &Owner, status: &Status);
    /// The same, and keeps the session in memory, because an outside worker will publish its changes.
    fn keep(&self, owner: &Owner, status: &Status);
    /// Drops a session that was deleted.
    fn forget(&self, id: SessionId);
    /// The newest status that they have.
    fn newest(&self, id: SessionId) -> Option<(Owner, Status)>;
    /// Whether that status came as a change, and not from the store.
    fn is_announced(&self, id: SessionId) -> bool;
    /// The version of that status.
    fn version_of(&self, id: SessionId) -> Option<u64>;
    /// The sessions that somebody watches or asks for, with the version and the number of segments that the watchers
    /// know.
    fn held(&self) -> HashMap<SessionId, (u64, u32)>;
    /// The owners all of whose sessions somebody watches.
    fn held_owners(&self) -> Vec<Owner>;
    /// The version of an owner's session that the watchers of all its sessions have.
    fn known_to_owner(&self, owner: &Owner, id: SessionId) -> Option<u64>;
    /// Whether a change of this owner's session concerns anybody here.
    fn is_held(&self, owner: &Owner, id: SessionId) -> bool;
    /// Takes in what another node saw of a page.
    fn hear_of_page(&self, sighting: &Sighting);
    /// Has the id of each session that begins to be held sent to `subscribe`, because its changes come from other nodes
    /// too.
    fn subscribe_remote(&self, subscribe: UnboundedSender<SessionId>);
}
