//! The status stream: one EventSource for all sessions of the owner.
//! It never reconnects by itself: any error closes it, and the link decides what to do next.

use super::{Driver, Message, beacon, signals::Listener};
use crate::feed::link::Bye;
use serde::Deserialize;
use std::rc::Weak;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Event, EventSource, MessageEvent};

const URL: &str = "/api/v1/status/stream";
const COMPRESSED: &str = "/api/v1/status/stream?compress=gzip";

/// Whether this browser has EventSource.
pub(super) fn supported() -> bool {
    js_sys::Reflect::has(&js_sys::global(), &JsValue::from_str("EventSource")).unwrap_or(false)
}

/// An open stream. Dropping it closes the connection and removes the listeners, so it reports nothing afterwards.
pub(super) struct Stream {
    source: EventSource,
    _listeners: [Listener; 6],
}

#[derive(Deserialize)]
struct ByeData {
    reason: String,
}

impl Stream {
    /// Opens a stream. None if the browser refuses.
    pub(super) fn open(driver: &Weak<Driver>, compressed: bool) -> Option<Self> {
        let source = EventSource::new(if compressed { COMPRESSED } else { URL }).ok()?;
        let on = |name, read: fn(&str) -> Message| {
            let driver = driver.clone();
            Listener::new(&source, name, move |event| {
                if let Some(driver) = driver.upgrade() {
                    let text = data(&event);
                    beacon::measure(|measure| measure.received(size(name, &event, &text)));
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
            on("heartbeat", |_| Message::Heartbeat),
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

/// The size of an event in bytes before compression. Characters outside ASCII, of which there are few, count as one byte.
fn size(name: &str, event: &Event, data: &str) -> usize {
    let Some(message) = event.dyn_ref::<MessageEvent>() else { return 0 };
    "id: \nevent: \ndata: \n\n".len() + name.len() + message.last_event_id().len() + data.len()
}

/// The data of an event. The browser's own events have none.
pub(super) fn data(event: &Event) -> String {
    event.dyn_ref::<MessageEvent>().and_then(|message| message.data().as_string()).unwrap_or_default()
}
