//! Stands in for `feed/browser/models.rs` on the server, while it renders: nothing changes meanwhile.

use crate::model::page::ModelsInfo;

/// Does nothing.
pub fn watch(_on_change: impl Fn(ModelsInfo) + 'static) {}
