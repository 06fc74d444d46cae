//! Stands in for `feed/browser/list.rs` on the server, while it renders: its functions do nothing, and times are in UTC.

use crate::model::{Timestamp, ago, text};

/// How long before `now` a time was, or its date in UTC if that was a day ago or more.
#[must_use]
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    ago::ago_anywhere(at, now).unwrap_or_else(|| text::date_time(at))
}

/// Does nothing.
pub fn show_found_times(_now: Timestamp) {}

/// Empty: no field changes.
#[must_use]
pub fn moment_of_day(_day: &str, _is_end: bool) -> String {
    String::new()
}

/// None: no field changes.
#[must_use]
pub fn field(_event: &leptos::ev::Event) -> Option<(String, String)> {
    None
}

/// Does nothing: no page is left.
pub fn send_form(_path: &str, _fields: &[(&str, String)]) {}

/// 0: nothing is scrolled.
#[must_use]
pub fn scrolled() -> f64 {
    0.0
}

/// Does nothing.
pub fn scroll_to(_y: f64) {}

/// False: the server has no history.
#[must_use]
pub fn is_at(_address: &str) -> bool {
    false
}
