//! What pages use of the document: the clock and time zone, focus, notifications.
//! Called from effects and event handlers, or before hydration; never during hydration.

use crate::{
    feed::{Copied, Notifications},
    model::{Timestamp, text},
};
use leptos::{html, prelude::*};
use std::cell::RefCell;
use wasm_bindgen::{JsCast, JsValue, closure::Closure};

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

/// The date in the browser's time zone, such as `23 Nov 2026`.
#[must_use]
pub fn local_date(at: Timestamp) -> String {
    local(at, &DAY)
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

/// How the app starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// By taking over the nodes that the server has rendered.
    Hydrate,
    /// By making its own nodes, because a translator or an extension has changed those, which hydration wouldn't survive.
    Anew,
    /// Not at all: it has crashed here, and the page works as without JavaScript.
    Stay,
}

/// How the app must start, as `app/fallback.js` says, which has watched the page since it was loaded.
#[must_use]
pub fn start() -> Start {
    let ask = js_sys::Reflect::get(&js_sys::global(), &JsValue::from_str("harkStart"));
    let how = ask.ok().and_then(|ask| ask.dyn_into::<js_sys::Function>().ok()?.call0(&JsValue::UNDEFINED).ok());
    match how.and_then(|how| how.as_string()).as_deref() {
        Some("anew") => Start::Anew,
        Some("stay") => Start::Stay,
        _ => Start::Hydrate,
    }
}

/// The values of these fields of the form whose event this is, as a query; none if one of them can't be.
#[must_use]
pub fn values(event: &web_sys::Event, names: &[&str]) -> Option<String> {
    let form =
        event.current_target()?.dyn_into::<web_sys::HtmlFormElement>().ok().filter(|form| form.check_validity())?;
    let data = web_sys::FormData::new_with_form(&form).ok()?;
    let values = names.iter().filter_map(|name| data.get(name).as_string().map(|value| format!("{name}={value}")));
    Some(values.collect::<Vec<_>>().join("&"))
}

/// Removes everything from the page.
pub fn clear_body() {
    if let Some(body) = document().body() {
        body.set_text_content(None);
    }
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

/// What the pages before this one in the same tab have kept under a key, until the tab is closed.
#[must_use]
pub fn kept(key: &str) -> Option<String> {
    window().session_storage().ok().flatten()?.get_item(key).ok().flatten()
}

/// Keeps a text for the next pages in this tab.
pub fn keep(key: &str, text: &str) {
    if let Some(storage) = window().session_storage().ok().flatten() {
        // This fails only if storage is full or blocked. Then the next page learns it anew.
        let _ = storage.set_item(key, text);
    }
}

pub(super) fn storage() -> Option<web_sys::Storage> {
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

/// Moves the focus to the element with this id, which need not be in the tab order. False if it is hidden, or isn't there.
pub fn focus(id: &str) -> bool {
    let element = document().get_element_by_id(id).and_then(|e| e.dyn_into::<web_sys::HtmlElement>().ok());
    element.is_some_and(|element| {
        // The router does the scrolling.
        let options = web_sys::FocusOptions::new();
        options.set_prevent_scroll(true);
        let _ = element.focus_with_options(&options);
        // What has just been hidden still has it for a moment.
        !is_focus_lost() && document().active_element().is_some_and(|focused| focused == *element)
    })
}

/// Whether the element with this id, or something within it, has the focus.
#[must_use]
pub fn has_focus(id: &str) -> bool {
    let focused = document().active_element();
    document().get_element_by_id(id).is_some_and(|element| element.contains(focused.as_deref()))
}

/// Whether nothing has the focus, because what had it is gone or hidden.
#[must_use]
pub fn is_focus_lost() -> bool {
    document()
        .active_element()
        .is_none_or(|focused| focused.tag_name() == "BODY" || focused.get_bounding_client_rect().width() == 0.0)
}

/// Opens a form with one field, which begins with this text, selected.
pub fn open(details: NodeRef<html::Details>, field: NodeRef<html::Input>, text: &str) {
    let (Some(details), Some(field)) = (details.get_untracked(), field.get_untracked()) else { return };
    details.set_open(true);
    field.set_value(text);
    // This fails only if the element can't have the focus.
    let _ = field.focus();
    field.select();
}

/// Closes what somebody has opened, and moves the focus back to what opens it. False if it isn't open.
pub fn close(details: NodeRef<html::Details>) -> bool {
    let Some(details) = details.get_untracked().filter(|details| details.open()) else { return false };
    details.set_open(false);
    if let Ok(Some(summary)) = details.query_selector("summary")
        && let Ok(summary) = summary.dyn_into::<web_sys::HtmlElement>()
    {
        // This fails only if the element can't have the focus.
        let _ = summary.focus();
    }
    true
}

/// Reads a number. The browser does it, because Rust's own reader of decimals would be 20 kB to load.
#[must_use]
pub fn number(text: &str) -> Option<f64> {
    Some(js_sys::parse_float(text)).filter(|number| number.is_finite())
}

/// Puts the text at an address on the clipboard, or the selected part of the lines, or all of them. Calls `then` with what became
/// of it. A text that the browser refuses is selected in `field`. Must be called by a click.
pub fn copy(address: Option<String>, field: NodeRef<html::Textarea>, then: impl Fn(Copied) + 'static) {
    leptos::task::spawn_local(async move {
        let (text, copied) = match &address {
            Some(address) => match super::poll::fetch_text(address).await {
                Some(text) => (text, Copied::All),
                None => return then(Copied::NoAnswer),
            },
            None => selected_lines().map_or_else(|| (all_lines(), Copied::All), |text| (text, Copied::Selection)),
        };
        let written = match write_to_clipboard(&text) {
            Some(writing) => wasm_bindgen_futures::JsFuture::from(writing).await.is_ok(),
            None => false,
        };
        if written || copy_by_command(&text) {
            return then(copied);
        }
        then(Copied::Refused);
        // The field is shown by then.
        leptos::task::tick().await;
        if let Some(field) = field.get_untracked() {
            field.set_value(&text);
            let _ = field.focus();
            field.select();
        }
    });
}

/// None where the browser has no clipboard for pages, as over plain http.
fn write_to_clipboard(text: &str) -> Option<js_sys::Promise> {
    let clipboard = js_sys::Reflect::get(&window().navigator(), &JsValue::from_str("clipboard")).ok()?;
    let write: js_sys::Function =
        js_sys::Reflect::get(&clipboard, &JsValue::from_str("writeText")).ok()?.dyn_into().ok()?;
    write.call1(&clipboard, &JsValue::from_str(text)).ok()?.dyn_into().ok()
}

/// Copies by the older command, which copies what is selected.
fn copy_by_command(text: &str) -> bool {
    let document = document();
    let made = document.create_element("textarea").ok().and_then(|e| e.dyn_into::<web_sys::HtmlTextAreaElement>().ok());
    let (Some(field), Some(body)) = (made, document.body()) else { return false };
    let focused = document.active_element().and_then(|e| e.dyn_into::<web_sys::HtmlElement>().ok());
    field.set_value(text);
    field.set_class_name("hidden");
    let _ = body.append_child(&field);
    field.select();
    let command = js_sys::Reflect::get(&document, &JsValue::from_str("execCommand"));
    let command = command.ok().and_then(|command| command.dyn_into::<js_sys::Function>().ok());
    let copied = command.and_then(|command| command.call1(&document, &JsValue::from_str("copy")).ok());
    field.remove();
    if let Some(focused) = focused {
        let _ = focused.focus();
    }
    copied.is_some_and(|copied| copied.is_truthy())
}

/// The elements that a selector finds.
pub(super) fn all(found: Result<web_sys::NodeList, JsValue>) -> Vec<web_sys::Node> {
    found.map(|found| (0..found.length()).filter_map(|n| found.get(n)).collect()).unwrap_or_default()
}

/// The texts of these lines that have any, each with its end of line.
fn texts(lines: &[web_sys::Node]) -> String {
    let texts = lines.iter().filter_map(web_sys::Node::text_content).filter(|text| !text.trim().is_empty());
    texts.map(|text| text + "\n").collect()
}

fn all_lines() -> String {
    texts(&all(document().query_selector_all(".line p")))
}

/// The selected part of the transcript's lines, without their times; none if nothing of them is selected.
fn selected_lines() -> Option<String> {
    let selection = window().get_selection().ok().flatten().filter(|s| !s.is_collapsed() && s.range_count() > 0)?;
    let range = selection.get_range_at(0).ok()?;
    let lines = document().query_selector(".lines").ok().flatten()?;
    if !lines.contains(range.common_ancestor_container().ok().as_ref()) {
        return None;
    }
    let selected = range.clone_contents().ok()?;
    // What lies within one line has no elements of lines.
    let whole = all(selected.query_selector_all(".line p"));
    let text = if whole.is_empty() { selected.text_content().unwrap_or_default() } else { texts(&whole) };
    Some(text.trim_end().to_owned()).filter(|text| !text.is_empty())
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
                let ask = Ask::new(|event: web_sys::Event| {
                    event.prevent_default();
                    // Chrome before 119 asks only if there is a value.
                    let _ = js_sys::Reflect::set(&event, &"returnValue".into(), &"1".into());
                });
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
