//! Stands in for `feed/browser/upload.rs` on the server, while it renders: there are no files.

use crate::feed::uploads::{Event, Picked, Unfinished, UploadOptions};
use leptos::{ev, html, prelude::NodeRef};

/// Nothing is chosen.
#[must_use]
pub fn add_chosen(_input: NodeRef<html::Input>) -> Vec<Picked> {
    Vec::new()
}

/// Nothing is dropped.
#[must_use]
pub fn add_dropped(_event: &ev::DragEvent) -> Vec<Picked> {
    Vec::new()
}

/// Nothing is dragged.
#[must_use]
pub fn brings_files(_event: &ev::DragEvent) -> bool {
    false
}

/// Nothing is dragged.
#[must_use]
pub fn over_window(_event: &ev::DragEvent) -> bool {
    false
}

/// Does nothing.
pub fn end_drag() {}

/// Nothing is chosen.
#[must_use]
pub fn unchoose(_key: u32) -> Vec<Picked> {
    Vec::new()
}

/// Does nothing.
pub fn show_chosen(_input: NodeRef<html::Input>) {}

/// Nothing is chosen.
#[must_use]
pub fn take_chosen(_only_begun: bool) -> Vec<Picked> {
    Vec::new()
}

/// Zero: there is no clock.
#[must_use]
pub fn now() -> f64 {
    0.0
}

/// Does nothing.
pub fn send(_key: u32, _options: &UploadOptions, _limit: u64, _on_event: impl Fn(Event) + 'static) {}

/// Does nothing.
pub fn abort(_key: u32) {}

/// Nothing was begun.
#[must_use]
pub fn unfinished() -> Vec<Unfinished> {
    Vec::new()
}

/// Does nothing.
pub fn ask_unfinished(_memory: &str, _then: impl FnOnce(Option<u64>) + 'static) {}

/// Does nothing.
pub fn watch_unfinished(_then: impl Fn(&str, Option<u64>) + 'static) {}

/// Does nothing.
pub fn remove(_memory: &str) {}

/// Does nothing.
pub fn discard(_key: u32) {}
