//! Stands in for `feed/browser.rs` on the server, while it renders, and in tests on the host: its functions do nothing.

#[path = "inert/dom.rs"]
pub mod dom;
#[path = "inert/find.rs"]
pub mod find;
#[path = "inert/list.rs"]
pub mod list;
#[path = "inert/models.rs"]
pub mod models;
#[path = "inert/player.rs"]
pub mod player;
#[path = "inert/upload.rs"]
pub mod upload;

use super::{Feed, measure::Updates};
use crate::model::SessionId;

/// Does nothing: there is no browser.
pub fn start(_: Feed) {}

/// Does nothing: nothing is watched while rendering.
pub fn watching(_: Feed) {}

/// Does nothing: there are no tabs.
pub fn tell_renamed(_: SessionId, _: &str) {}

/// Does nothing: there are no tabs.
pub fn tell_deleted(_: SessionId) {}

/// None: no updates come while rendering.
#[must_use]
pub fn updates() -> Option<Updates> {
    None
}
