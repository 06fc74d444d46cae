//! What pages use of the document: the clock and time zone, focus, scrolling, the player, notifications.
//! Called from effects and event handlers, or before hydration; never during hydration.

use crate::model::{Timestamp, text};
use leptos::{html, prelude::*};
use std::cell::RefCell;
use wasm_bindgen::{JsCast, JsValue, closure::Closure};

/// The distance from its end, in pixels, at which a list counts as scrolled to the end: about one line.
const END_TOLERANCE_PX: i32 = 40;

/// The browser's clock.
#[must_use]
pub fn now() -> Option<Timestamp> {
    Some(super::now())
}

/// Converts a time of the browser's clock, which may be wrong by hours, to the server's clock.
#[must_use]
pub fn to_server_time(clock: Timestamp) -> Timestamp {
    super::beacon::measure(|measure| measure.to_server_time(clock))
}

/// The locale of all pages: English, with the day before the month.
const LOCALE: &str = "en-GB";
const TIME: [(&str, &str); 3] = [("hour", "2-digit"), ("minute", "2-digit"), ("hourCycle", "h23")];
const DAY: [(&str, &str); 3] = [("day", "numeric"), ("month", "short"), ("year", "numeric")];

/// The given parts of a time in the browser's time zone, as `Intl` formats them.
fn local(at: Timestamp, parts: &[(&str, &str)]) -> String {
    let options = js_sys::Object::new();
    for (part, style) in parts {
        // This fails only for objects that can't be changed.
        let _ = js_sys::Reflect::set(&options, &JsValue::from_str(part), &JsValue::from_str(style));
    }
    js_sys::Date::new(&JsValue::from_f64(at.0 as f64)).to_locale_string(LOCALE, &options).into()
}

/// The date and time in the browser's time zone, such as `23 Nov 2026, 15:32`.
#[must_use]
pub fn local_date_time(at: Timestamp) -> String {
    local(at, &[DAY, TIME].concat())
}

/// The time of day in the browser's time zone, such as `15:32`.
#[must_use]
pub fn local_time(at: Timestamp) -> String {
    local(at, &TIME)
}

/// Whether the document was made for the current address. It keeps its own in `data-address`. History entries made by one
/// document share the document that is later loaded for one of them (HTML, "document state").
#[must_use]
pub fn matches_its_address() -> bool {
    let location = window().location();
    let made_for = document().document_element().and_then(|root| root.get_attribute("data-address"));
    let address = location.pathname().and_then(|path| Ok(path + &location.search()?));
    made_for.is_none() || made_for == address.ok()
}

/// Loads the page again.
pub fn reload() {
    let _ = window().location().reload();
}

/// Marks the document as hydrated, for tests and styles: from now on the app handles clicks.
pub fn mark_hydrated() {
    if let Some(root) = document().document_element() {
        let _ = root.set_attribute("data-hydrated", "");
    }
}

/// Whether a notification will be shown when a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notifications {
    On,
    Off,
    /// The person has blocked them, which only the browser's settings can undo.
    Blocked,
}

/// The key of the setting in the browser's storage.
const NOTIFY_KEY: &str = "hark-notify";

/// Whether notifications are switched on and allowed. None in a browser without them, or on an insecure page.
#[must_use]
pub fn notifications() -> Option<Notifications> {
    if !js_sys::Reflect::has(&js_sys::global(), &JsValue::from_str("Notification")).unwrap_or(false)
        || !window().is_secure_context()
    {
        return None;
    }
    let on = storage().and_then(|s| s.get_item(NOTIFY_KEY).ok().flatten()).is_some();
    Some(match web_sys::Notification::permission() {
        web_sys::NotificationPermission::Denied => Notifications::Blocked,
        web_sys::NotificationPermission::Granted if on => Notifications::On,
        _ => Notifications::Off,
    })
}

fn storage() -> Option<web_sys::Storage> {
    window().local_storage().ok().flatten()
}

/// Stores the setting, makes the browser ask for permission if needed, then calls `then` with the result.
pub fn ask_for_notifications(on: bool, then: impl Fn(Option<Notifications>) + 'static) {
    if let Some(storage) = storage() {
        // This fails only if storage is full or blocked. Then the setting is lost when the page is closed.
        let _ = if on { storage.set_item(NOTIFY_KEY, "1") } else { storage.remove_item(NOTIFY_KEY) };
    }
    let asked = on.then(web_sys::Notification::request_permission).and_then(Result::ok);
    leptos::task::spawn_local(async move {
        if let Some(asked) = asked {
            let _ = wasm_bindgen_futures::JsFuture::from(asked).await;
        }
        then(notifications());
    });
}

/// Shows a notification. It replaces one for the same session from another tab. Does nothing if the page has the focus,
/// because then the page itself shows that the session has ended.
pub fn notify(id: &str, text: &str) {
    if document().visibility_state() == web_sys::VisibilityState::Visible && document().has_focus().unwrap_or(true) {
        return;
    }
    let options = web_sys::NotificationOptions::new();
    options.set_tag(id);
    options.set_icon("/favicon.svg");
    // This fails on phones that allow notifications only to service workers.
    let _ = web_sys::Notification::new_with_options(text, &options);
}

/// Moves the focus to the element with this id, which need not be in the tab order.
pub fn focus(id: &str) {
    let element = document().get_element_by_id(id).and_then(|e| e.dyn_into::<web_sys::HtmlElement>().ok());
    if let Some(element) = element {
        // The router does the scrolling.
        let options = web_sys::FocusOptions::new();
        options.set_prevent_scroll(true);
        let _ = element.focus_with_options(&options);
    }
}

/// Plays a recording from a position, in seconds.
pub fn play_from(audio: NodeRef<html::Audio>, seconds: f64) {
    thread_local! {
        /// Handles the browser's refusal to play, which its own controls show already.
        static REFUSED: Closure<dyn FnMut(JsValue)> = Closure::new(|_| {});
    }
    let Some(audio) = audio.get_untracked() else { return };
    audio.set_current_time(seconds);
    if let Ok(playing) = audio.play() {
        REFUSED.with(|refused| {
            let _ = playing.catch(refused);
        });
    }
}

/// The position of a recording that is playing or was played, in seconds.
#[must_use]
pub fn playback_position(audio: NodeRef<html::Audio>) -> Option<f64> {
    let audio = audio.get_untracked()?;
    let position = audio.current_time();
    (!audio.paused() || position > 0.0).then_some(position)
}

/// Marks only the line of a transcript that is being played, by its index.
pub fn mark_line(list: NodeRef<html::Div>, index: Option<u32>) {
    let Some(list) = list.get_untracked() else { return };
    if let Ok(Some(line)) = list.query_selector(".line[aria-current]") {
        let _ = line.remove_attribute("aria-current");
    }
    let line = index.and_then(|index| list.query_selector(&format!(".line:nth-child({})", index + 1)).ok().flatten());
    if let Some(line) = line {
        let _ = line.set_attribute("aria-current", "true");
    }
}

/// Whether a scrolling element is at its end.
#[must_use]
pub fn is_at_end(list: NodeRef<html::Div>) -> bool {
    list.get_untracked().is_none_or(|l| l.scroll_height() - l.scroll_top() - l.client_height() <= END_TOLERANCE_PX)
}

/// Scrolls an element to its end.
pub fn scroll_to_end(list: NodeRef<html::Div>) {
    if let Some(list) = list.get_untracked() {
        list.set_scroll_top(list.scroll_height());
    }
}

/// Makes the browser ask for confirmation before the page is left, or no longer.
pub fn warn_before_leaving(on: bool) {
    type Ask = Closure<dyn FnMut(web_sys::Event)>;
    thread_local! {
        static WARNING: RefCell<Option<Ask>> = const { RefCell::new(None) };
    }
    WARNING.with(|warning| {
        let mut warning = warning.borrow_mut();
        let target = window();
        match (on, warning.take()) {
            (true, None) => {
                let ask = Ask::new(|event: web_sys::Event| event.prevent_default());
                let _ = target.add_event_listener_with_callback("beforeunload", ask.as_ref().unchecked_ref());
                *warning = Some(ask);
            }
            (true, kept) => *warning = kept,
            (false, Some(ask)) => {
                let _ = target.remove_event_listener_with_callback("beforeunload", ask.as_ref().unchecked_ref());
            }
            (false, None) => {}
        }
    });
}

/// The horizontal position of a point of the window within an element, from 0 at its left edge to 1.
#[must_use]
pub fn position_in(element: NodeRef<html::Div>, client_x: i32) -> Option<f64> {
    let bounds = element.get_untracked()?.get_bounding_client_rect();
    (bounds.width() > 0.0).then(|| ((f64::from(client_x) - bounds.left()) / bounds.width()).clamp(0.0, 1.0))
}

/// Shows a progress in percent in the page's icon, or the normal icon if there is none.
pub fn show_progress_in_icon(percent: Option<f64>) {
    let Some(icon) = document().query_selector("link[rel=icon]").ok().flatten() else { return };
    let href = match percent {
        None => "/favicon.svg".to_owned(),
        // A ring with a path length of 100, drawn from the top.
        Some(percent) => format!(
            "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 36 36' fill='none' \
             stroke-width='6'%3E%3Ccircle cx='18' cy='18' r='15' stroke='%238b877d'/%3E%3Ccircle cx='18' cy='18' \
             r='15' stroke='%230d9488' pathLength='100' stroke-dasharray='{} 100' \
             transform='rotate(-90 18 18)'/%3E%3C/svg%3E",
            text::decimal(percent.clamp(0.0, 100.0), 0)
        ),
    };
    let _ = icon.set_attribute("href", &href);
}
