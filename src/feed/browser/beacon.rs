//! Carries what `feed::measure` measured to the server: when the page is left, and every few minutes before that.
//! By `sendBeacon`, which outlives the page and asks for no answer.

use super::{now, signals::window_document};
use crate::{
    feed::{
        link::{Action, Event},
        measure::Measure,
    },
    model::{ConnectionReport, Timestamp},
};
use gloo_timers::callback::Interval;
use js_sys::Reflect;
use std::cell::RefCell;
use wasm_bindgen::JsValue;
use web_sys::window;

const URL: &str = "/api/v1/reports";
/// Between reports, in milliseconds: 5 minutes.
const EVERY_MS: u32 = 300_000;

thread_local! {
    static MEASURE: RefCell<Measure> = RefCell::default();
}

/// The books of this page.
pub(super) fn measure<T>(f: impl FnOnce(&mut Measure) -> T) -> T {
    MEASURE.with_borrow_mut(f)
}

/// Milliseconds of a clock that runs evenly.
fn even_clock() -> f64 {
    window().and_then(|window| window.performance()).map_or_else(js_sys::Date::now, |performance| performance.now())
}

/// The link has handled an event.
pub(super) fn handled(event: Event, actions: &[Action]) {
    measure(|measure| measure.handled(event, actions, even_clock(), now()));
}

/// Begins to report. Stops when the answer is dropped.
pub(super) fn start() -> Interval {
    if let Some((sent, received, server)) = time_of_page() {
        measure(|measure| measure.server_time(sent, received, server));
    }
    Interval::new(EVERY_MS, send)
}

/// Sends what happened since the last time, if anything did.
pub(super) fn send() {
    let Some(report) = measure(|measure| measure.take(even_clock())) else { return };
    let _ = post(&report);
}

/// None if the browser has no such thing or its queue is full: then the figures are lost, and nothing else.
fn post(report: &ConnectionReport) -> Option<bool> {
    let text = serde_json::to_string(report).ok()?;
    window()?.navigator().send_beacon_with_opt_str(URL, Some(&text)).ok()
}

/// When the page was asked for and came, and the server's clock in between, which the page carries. None for a page
/// from the browser's own memory.
fn time_of_page() -> Option<(Timestamp, Timestamp, Timestamp)> {
    let meta = window_document()?.query_selector("meta[name=hark-time]").ok()??;
    let server = Timestamp(meta.get_attribute("content")?.parse().ok()?);
    let performance = window()?.performance()?;
    let entry = performance.get_entries_by_type("navigation").get(0);
    let number = |name: &str| Reflect::get(&entry, &JsValue::from_str(name)).ok()?.as_f64();
    let loaded = Reflect::get(&entry, &JsValue::from_str("type")).ok()?.as_string()?;
    if loaded == "back_forward" || number("transferSize")? == 0.0 {
        return None;
    }
    // Those are counted from the page's own beginning, on the even clock.
    let at = |name: &str| Some(Timestamp(now().0 - (performance.now() - number(name)?) as i64));
    Some((at("requestStart")?, at("responseStart")?, server))
}
