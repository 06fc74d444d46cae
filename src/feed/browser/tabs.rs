//! The tabs of this browser: the lock that one of them holds (Web Locks) and the channel between them
//! (BroadcastChannel). What they decide is in `feed::tabs`.

use super::{Driver, signals::Listener};
use crate::{
    feed::tabs::{Event, Note, TabId},
    model::{SegmentEvent, Status, StatusList},
};
use js_sys::{Function, Object, Promise, Reflect};
use std::{
    cell::{Cell, RefCell},
    rc::Weak,
};
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use web_sys::{AbortController, BroadcastChannel, MessageEvent, window};

/// The name of the lock and of the channel. Both belong to the origin, so to one owner.
const NAME: &str = "hark-feed";

/// What the leader passes on.
pub(super) enum News {
    Status(Box<Status>),
    Segment(SegmentEvent),
    List(StatusList),
    /// Nothing but that it lives.
    Pulse,
}

impl News {
    /// What [`Channel::tell`] told.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (kind, json) = text.split_once('\n')?;
        match kind {
            "status" => serde_json::from_str(json).ok().map(|status| Self::Status(Box::new(status))),
            "segment" => serde_json::from_str(json).ok().map(Self::Segment),
            "list" => serde_json::from_str(json).ok().map(Self::List),
            "pulse" => Some(Self::Pulse),
            _ => None,
        }
    }
}

/// What the browser calls with the lock; the lock is held until the promise it returns is settled.
type Grant = Closure<dyn FnMut(JsValue) -> JsValue>;

/// This tab among the others.
pub(super) struct Channel {
    driver: Weak<Driver>,
    channel: Option<BroadcastChannel>,
    _listener: Option<Listener>,
    /// Gives the lock back; set while this tab has it.
    release: RefCell<Option<Function>>,
    /// Takes back the request for it.
    request: RefCell<Option<AbortController>>,
    /// The callback that gets the lock. Kept, because it may come at any time.
    granted: RefCell<Option<Grant>>,
    /// Grows with every request, so that a late grant of an earlier one is known as such.
    run: Cell<u32>,
}

impl Channel {
    /// Whether this browser has what it takes.
    pub(super) fn supported() -> bool {
        let has = |object: &JsValue, name: &str| Reflect::has(object, &JsValue::from_str(name)).unwrap_or(false);
        has(&js_sys::global(), "BroadcastChannel") && window().is_some_and(|w| has(&w.navigator(), "locks"))
    }

    /// A number for this tab that no other has.
    pub(super) fn id() -> TabId {
        (js_sys::Math::random() * 9_007_199_254_740_991.0) as TabId
    }

    /// Listens to the other tabs. [`Channel::queue`] must follow.
    pub(super) fn new(driver: &Weak<Driver>) -> Self {
        let channel = Self::supported().then(|| BroadcastChannel::new(NAME).ok()).flatten();
        let listener = channel.as_ref().map(|channel| {
            let driver = driver.clone();
            Listener::new(channel, "message", move |event| {
                let text = event.dyn_ref::<MessageEvent>().and_then(|e| e.data().as_string());
                if let (Some(text), Some(driver)) = (text, driver.upgrade()) {
                    match (Note::read(&text), News::read(&text)) {
                        (Some(note), _) => driver.tabs(Event::Heard(note)),
                        (None, Some(news)) => driver.news(news),
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

    /// Gets in line for the lock.
    pub(super) fn queue(&self) {
        let run = self.run.get().wrapping_add(1);
        self.run.set(run);
        if self.channel.is_none() {
            return;
        }
        let driver = self.driver.clone();
        let granted = Closure::new(move |_lock: JsValue| -> JsValue {
            let Some(driver) = driver.upgrade().filter(|driver| driver.channel.run.get() == run) else {
                return JsValue::UNDEFINED; // nobody needs it any more: given back at once
            };
            let held = Promise::new(&mut |resolve, _| {
                driver.channel.release.replace(Some(resolve));
            });
            driver.tabs(Event::Elected);
            held.into()
        });
        if self.ask(granted.as_ref().unchecked_ref()).is_none() {
            return;
        }
        self.granted.replace(Some(granted));
    }

    fn ask(&self, granted: &Function) -> Option<()> {
        let locks = Reflect::get(&window()?.navigator(), &JsValue::from_str("locks")).ok()?;
        let request: Function = Reflect::get(&locks, &JsValue::from_str("request")).ok()?.dyn_into().ok()?;
        let abort = AbortController::new().ok()?;
        let options = Object::new();
        Reflect::set(&options, &JsValue::from_str("signal"), &abort.signal()).ok()?;
        let asked = request.call3(&locks, &JsValue::from_str(NAME), &options, granted).ok()?;
        thread_local! {
            /// The promise is rejected when the request is taken back, which is no error.
            static TAKEN_BACK: Closure<dyn FnMut(JsValue)> = Closure::new(|_| {});
        }
        if let Ok(asked) = asked.dyn_into::<Promise>() {
            TAKEN_BACK.with(|taken_back| drop(asked.catch(taken_back)));
        }
        self.request.replace(Some(abort));
        Some(())
    }

    /// Gives the lock back, or gets out of line: a page that is put aside must not stand in the way.
    pub(super) fn leave(&self) {
        self.run.set(self.run.get().wrapping_add(1));
        if let Some(release) = self.release.take() {
            let _ = release.call0(&JsValue::UNDEFINED);
        } else if let Some(request) = self.request.take() {
            request.abort();
        }
    }

    pub(super) fn post(&self, note: Note) {
        self.send(&note.write());
    }

    pub(super) fn tell(&self, kind: &str, json: &str) {
        self.send(&[kind, json].join("\n"));
    }

    fn send(&self, text: &str) {
        if let Some(channel) = &self.channel {
            // Fails only for a channel that was closed.
            let _ = channel.post_message(&JsValue::from_str(text));
        }
    }
}
