//! Stands in for `feed/browser/dom.rs` on the server, while it renders: its functions do nothing, and times are in UTC.

use crate::{
    feed::{Copied, Notifications},
    model::{Timestamp, text},
};
use leptos::{html, prelude::NodeRef};

/// None: the browser's clock is used only after hydration.
#[must_use]
pub fn now() -> Option<Timestamp> {
    None
}

/// Returns the same time: the server has only its own clock.
#[must_use]
pub fn to_server_time(clock: Timestamp) -> Timestamp {
    clock
}

/// The day and time in UTC.
#[must_use]
pub fn local_date_time(at: Timestamp) -> String {
    text::date_time(at)
}

/// The time of day in UTC.
#[must_use]
pub fn local_time(at: Timestamp) -> String {
    text::time_of_day(at)
}

/// None: nothing is kept while rendering.
#[must_use]
pub fn kept(_key: &str) -> Option<String> {
    None
}

/// Does nothing.
pub fn keep(_key: &str, _text: &str) {}

/// Does nothing.
pub fn mark_hydrated() {}

/// None: the server has no notifications.
#[must_use]
pub fn notifications() -> Option<Notifications> {
    None
}

/// Does nothing.
pub fn ask_for_notifications(_on: bool, _then: impl Fn(Option<Notifications>) + 'static) {}

/// Does nothing.
pub fn notify(_id: &str, _text: &str) {}

/// False: nothing can have the focus.
pub fn focus(_id: &str) -> bool {
    false
}

/// False: nothing has the focus.
#[must_use]
pub fn has_focus(_id: &str) -> bool {
    false
}

/// False: nothing had the focus.
#[must_use]
pub fn is_focus_lost() -> bool {
    false
}

/// Does nothing.
pub fn open(_details: NodeRef<html::Details>, _field: NodeRef<html::Input>, _text: &str) {}

/// False: nothing is open.
pub fn close(_details: NodeRef<html::Details>) -> bool {
    false
}

/// None: it is used only once the page is hydrated.
#[must_use]
pub fn number(_text: &str) -> Option<f64> {
    None
}

/// None: no form has an event.
#[must_use]
pub fn values(_event: &leptos::ev::Event, _names: &[&str]) -> Option<String> {
    None
}

/// Does nothing.
pub fn copy(_address: Option<String>, _field: NodeRef<html::Textarea>, _then: impl Fn(Copied) + 'static) {}

/// Does nothing.
pub fn warn_before_leaving(_on: bool) {}

/// Does nothing.
pub fn show_progress_in_icon(_percent: Option<f64>) {}
