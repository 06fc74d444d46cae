//! The lock that one tab of this browser holds (Web Locks) and the channel between the tabs (BroadcastChannel). `feed::tabs`
//! decides what they do.

use super::{Driver, signals::Listener};
use crate::{
    feed::tabs::{Event, TabId, TabMessage},
    model::{Deleted, Renamed, SegmentEvent, Status, StatusList},
};
use js_sys::{Function, Object, Promise, Reflect};
use std::{
    cell::{Cell, RefCell},
    rc::Weak,
};
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use web_sys::{AbortController, BroadcastChannel, MessageEvent, window};

/// The name of the lock and of the channel. Both are specific to the origin, and so to one owner.
const NAME: &str = "hark-feed";

/// An update that the leader relays.
pub(super) enum RelayedUpdate {
    Status(Box<Status>),
    Segment(SegmentEvent),
    List(StatusList),
    Renamed(Renamed),
    Deleted(Deleted),
    /// Whether this browser may open streams.
    Streams(bool),
    /// No update, only a sign that the leader is alive.
    Pulse,
}

impl RelayedUpdate {
    /// Reads what [`Channel::relay`] sent.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (kind, json) = text.split_once('\n')?;
        match kind {
            "status" => serde_json::from_str(json).ok().map(|status| Self::Status(Box::new(status))),
            "segment" => serde_json::from_str(json).ok().map(Self::Segment),
            "list" => serde_json::from_str(json).ok().map(Self::List),
            "renamed" => serde_json::from_str(json).ok().map(Self::Renamed),
            "deleted" => serde_json::from_str(json).ok().map(Self::Deleted),
            "streams" => Some(Self::Streams(json == "on")),
            "pulse" => Some(Self::Pulse),
            _ => None,
        }
    }
}

/// The callback that the browser calls with the lock. The lock is held until the returned promise settles.
type Grant = Closure<dyn FnMut(JsValue) -> JsValue>;

/// This tab's end of the lock and of the channel.
pub(super) struct Channel {
    driver: Weak<Driver>,
    channel: Option<BroadcastChannel>,
    _listener: Option<Listener>,
    /// Releases the lock. Set while this tab holds it.
    release: RefCell<Option<Function>>,
    /// Cancels the request for the lock.
    request: RefCell<Option<AbortController>>,
    /// The callback for the lock. Kept, because the browser may call it at any time.
    granted: RefCell<Option<Grant>>,
    /// Counts the requests, so that a late grant of an earlier request is ignored.
    run: Cell<u32>,
}

impl Channel {
    /// Whether this browser has BroadcastChannel and Web Locks.
    pub(super) fn supported() -> bool {
        let has = |object: &JsValue, name: &str| Reflect::has(object, &JsValue::from_str(name)).unwrap_or(false);
        has(&js_sys::global(), "BroadcastChannel") && window().is_some_and(|w| has(&w.navigator(), "locks"))
    }

    /// A random id for this tab.
    pub(super) fn id() -> TabId {
        (js_sys::Math::random() * 9_007_199_254_740_991.0) as TabId
    }

    /// Opens the channel and listens to the other tabs. The caller must call [`Channel::request_lock`] next.
    pub(super) fn new(driver: &Weak<Driver>) -> Self {
        let channel = Self::supported().then(|| BroadcastChannel::new(NAME).ok()).flatten();
        let listener = channel.as_ref().map(|channel| {
            let driver = driver.clone();
            Listener::new(channel, "message", move |event| {
                let text = event.dyn_ref::<MessageEvent>().and_then(|e| e.data().as_string());
                if let (Some(text), Some(driver)) = (text, driver.upgrade()) {
                    match (TabMessage::read(&text), RelayedUpdate::read(&text)) {
                        (Some(message), _) => driver.on_tabs(Event::Received(message)),
                        (None, Some(update)) => driver.on_update(update),
                        (None, None) => {}
                    }
                }
            })
        });
        Self {
            driver: driver.clone(),
            channel,
            _listener: listener,
            release: RefCell::default(),
            request: RefCell::default(),
            granted: RefCell::default(),
            run: Cell::new(0),
        }
    }

    /// Requests the lock. The browser queues the request behind those of other tabs.
    pub(super) fn request_lock(&self) {
        let run = self.run.get().wrapping_add(1);
        self.run.set(run);
        if self.channel.is_none() {
            return;
        }
        let driver = self.driver.clone();
        let granted = Closure::new(move |_lock: JsValue| -> JsValue {
            let Some(driver) = driver.upgrade().filter(|driver| driver.channel.run.get() == run) else {
                return JsValue::UNDEFINED; // not needed any more, so it is released at once
            };
            let held = Promise::new(&mut |resolve, _| {
                driver.channel.release.replace(Some(resolve));
            });
            driver.on_tabs(Event::Elected);
            held.into()
        });
        if self.call_request(granted.as_ref().unchecked_ref()).is_none() {
            return;
        }
        self.granted.replace(Some(granted));
    }

    fn call_request(&self, granted: &Function) -> Option<()> {
        let locks = Reflect::get(&window()?.navigator(), &JsValue::from_str("locks")).ok()?;
        let request: Function = Reflect::get(&locks, &JsValue::from_str("request")).ok()?.dyn_into().ok()?;
        let abort = AbortController::new().ok()?;
        let options = Object::new();
        Reflect::set(&options, &JsValue::from_str("signal"), &abort.signal()).ok()?;
        let asked = request.call3(&locks, &JsValue::from_str(NAME), &options, granted).ok()?;
        thread_local! {
            /// Handles the rejection of the promise: a cancelled request isn't an error.
            static CANCELLED: Closure<dyn FnMut(JsValue)> = Closure::new(|_| {});
        }
        if let Ok(asked) = asked.dyn_into::<Promise>() {
            CANCELLED.with(|cancelled| drop(asked.catch(cancelled)));
        }
        self.request.replace(Some(abort));
        Some(())
    }

    /// Releases the lock or cancels the request for it, because a page in the back/forward cache must not block other tabs.
    pub(super) fn release_lock(&self) {
        self.run.set(self.run.get().wrapping_add(1));
        if let Some(release) = self.release.take() {
            let _ = release.call0(&JsValue::UNDEFINED);
        } else if let Some(request) = self.request.take() {
            request.abort();
        }
    }

    /// Sends a message to the other tabs.
    pub(super) fn post(&self, message: TabMessage) {
        self.send(&message.write());
    }

    /// Relays an update to the other tabs.
    pub(super) fn relay(&self, kind: &str, json: &str) {
        self.send(&[kind, json].join("\n"));
    }

    fn send(&self, text: &str) {
        if let Some(channel) = &self.channel {
            // This fails only if the channel is closed.
            let _ = channel.post_message(&JsValue::from_str(text));
        }
    }
}
