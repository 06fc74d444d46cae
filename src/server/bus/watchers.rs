//! Who is told of changes: what the bus asks of those who hold the streams of a node. The hub is the one that there is;
//! the bus doesn't know it, so that streams may stand above it.

use crate::{
    model::{SessionId, Status},
    server::{event::Event, owner::Owner},
};
use std::{collections::HashMap, fmt::Debug};
use tokio::sync::mpsc::UnboundedSender;

/// The watchers of a node.
pub trait Watchers: Debug + Send + Sync {
    /// Shows a change. True if it was new to any of them.
    fn publish(&self, event: &Event) -> bool;
    /// Ends the streams of an owner who logged out.
    fn log_out(&self, owner: &Owner);
    /// Takes in a status as the store has it, and shows it if it differs.
    fn refresh(&self, owner: &Owner, status: &Status);
    /// A session is gone.
    fn forget(&self, id: SessionId);
    /// The newest status that they were told.
    fn newest(&self, id: SessionId) -> Option<(Owner, Status)>;
    /// The version of that.
    fn version_of(&self, id: SessionId) -> Option<u64>;
    /// The sessions that somebody watches or asks for, with the version and the number of segments that are known.
    fn held(&self) -> HashMap<SessionId, (u64, u32)>;
    /// The owners all of whose sessions somebody watches.
    fn held_owners(&self) -> Vec<Owner>;
    /// The version of an owner's session that those are told.
    fn known_to_owner(&self, owner: &Owner, id: SessionId) -> Option<u64>;
    /// Whether a change of this owner's session concerns anybody here.
    fn is_held(&self, owner: &Owner, id: SessionId) -> bool;
    /// Has each session that begins to be held sent to `wants`, because its changes come from elsewhere too.
    fn subscribe_remote(&self, subscribe: UnboundedSender<SessionId>);
}
