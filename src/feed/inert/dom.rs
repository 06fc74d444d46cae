//! Stands in for `feed/browser/dom.rs` on the server, while it renders: its functions do nothing, and times are in UTC.

use crate::model::{Timestamp, text};
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

/// Does nothing.
pub fn mark_hydrated() {}

/// Whether a notification will be shown when a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notifications {
    On,
    Off,
    Blocked,
}

/// None: the server has no notifications.
#[must_use]
pub fn notifications() -> Option<Notifications> {
    None
}

/// Does nothing.
pub fn ask_for_notifications(_on: bool, _then: impl Fn(Option<Notifications>) + 'static) {}

/// Does nothing.
pub fn notify(_id: &str, _text: &str) {}

/// Does nothing.
pub fn focus(_id: &str) {}

/// Does nothing.
pub fn play_from(_audio: NodeRef<html::Audio>, _seconds: f64) {}

/// None: nothing plays.
#[must_use]
pub fn playback_position(_audio: NodeRef<html::Audio>) -> Option<f64> {
    None
}

/// Does nothing.
pub fn mark_line(_list: NodeRef<html::Div>, _index: Option<u32>) {}

/// True: nothing is scrolled.
#[must_use]
pub fn is_at_end(_list: NodeRef<html::Div>) -> bool {
    true
}

/// Does nothing.
pub fn scroll_to_end(_list: NodeRef<html::Div>) {}

/// Does nothing.
pub fn warn_before_leaving(_on: bool) {}

/// None: no element is laid out.
#[must_use]
pub fn position_in(_element: NodeRef<html::Div>, _client_x: i32) -> Option<f64> {
    None
}

/// Does nothing.
pub fn show_progress_in_icon(_percent: Option<f64>) {}
