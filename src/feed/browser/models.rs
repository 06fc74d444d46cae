//! Whisper's models while one is on its way: an EventSource of their own, and polling where no event comes through it. Called
//! by the page of models.

use super::{
    poll,
    signals::Listener,
    stream::{self, data},
};
use crate::model::page::ModelsInfo;
use gloo_timers::callback::{Interval, Timeout};
use leptos::{prelude::*, task::spawn_local};
use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
};
use web_sys::EventSource;

const URL: &str = "/api/v1/models/stream";
/// How long the first event may take before the page polls.
const FIRST_EVENT_MS: u32 = 4_000;
/// How often the page polls.
const POLL_MS: u32 = 3_000;

/// Watches the models until the current reactive owner is cleaned up.
pub fn watch(on_change: impl Fn(ModelsInfo) + 'static) {
    let watcher = Rc::new_cyclic(|this| Watcher {
        this: this.clone(),
        on_change: Box::new(on_change),
        source: RefCell::default(),
        timer: RefCell::default(),
        has_event: Cell::new(false),
        interval: RefCell::default(),
        polling: Cell::new(false),
    });
    if stream::supported() {
        watcher.open();
    } else {
        watcher.poll();
    }
    StoredValue::new_local(watcher);
}

struct Watcher {
    this: Weak<Watcher>,
    on_change: Box<dyn Fn(ModelsInfo)>,
    source: RefCell<Option<Source>>,
    /// Polls if no event has come through the stream.
    timer: RefCell<Option<Timeout>>,
    has_event: Cell<bool>,
    interval: RefCell<Option<Interval>>,
    /// Whether a request is under way.
    polling: Cell<bool>,
}

/// An open stream, closed when dropped.
struct Source {
    source: EventSource,
    _listeners: [Listener; 3],
}

impl Drop for Source {
    fn drop(&mut self) {
        self.source.close();
    }
}

impl Watcher {
    fn open(&self) {
        let Ok(source) = EventSource::new(URL) else { return self.poll() };
        let on = |name, handle: fn(&Self, &str)| {
            let this = self.this.clone();
            Listener::new(&source, name, move |event| {
                if let Some(watcher) = this.upgrade() {
                    handle(&watcher, &data(&event));
                }
            })
        };
        let listeners = [
            on("models", |watcher, text| {
                watcher.has_event.set(true);
                if let Ok(info) = serde_json::from_str(text) {
                    (watcher.on_change)(info);
                }
            }),
            // It never reconnects by itself: the next stream may be refused too, and polling always works.
            on("error", |watcher, _| watcher.poll()),
            on("bye", |watcher, _| watcher.poll()),
        ];
        *self.source.borrow_mut() = Some(Source { source, _listeners: listeners });
        let this = self.this.clone();
        *self.timer.borrow_mut() = Some(Timeout::new(FIRST_EVENT_MS, move || {
            if let Some(watcher) = this.upgrade().filter(|watcher| !watcher.has_event.get()) {
                watcher.poll();
            }
        }));
    }

    /// Polls from now on instead of reading a stream.
    fn poll(&self) {
        // The stream's own listener may be what calls this, so the stream is dropped later.
        if let Some(source) = self.source.borrow_mut().take() {
            source.source.close();
            Timeout::new(0, move || drop(source)).forget();
        }
        if self.interval.borrow().is_some() {
            return;
        }
        let this = self.this.clone();
        *self.interval.borrow_mut() = Some(Interval::new(POLL_MS, move || {
            if let Some(watcher) = this.upgrade() {
                watcher.poll_once();
            }
        }));
        self.poll_once();
    }

    fn poll_once(&self) {
        let Some(this) = self.this.upgrade().filter(|_| !self.polling.replace(true)) else { return };
        // The request must not keep the page's watcher alive.
        let this = Rc::downgrade(&this);
        spawn_local(async move {
            let info = poll::fetch_models().await;
            if let Some(watcher) = this.upgrade() {
                watcher.polling.set(false);
                if let Ok(info) = info {
                    (watcher.on_change)(info);
                }
            }
        });
    }
}
