//! What the page of sessions uses of the document: dates in the person's time zone, where the page is scrolled to, the fields of
//! its filters.

use super::dom;
use crate::model::{Timestamp, ago};
use leptos::prelude::*;
use wasm_bindgen::{JsCast, JsValue};

/// The offset of the person's time zone from UTC at this time, in minutes, east of it positive.
fn offset(at: &JsValue) -> i32 {
    -(js_sys::Date::new(at).get_timezone_offset() as i32)
}

/// How long before `now` a time was, or its date in the person's time zone if that was long ago.
#[must_use]
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let with_offset = |at: Timestamp| (at, offset(&JsValue::from_f64(at.0 as f64)));
    let days = ago::days_between(with_offset(at), with_offset(now));
    ago::ago(at, now, days).unwrap_or_else(|| dom::local_date(at))
}

/// Shows the times in what a search has found as [`ago`] does.
pub fn show_found_times(now: Timestamp) {
    for time in dom::all(document().query_selector_all(".found time")) {
        let Ok(time) = time.dyn_into::<web_sys::Element>() else { continue };
        if let Some(Ok(at)) = time.get_attribute("datetime").map(|at| at.parse()) {
            time.set_text_content(Some(&ago(at, now)));
            let _ = time.set_attribute("title", &dom::local_date_time(at));
        }
    }
}

/// The first or the last moment of a day (`2026-11-23`) in the person's time zone, as in RFC 3339 with its offset; empty if it is
/// no day.
#[must_use]
pub fn moment_of_day(day: &str, is_end: bool) -> String {
    if day.len() != "2026-11-23".len() {
        return String::new();
    }
    // Without an offset, JavaScript takes it for local time.
    let time = format!("{day}T{}", if is_end { "23:59:59.999" } else { "00:00:00" });
    let offset = offset(&JsValue::from_str(&time));
    let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs());
    format!("{time}{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// The name and the value of the field that an event comes from.
#[must_use]
pub fn field(event: &web_sys::Event) -> Option<(String, String)> {
    let target = event.target()?;
    let get = |name: &str| js_sys::Reflect::get(&target, &JsValue::from_str(name)).ok()?.as_string();
    Some((get("name")?, get("value")?))
}

/// Sends a form while the page is left; nobody waits for the answer.
pub fn send_form(path: &str, fields: &[(&str, String)]) {
    let Ok(form) = web_sys::UrlSearchParams::new() else { return };
    for (name, value) in fields {
        form.append(name, value);
    }
    let _ = window().navigator().send_beacon_with_opt_url_search_params(path, Some(&form));
}

/// How far down the page is scrolled, in pixels.
#[must_use]
pub fn scrolled() -> f64 {
    window().scroll_y().unwrap_or_default()
}

/// Scrolls the page down to so many pixels.
pub fn scroll_to(y: f64) {
    window().scroll_to_with_x_and_y(0.0, y);
}

/// Whether the browser has this address already while the page for it is made: it went back or forward, or has loaded it. For a
/// link it gets the address afterwards.
#[must_use]
pub fn is_at(address: &str) -> bool {
    let location = window().location();
    let current = location.pathname().and_then(|path| Ok(path + &location.search()?));
    // The router writes some characters of an address in another way.
    let decoded = |address: &str| js_sys::decode_uri_component(address).map(String::from);
    matches!((current.map(|current| decoded(&current)), decoded(address)), (Ok(Ok(current)), Ok(address)) if current == address)
}
