//! Stands in for `feed/browser/find.rs` on the server, while it renders: nothing is marked.

use leptos::{html, prelude::NodeRef};

/// Finds nothing.
pub fn mark(_list: NodeRef<html::Div>, _wanted: &str) -> usize {
    0
}

/// The first: nothing is found.
pub fn first_from(_line: u32) -> usize {
    0
}

/// Does nothing.
pub fn make_current(_number: usize, _scroll: bool) {}

/// Does nothing.
pub fn clear() {}
