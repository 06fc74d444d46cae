//! The browser's events about the page and the network: visible or hidden, left or restored, online or offline.
//! Also an event listener that removes itself when dropped, and the timing that a page may contain for tests.

use super::Driver;
use crate::feed::link::{Event, Timing};
use std::rc::Weak;
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use web_sys::{Document, EventTarget, VisibilityState, window};

/// An event listener, removed when dropped.
pub(super) struct Listener {
    target: EventTarget,
    name: &'static str,
    closure: Closure<dyn FnMut(web_sys::Event)>,
}

impl Listener {
    /// Calls `f` with every event `name` of `target`.
    pub(super) fn new(target: &EventTarget, name: &'static str, f: impl FnMut(web_sys::Event) + 'static) -> Self {
        let closure = Closure::new(f);
        // This fails only if the listener isn't a function.
        let _ = target.add_event_listener_with_callback(name, closure.as_ref().unchecked_ref());
        Self { target: target.clone(), name, closure }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.target.remove_event_listener_with_callback(self.name, self.closure.as_ref().unchecked_ref());
    }
}

/// The listeners of the page, removed when dropped.
pub(super) struct Signals {
    _listeners: Vec<Listener>,
}

impl Signals {
    /// Adds the listeners, which call `driver`.
    pub(super) fn new(driver: &Weak<Driver>) -> Self {
        let Some(window) = window() else { return Self { _listeners: Vec::new() } };
        let on = |target: &EventTarget, name, handle: fn(&Driver, &web_sys::Event)| {
            let driver = driver.clone();
            Listener::new(target, name, move |event| {
                if let Some(driver) = driver.upgrade() {
                    handle(&driver, &event);
                }
            })
        };
        let mut listeners = vec![
            on(&window, "online", |driver, _| driver.visible_or_online(Event::Online)),
            on(&window, "offline", |driver, _| driver.on(Event::Offline)),
            // Some browsers would report a stream left open as an error, and would not put the page into the cache.
            on(&window, "pagehide", |driver, _| driver.leave()),
            on(&window, "pageshow", |driver, event| {
                if persisted(event) {
                    driver.restored_from_cache();
                }
            }),
        ];
        if let Some(document) = window.document() {
            listeners.push(on(&document, "visibilitychange", |driver, _| {
                if hidden() { driver.hidden() } else { driver.visible_or_online(Event::Visible) }
            }));
        }
        Self { _listeners: listeners }
    }
}

/// Whether the browser reports no network.
pub(super) fn offline() -> bool {
    window().is_some_and(|window| !window.navigator().on_line())
}

/// The link's timing: the defaults, unless the page contains `<meta name="hark-link" content="first=400,…">`.
pub(super) fn timing() -> Timing {
    Timing::with_overrides(&meta("link").unwrap_or_default())
}

/// The content of the page's `<meta name="hark-…">`.
pub(super) fn meta(name: &str) -> Option<String> {
    let selector = ["meta[name=hark-", name, "]"].concat();
    window_document()?.query_selector(&selector).ok()??.get_attribute("content")
}

/// Whether the page is hidden.
pub(super) fn hidden() -> bool {
    window_document().is_none_or(|document| document.visibility_state() == VisibilityState::Hidden)
}

pub(super) fn window_document() -> Option<Document> {
    window()?.document()
}

/// Whether a `pageshow` event comes from a page that was in the back/forward cache.
fn persisted(event: &web_sys::Event) -> bool {
    js_sys::Reflect::get(event, &JsValue::from_str("persisted")).is_ok_and(|value| value.is_truthy())
}
