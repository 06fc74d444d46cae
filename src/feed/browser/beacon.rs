//! Sends the reports of `feed::measure` to the server, every minute while somebody may see the page and when it is hidden or
//! left. `sendBeacon` does so without waiting for an answer, even after the page is closed.

use super::{now, signals::meta};
use crate::{
    feed::{
        link::{Action, Event},
        measure::Measure,
    },
    model::Timestamp,
};
use js_sys::Reflect;
use std::cell::RefCell;
use wasm_bindgen::JsValue;
use web_sys::window;

const URL: &str = "/api/v1/reports";
/// The interval between reports, in milliseconds: a minute.
pub(super) const REPORT_INTERVAL_MS: u32 = 60_000;

thread_local! {
    static MEASURE: RefCell<Measure> = RefCell::default();
}

/// Calls `f` with the measurements of this page.
pub(super) fn measure<T>(f: impl FnOnce(&mut Measure) -> T) -> T {
    MEASURE.with_borrow_mut(f)
}

/// Milliseconds of a monotonic clock.
fn monotonic_ms() -> f64 {
    window().and_then(|window| window.performance()).map_or_else(js_sys::Date::now, |performance| performance.now())
}

/// Takes in an event that the link has handled. `seen`: whether somebody may see this page, or one that it holds the stream for.
pub(super) fn handled(event: Event, actions: &[Action], seen: bool) {
    measure(|measure| measure.handled(event, actions, seen, monotonic_ms(), now()));
}

/// Takes in when the page was loaded, and the server's time then.
pub(super) fn start() {
    if let Some((sent, received, server)) = page_load_times() {
        measure(|measure| measure.server_time(sent, received, server));
    }
}

/// The token that binds this page's reports to its streams and polls. None in a page that the server rendered without one.
pub(super) fn token() -> Option<String> {
    meta("page")
}

/// Sends the report since the last one, if anything was counted. If the browser has no `sendBeacon` or its queue is full, only
/// this report is lost.
pub(super) fn send() {
    let _ = post();
}

fn post() -> Option<bool> {
    let page = token()?;
    let mut report = measure(|measure| measure.take(monotonic_ms()))?;
    report.page = page;
    let text = serde_json::to_string(&report).ok()?;
    window()?.navigator().send_beacon_with_opt_str(URL, Some(&text)).ok()
}

/// How the page was loaded.
fn navigation() -> Option<JsValue> {
    Some(window()?.performance()?.get_entries_by_type("navigation").get(0))
}

/// Whether the page may have come from the browser's cache, and be old: browsers do that, without asking the server, for who goes
/// back or opens a closed tab again. None if the browser doesn't tell.
pub(super) fn from_cache() -> Option<bool> {
    let entry = navigation()?;
    let get = |name: &str| Reflect::get(&entry, &JsValue::from_str(name)).ok();
    Some(get("type")?.as_string()? == "back_forward" || get("transferSize")?.as_f64()? == 0.0)
}

/// When the page was requested, when it arrived, and the server's time in between, which the page contains. None if the page
/// came from the browser's cache.
fn page_load_times() -> Option<(Timestamp, Timestamp, Timestamp)> {
    let server = Timestamp(meta("time")?.parse().ok()?);
    if from_cache()? {
        return None;
    }
    let performance = window()?.performance()?;
    let entry = navigation()?;
    let number = |name: &str| Reflect::get(&entry, &JsValue::from_str(name)).ok()?.as_f64();
    // These are milliseconds of the monotonic clock since the page was requested.
    let at = |name: &str| Some(Timestamp(now().0 - (performance.now() - number(name)?) as i64));
    Some((at("requestStart")?, at("responseStart")?, server))
}
