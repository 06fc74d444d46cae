//! The element that plays a recording, and the transcript beside it: playing, scrolling, and clicks on lines.
//! Called from effects and event handlers of the player and the transcript; what to do is decided by `player` and `follow`.

use super::{dom::storage, poll};
use crate::{
    feed::{
        follow::Aim,
        player::{
            Clicked, Command, Focus, Playback, Shown, control_command, key_command, line_after, speed_name, speed_named,
        },
        reduce::MissingRange,
    },
    model::{
        Segment, SessionId,
        text::{clock, decimal},
    },
};
use leptos::{ev::Event, html, prelude::*};
use std::cell::Cell;
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use web_sys::{
    Element, HtmlElement, Node, ScrollBehavior, ScrollIntoViewOptions, ScrollLogicalPosition, ScrollToOptions,
};

/// The id of the element that plays. A page has one.
pub const MEDIA: &str = "recording";
/// `MediaError.code`: the data can't be decoded, and the source isn't supported.
const UNPLAYABLE: [f64; 2] = [3.0, 4.0];
/// The keys of settings in the browser's storage.
const SPEED: &str = "hark-speed";
const KEYS_OFF: &str = "hark-keys-off";
/// What belongs to a line's time and to its text.
const TIME: &str = ".line-time";
const TEXT: &str = ".line p";
/// The distance from its end, in pixels, at which a list counts as scrolled to the end: about one line.
const END_TOLERANCE_PX: i32 = 40;
/// The part of the visible area above and below which a line that is played is moved: people read on.
const UPPER: f64 = 0.05;
const LOWER: f64 = 0.7;
/// Where it is moved to.
const PLACE: f64 = 0.25;
/// The distance, in heights of what is visible, from which on it is moved at once.
const FAR: f64 = 2.0;
/// The number of frames in which a line is scrolled to again. Lines get their real height in the frame after the one that brings
/// them near the window, which moves those below; a few rounds of that are enough.
const SETTLING_FRAMES: u32 = 10;

thread_local! {
    /// Counts what was scrolled to, so that only the newest is scrolled to again.
    static SCROLLS: Cell<u32> = const { Cell::new(0) };
}

// What is read and written by name here is what `web_sys` has functions for; but each of those is a name more to import.

fn get(object: &JsValue, name: &str) -> JsValue {
    js_sys::Reflect::get(object, &name.into()).unwrap_or(JsValue::UNDEFINED)
}

fn number(object: &JsValue, name: &str) -> f64 {
    get(object, name).as_f64().unwrap_or(0.0)
}

fn is(object: &JsValue, name: &str) -> bool {
    get(object, name).as_bool() == Some(true)
}

fn set(object: &JsValue, name: &str, value: &JsValue) {
    // This fails only for objects that can't be changed.
    let _ = js_sys::Reflect::set(object, &name.into(), value);
}

fn call(object: &JsValue, name: &str, argument: &JsValue) -> Option<JsValue> {
    get(object, name).dyn_into::<js_sys::Function>().ok()?.call1(object, argument).ok()
}

fn media() -> Option<Element> {
    document().get_element_by_id(MEDIA)
}

/// What the element is doing.
#[must_use]
pub fn playback() -> Playback {
    let Some(media) = media() else { return Playback::default() };
    let (position, length) = (number(&media, "currentTime"), number(&media, "duration"));
    let paused = is(&media, "paused");
    Playback {
        position: (!paused || position > 0.0).then_some(position),
        length: Some(length).filter(|length| length.is_finite() && *length > 0.0),
        playing: !paused && !is(&media, "ended"),
        speed: number(&media, "playbackRate"),
        volume: number(&media, "volume"),
        muted: is(&media, "muted"),
        picture: number(&media, "videoWidth") > 0.0,
        unplayable: UNPLAYABLE.contains(&number(&get(&media, "error"), "code")),
    }
}

/// Plays or pauses.
pub fn play(on: bool) {
    thread_local! {
        /// Handles the browser's refusal to play: then the button still says "Play".
        static REFUSED: Closure<dyn FnMut(JsValue)> = Closure::new(|_| {});
    }
    let Some(media) = media() else { return };
    let playing = call(&media, if on { "play" } else { "pause" }, &JsValue::UNDEFINED);
    if let Some(playing) = playing.and_then(|playing| playing.dyn_into::<js_sys::Promise>().ok()) {
        REFUSED.with(|refused| {
            let _ = playing.catch(refused);
        });
    }
}

/// Moves to a position, in seconds.
pub fn seek(seconds: f64) {
    if let Some(media) = media() {
        set(&media, "currentTime", &seconds.max(0.0).into());
    }
}

/// Sets the speed as a factor, and keeps it for other recordings.
pub fn set_speed(speed: f64) {
    if let Some(media) = media() {
        // The default, too, to which the element returns with another source.
        set(&media, "defaultPlaybackRate", &speed.into());
        set(&media, "playbackRate", &speed.into());
    }
    keep(SPEED, (speed != 1.0).then(|| speed_name(speed).to_owned()));
}

/// The speed that was kept.
#[must_use]
pub fn kept_speed() -> Option<f64> {
    speed_named(&kept(SPEED)?)
}

/// Sets the volume, 0 to 1.
pub fn set_volume(volume: f64) {
    if let Some(media) = media() {
        set(&media, "muted", &false.into());
        set(&media, "volume", &volume.into());
    }
}

/// Makes the element load another source.
pub fn load(source: &str) {
    if let Some(media) = media() {
        set(&media, "src", &source.into());
    }
}

/// Whether the browser may be able to play this media type.
#[must_use]
pub fn can_play(media_type: &str) -> bool {
    let answer = media().and_then(|media| call(&media, "canPlayType", &media_type.into())?.as_string());
    answer.is_some_and(|answer| !answer.is_empty())
}

/// Turns the sound off or on.
pub fn mute(off: bool) {
    if let Some(media) = media() {
        set(&media, "muted", &off.into());
    }
}

/// Shows the picture on the whole screen.
pub fn full_screen() {
    if let Some(media) = media() {
        // Some browsers, such as those of phones, refuse.
        call(&media, "requestFullscreen", &JsValue::UNDEFINED);
    }
}

/// Whether keys control the player, which the person may have switched off.
#[must_use]
pub fn keys_on() -> bool {
    kept(KEYS_OFF).is_none()
}

/// Shows whether they do.
pub fn show_keys(on: bool) {
    if let Some(input) = part("use-keys") {
        set(&input, "checked", &on.into());
    }
}

/// Keeps whether they do.
pub fn keep_keys(on: bool) {
    keep(KEYS_OFF, (!on).then(|| "1".to_owned()));
}

fn kept(key: &str) -> Option<String> {
    storage()?.get_item(key).ok().flatten()
}

fn keep(key: &str, value: Option<String>) {
    if let Some(storage) = storage() {
        // This fails only if storage is full or blocked. Then the setting is lost when the page is closed.
        let _ = match value {
            Some(value) => storage.set_item(key, &value),
            None => storage.remove_item(key),
        };
    }
}

/// Calls `then` once this element is in the document: at once if it is, otherwise in the frame in which it is. Not at all if the
/// element is gone by then.
pub fn once_in_document(element: NodeRef<html::Div>, then: impl FnOnce() + 'static) {
    match element.try_get_untracked().flatten() {
        Some(element) if element.is_connected() => then(),
        Some(_) => request_animation_frame(move || once_in_document(element, then)),
        None => {}
    }
}

/// Tells styles whether a player stays at the top of the page, so that the focus isn't moved beneath it.
pub fn mark_player(shown: bool) {
    if let Some(root) = document().document_element() {
        let _ = if shown { root.set_attribute("data-player", "") } else { root.remove_attribute("data-player") };
    }
}

/// Calls `handle` for these events, wherever on the page, until the component is removed. `capture`: also for those that don't
/// bubble, and before the elements themselves.
///
/// `handle` may be called while it runs: moving the focus is an event, too.
pub fn listen(events: &'static [&'static str], capture: bool, handle: impl Fn(Event) + 'static) {
    listen_with(events, capture, Box::new(handle));
}

fn listen_with(events: &'static [&'static str], capture: bool, handle: Box<dyn Fn(Event)>) {
    let listener = StoredValue::new_local(Closure::wrap(handle));
    let window = window();
    listener.with_value(|listener| {
        for event in events {
            // This fails for no name of an event.
            let _ = window.add_event_listener_with_callback_and_bool(event, listener.as_ref().unchecked_ref(), capture);
        }
    });
    on_cleanup(move || {
        listener.with_value(|listener| {
            for event in events {
                let callback = listener.as_ref().unchecked_ref();
                let _ =
                    leptos::prelude::window().remove_event_listener_with_callback_and_bool(event, callback, capture);
            }
        });
    });
}

fn target_of(event: &Event) -> Option<Element> {
    event.target()?.dyn_into().ok()
}

fn is_within(element: &Element, selector: &str) -> bool {
    element.closest(selector).is_ok_and(|found| found.is_some())
}

/// What an event does: a key, if keys control the player, or an event of one of its controls. `length` in
/// seconds.
#[must_use]
pub fn command_of(event: &Event, length: Option<f64>, keys: bool) -> Option<Command> {
    let target = target_of(event)?;
    if let Some(key) = key_of(event) {
        if is_modified(event) || is(event, "isComposing") || event.default_prevented() {
            return None;
        }
        if key == "Escape" && is_within(&target, ".keys") && close_keys() {
            event.prevent_default();
            return None;
        }
        let at = media().map_or(0.0, |media| number(&media, "currentTime"));
        let command = key_command(&key, focus_of(&target), at, length.unwrap_or(0.0)).filter(|_| keys);
        // Others, too, may wait for Esc.
        if command.is_some_and(|command| command != Command::Close) {
            event.prevent_default();
        }
        return command;
    }
    let control = target.closest(".recording [data-part]").ok()??;
    let name = control.get_attribute("data-part")?;
    let held = match &*name {
        "speed" => number(&control, "selectedIndex"),
        "use-keys" => f64::from(u8::from(is(&control, "checked"))),
        _ => number(&control, "valueAsNumber"),
    };
    control_command(&event.type_(), &name, held)
}

/// The key that was pressed. None for other events, and for those of browsers that fill in forms.
fn key_of(event: &Event) -> Option<String> {
    get(event, "key").as_string()
}

/// Whether a key was held that makes it something for the browser.
fn is_modified(event: &Event) -> bool {
    ["ctrlKey", "altKey", "metaKey"].iter().any(|key| is(event, key))
}

/// What has the focus, as far as a key is concerned.
fn focus_of(element: &Element) -> Focus {
    if is_within(element, ".wave-range") {
        Focus::Slider
    } else if is_within(element, "input, textarea, select, audio, video, [contenteditable]") {
        Focus::Input
    } else if is_within(element, "button, a[href], summary, [role=button], [role=link]") {
        Focus::Control
    } else {
        Focus::Elsewhere
    }
}

fn part(name: &str) -> Option<Element> {
    document().query_selector(&format!("[data-part={name}]")).ok().flatten()
}

/// Changes what parts of the page show. Leaves alone what `before` says they show already.
pub fn show(before: &[Shown], now: &[Shown]) {
    for (n, change) in now.iter().enumerate() {
        if before.get(n) == Some(change) {
            continue;
        }
        let (name, what, value) = change;
        let Some(part) = part(name) else { continue };
        // These fail for no name that `feed::player` has.
        let _ = match (*what, value) {
            ("textContent" | "value", value) => {
                set(&part, what, &value.as_deref().unwrap_or_default().into());
                Ok(())
            }
            (style, Some(value)) if style.starts_with("--") => {
                part.dyn_ref::<HtmlElement>().map_or(Ok(()), |part| part.style().set_property(style, value))
            }
            (attribute, Some(value)) => part.set_attribute(attribute, value),
            (attribute, None) => part.remove_attribute(attribute),
        };
    }
}

/// Shows the time under the pointer, which the event is of, on the waveform. `length` in seconds.
pub fn point(event: &Event, length: Option<f64>) {
    let (Some(wave), Some(length)) = (part("wave"), length) else { return };
    let bounds = wave.get_bounding_client_rect();
    let share = ((number(event, "clientX") - bounds.left()) / bounds.width().max(1.0)).clamp(0.0, 1.0);
    let time = ("pointer", "textContent", Some(clock(share * length)));
    show(&[], &[time, ("pointer", "--pointer", Some(decimal(share * 100.0, 2) + "%"))]);
}

/// Closes the list of keys. False if it isn't open.
pub fn close_keys() -> bool {
    let Ok(Some(list)) = document().query_selector(".keys[open]") else { return false };
    let _ = list.remove_attribute("open");
    let summary = list.query_selector("summary").ok().flatten();
    if let Some(summary) = summary.and_then(|summary| summary.dyn_into::<HtmlElement>().ok()) {
        let _ = summary.focus();
    }
    true
}

/// Finds what was clicked. None if text was selected or nothing of a line was clicked.
#[must_use]
pub fn clicked(event: &Event) -> Option<Clicked> {
    let target = target_of(event)?;
    let line = target.closest(".line").ok()??;
    let on_time = is_within(&target, TIME);
    if !on_time {
        // A second click selects a word, and one with a key means something else to the browser.
        let selects = window().get_selection().ok().flatten().is_some_and(|selection| !is(&selection, "isCollapsed"));
        let modified = is_modified(event) || is(event, "shiftKey");
        if selects || modified || number(event, "detail") > 1.0 || is_within(&target, "a, button, input") {
            return None;
        }
    }
    let text = target.closest(TEXT).ok()?.filter(|_| !on_time);
    let word = text.and_then(|text| word_at(&text, &get(event, "clientX"), &get(event, "clientY"))).unwrap_or(0);
    Some(Clicked { line: number_of(&line), word })
}

/// The number of a line, from 0.
fn number_of(line: &Element) -> usize {
    let mut number = 0;
    let mut before = line.previous_element_sibling();
    while let Some(element) = before {
        number += 1;
        before = element.previous_element_sibling();
    }
    number
}

/// Handles a key or the focus in a list of lines, of whose times only one can be reached by Tab. Returns false if the event
/// wasn't in the list.
pub fn rove(list: NodeRef<html::Div>, event: &Event) -> bool {
    let (Some(list), Some(target)) = (list.get_untracked(), target_of(event)) else { return false };
    if !list.contains(Some(&target)) {
        return false;
    }
    if !is_within(&target, TIME) {
        return true;
    }
    let Some(key) = key_of(event) else {
        if event.type_() == "focusin" {
            make_tab_stop(&list, &target);
        }
        return true;
    };
    let Ok(Some(line)) = target.closest(".line") else { return true };
    let lines = number(&get(&line, "parentNode"), "childElementCount") as usize;
    let modified = is_modified(event) || is(event, "shiftKey");
    let Some(to) = line_after(&key, number_of(&line), lines).filter(|_| !modified) else { return true };
    event.prevent_default();
    let time = u32::try_from(to).ok().and_then(|to| time_of(&line_of(&list, to)?));
    if let Some(time) = time.and_then(|time| time.dyn_into::<HtmlElement>().ok()) {
        // This fails only if the element can't have the focus.
        let _ = time.focus();
    }
    true
}

fn time_of(line: &Element) -> Option<Element> {
    line.query_selector(TIME).ok().flatten()
}

fn make_tab_stop(list: &Element, time: &Element) {
    if let Ok(Some(before)) = list.query_selector(".line-time[tabindex='0']") {
        let _ = before.set_attribute("tabindex", "-1");
    }
    let _ = time.set_attribute("tabindex", "0");
}

/// Leaves it to the lines to be reached by Tab. Without JavaScript that is for their list, which is scrolled.
pub fn prepare_list(list: NodeRef<html::Div>) {
    if let Some(list) = list.get_untracked() {
        let _ = list.set_attribute("tabindex", "-1");
    }
}

/// The number of the word at a point of the window within a line's text.
fn word_at(text: &Element, x: &JsValue, y: &JsValue) -> Option<usize> {
    let (node, offset) = caret_at(x, y)?;
    if !text.contains(Some(&node)) {
        return None;
    }
    let range = document().create_range().ok()?;
    range.set_start(text, 0).ok()?;
    range.set_end(&node, offset).ok()?;
    let all = text.text_content().unwrap_or_default();
    let before = String::from(AsRef::<js_sys::Object>::as_ref(&range).to_string());
    if before.len() >= all.len() {
        // Beside the end of the text.
        return None;
    }
    let speaker = text.query_selector(".speaker").ok().flatten().and_then(|speaker| speaker.text_content());
    let words = |text: &str| text.split_whitespace().count();
    // The word that the caret stands in has begun before it, unless white space is there.
    let begun = words(&before).saturating_sub(usize::from(!before.ends_with(char::is_whitespace)));
    Some(begun.saturating_sub(speaker.map_or(0, |speaker| words(&speaker))))
}

/// The place in a text at a point of the window. Browsers have one of two functions for it.
fn caret_at(x: &JsValue, y: &JsValue) -> Option<(Node, u32)> {
    let document = document();
    [("caretPositionFromPoint", "offsetNode", "offset"), ("caretRangeFromPoint", "startContainer", "startOffset")]
        .into_iter()
        .find_map(|(function, node, offset)| {
            let function = get(&document, function).dyn_into::<js_sys::Function>().ok()?;
            let caret = function.call2(&document, x, y).ok().filter(JsValue::is_object)?;
            // Both functions give a node.
            Some((get(&caret, node).unchecked_into(), number(&caret, offset) as u32))
        })
}

/// Asks where each word of a line begins, in seconds. Empty if the engine doesn't say, or if the server can't be asked.
pub async fn word_starts(id: SessionId, index: u32) -> Vec<f64> {
    let line = MissingRange { after: index.checked_sub(1) };
    let segments = poll::fetch_segments(id, line, Some(1)).await.unwrap_or_default();
    segments.iter().find(|segment| segment.index == index).map(Segment::word_starts).unwrap_or_default()
}

/// Marks only the line of a transcript that is being played.
pub fn mark_line(list: NodeRef<html::Div>, current: Aim) {
    let Some(list) = list.get_untracked() else { return };
    if let Ok(Some(line)) = list.query_selector(".line[aria-current]") {
        let _ = line.remove_attribute("aria-current");
    }
    let Aim::Line(number) = current else { return };
    if let Some(line) = line_of(&list, number) {
        let _ = line.set_attribute("aria-current", "true");
        let has_focus = document().active_element().is_some_and(|focused| list.contains(Some(&focused)));
        if let Some(time) = time_of(&line).filter(|_| !has_focus) {
            make_tab_stop(&list, &time);
        }
    }
}

fn line_of(list: &Element, number: u32) -> Option<Element> {
    list.query_selector(&format!(".line:nth-child({})", number + 1)).ok().flatten()
}

/// The part of the window in which lines are read, from top to bottom in pixels: that of the list if it scrolls, otherwise that
/// of the page below what stays at its top.
fn visible(list: &Element) -> (f64, f64) {
    if scrolls(list) {
        let bounds = list.get_bounding_client_rect();
        return (bounds.top(), bounds.bottom());
    }
    let player = document().query_selector(".player").ok().flatten();
    let top = player.map_or(0.0, |player| player.get_bounding_client_rect().bottom());
    let height = number(&window(), "innerHeight");
    (top.clamp(0.0, height / 2.0), height)
}

/// Whether the list itself scrolls, and not the page.
fn scrolls(list: &Element) -> bool {
    list.scroll_height() > list.client_height() + 1
}

/// Whether what is kept in view is in view.
#[must_use]
pub fn sees(list: NodeRef<html::Div>, aim: Aim) -> bool {
    let Some(list) = list.get_untracked() else { return true };
    match aim {
        Aim::Nothing => true,
        Aim::End => list.scroll_height() - list.scroll_top() - list.client_height() <= END_TOLERANCE_PX,
        Aim::Line(number) => line_of(&list, number).is_none_or(|line| {
            let (top, bottom) = visible(&list);
            let bounds = line.get_bounding_client_rect();
            bounds.bottom() > top && bounds.top() < bottom
        }),
    }
}

/// Scrolls so that it is in view. Returns false if nothing had to be scrolled.
pub fn scroll_to(list: NodeRef<html::Div>, aim: Aim) -> bool {
    let Some(list) = list.get_untracked() else { return false };
    match aim {
        Aim::Nothing => false,
        Aim::End => {
            list.set_scroll_top(list.scroll_height());
            false
        }
        Aim::Line(number) => {
            let Some(line) = line_of(&list, number) else { return false };
            let moved = scroll_to_line(&list, &line);
            // Not after a short way: there it would undo what the reader scrolls.
            if moved == Moved::Far {
                settle(Box::new(move || {
                    scroll_to_line(&list, &line);
                }));
            }
            moved != Moved::No
        }
    }
}

/// Scrolls the list and the page so that the line is in the middle for which the page was opened: this one, otherwise that of the
/// address. Returns false if there is none.
pub fn show_line(list: NodeRef<html::Div>, number: Option<u32>) -> bool {
    let line = list.get_untracked().and_then(|list| match number {
        Some(number) => line_of(&list, number),
        // The browser has scrolled to it, by the heights that it guessed.
        None => list.query_selector(".line:target").ok().flatten(),
    });
    line.map(|line| bring_into_view(line, ScrollLogicalPosition::Center)).is_some()
}

/// Scrolls the list and the page at once so that a line is in view, at this place.
pub(super) fn bring_into_view(line: Element, place: ScrollLogicalPosition) {
    let options = ScrollIntoViewOptions::new();
    options.set_block(place);
    options.set_behavior(ScrollBehavior::Instant);
    let scroll = move || line.scroll_into_view_with_scroll_into_view_options(&options);
    scroll();
    settle(Box::new(scroll));
}

/// Scrolls again in the next frames, unless something else is scrolled to meanwhile.
fn settle(scroll: Box<dyn Fn()>) {
    fn next(scroll: Box<dyn Fn()>, number: u32, frames: u32) {
        request_animation_frame(move || {
            if SCROLLS.get() == number {
                scroll();
                if frames > 1 {
                    next(scroll, number, frames - 1);
                }
            }
        });
    }
    let number = SCROLLS.get().wrapping_add(1);
    SCROLLS.set(number);
    next(scroll, number, SETTLING_FRAMES);
}

/// What scrolling has moved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moved {
    No,
    /// By a way on which all lines had their real height.
    Near,
    Far,
}

/// Scrolls what has the lines so that a line is in view.
fn scroll_to_line(list: &Element, line: &Element) -> Moved {
    let (top, bottom) = visible(list);
    let (bounds, height) = (line.get_bounding_client_rect(), bottom - top);
    if bounds.top() >= top + UPPER * height && bounds.bottom() <= top + LOWER * height {
        return Moved::No;
    }
    let Some(scroller) = (if scrolls(list) { Some(list.clone()) } else { document().document_element() }) else {
        return Moved::No;
    };
    scroll_by(&scroller, bounds.top() - top - PLACE * height)
}

/// Scrolls an element by so many pixels, if it isn't at its end already.
fn scroll_by(scroller: &Element, by: f64) -> Moved {
    let options = ScrollToOptions::new();
    // On a long way nobody reads, and lines that are laid out on it would move where it ends.
    let far = by.abs() > FAR * f64::from(scroller.client_height());
    let smooth = !far && !prefers_stillness();
    options.set_behavior(if smooth { ScrollBehavior::Smooth } else { ScrollBehavior::Instant });
    options.set_top(by);
    let at = scroller.scroll_top();
    scroller.scroll_by_with_scroll_to_options(&options);
    let moves = if by > 0.0 { at + 1 < scroller.scroll_height() - scroller.client_height() } else { at > 0 };
    match (moves, far) {
        (false, _) => Moved::No,
        (true, false) => Moved::Near,
        (true, true) => Moved::Far,
    }
}

/// Whether the person has asked for no motion.
fn prefers_stillness() -> bool {
    window().match_media("(prefers-reduced-motion: reduce)").ok().flatten().is_some_and(|query| query.matches())
}
