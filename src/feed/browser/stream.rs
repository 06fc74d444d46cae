//! The status stream: one EventSource for all sessions of the owner.
//! It never reconnects by itself: any error closes it, and the link decides what to do next.

use super::{Driver, Message, beacon, signals::Listener};
use crate::{feed::link::Bye, model::Heartbeat};
use serde::Deserialize;
use std::rc::Weak;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Event, EventSource, MessageEvent};

const URL: &str = "/api/v1/status/stream?page=";
const COMPRESSED: &str = "&compress=gzip";

/// Whether this browser has EventSource.
pub(super) fn supported() -> bool {
    js_sys::Reflect::has(&js_sys::global(), &JsValue::from_str("EventSource")).unwrap_or(false)
}

/// An open stream. Dropping it closes the connection and removes the listeners, so it reports nothing afterwards.
pub(super) struct Stream {
    source: EventSource,
    _listeners: [Listener; 8],
}

#[derive(Deserialize)]
struct ByeData {
    reason: String,
}

impl Stream {
    /// Opens a stream. None if the browser refuses.
    pub(super) fn open(driver: &Weak<Driver>, compressed: bool) -> Option<Self> {
        let page = beacon::token().unwrap_or_default();
        let url = [URL, &page, if compressed { COMPRESSED } else { "" }].concat();
        let source = EventSource::new(&url).ok()?;
        let on = |name, read: fn(&str) -> Message| {
            let driver = driver.clone();
            Listener::new(&source, name, move |event| {
                if let Some(driver) = driver.upgrade() {
                    let text = data(&event);
                    driver.message(read(&text), &text);
                }
            })
        };
        let listeners = [
            on("open", |_| Message::Opened),
            on("error", |_| Message::Failed),
            on("status", |text| {
                serde_json::from_str(text).map_or(Message::Unreadable, |status| Message::Status(Box::new(status)))
            }),
            on("segment", |text| serde_json::from_str(text).map_or(Message::Unreadable, Message::Segment)),
            on("renamed", |text| serde_json::from_str(text).map_or(Message::Unreadable, Message::Renamed)),
            on("deleted", |text| serde_json::from_str(text).map_or(Message::Unreadable, Message::Deleted)),
            on("heartbeat", |text| {
                Message::Heartbeat(serde_json::from_str::<Heartbeat>(text).ok().and_then(|beat| beat.within_secs))
            }),
            on("bye", |text| {
                Message::Bye(
                    serde_json::from_str::<ByeData>(text).map_or(Bye::Other, |bye| Bye::from_reason(&bye.reason)),
                )
            }),
        ];
        Some(Self { source, _listeners: listeners })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.source.close();
    }
}

/// The data of an event. The browser's own events have none.
pub(super) fn data(event: &Event) -> String {
    event.dyn_ref::<MessageEvent>().and_then(|message| message.data().as_string()).unwrap_or_default()
}
