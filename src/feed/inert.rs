//! Stands in for `feed/browser.rs` on the server, while it renders, and in tests on the host: its functions do nothing.

#[path = "inert/dom.rs"]
pub mod dom;
#[path = "inert/models.rs"]
pub mod models;
#[path = "inert/upload.rs"]
pub mod upload;

use super::Feed;

/// Does nothing: there is no browser.
pub fn start(_: Feed) {}

/// Does nothing: nothing is watched while rendering.
pub fn watching(_: Feed) {}
