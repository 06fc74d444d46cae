//! The browser's side of the feed while rendering on the server, and in tests on the host: it does nothing.
//! Its functions mirror those of `feed/browser.rs`.

#[path = "inert/dom.rs"]
pub mod dom;
#[path = "inert/upload.rs"]
pub mod upload;

use super::Feed;

/// Does nothing: there is no browser to start in.
pub fn start(_: Feed) {}

/// Does nothing: nothing is watched while rendering.
pub fn watching(_: Feed) {}
