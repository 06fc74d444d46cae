//! Stands in for `feed/browser/upload.rs` on the server, while it renders: there are no files.

use crate::feed::uploads::{Event, Picked, UploadOptions};
use leptos::{ev, html, prelude::NodeRef};

/// Nothing is chosen.
#[must_use]
pub fn chosen(_input: NodeRef<html::Input>) -> Vec<Picked> {
    Vec::new()
}

/// Nothing is chosen.
#[must_use]
pub fn take(_input: NodeRef<html::Input>) -> Vec<Picked> {
    Vec::new()
}

/// Does nothing.
pub fn choose_dropped(_event: &ev::DragEvent, _input: NodeRef<html::Input>) {}

/// Zero: there is no clock.
#[must_use]
pub fn now() -> f64 {
    0.0
}

/// Does nothing.
pub fn send(_key: u32, _options: &UploadOptions, _on_event: impl Fn(Event) + 'static) {}

/// Does nothing.
pub fn abort(_key: u32) {}

/// Does nothing.
pub fn discard(_key: u32) {}
