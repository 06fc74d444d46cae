//! The uploads of this visit. They belong to the app and not to the upload page, so they go on while one looks around.
//! The upload page adds to them and shows them; the header counts them.

use crate::{
    feed::{
        browser::{dom, upload},
        uploads::{Event, Picked, Queue, UploadOptions},
    },
    model::SessionId,
};
use leptos::prelude::*;

/// The handle on the uploads.
#[derive(Clone, Copy)]
pub struct Uploads {
    pub queue: RwSignal<Queue>,
    /// The session that an upload just became. The upload page goes there if it was the only one.
    pub arrived: RwSignal<Option<SessionId>>,
}

impl Uploads {
    /// Makes the handle and puts it into the context.
    pub(crate) fn provide() {
        let uploads = Self { queue: RwSignal::default(), arrived: RwSignal::default() };
        provide_context(uploads);
        let open = Memo::new(move |_| uploads.queue.with(|queue| queue.open() > 0));
        Effect::new(move || dom::warn_before_leaving(open.get()));
    }

    /// The uploads of the app, which provides them.
    pub(crate) fn expect() -> Self {
        expect_context()
    }

    /// Queues files, and starts as many as may be sent at once.
    pub(crate) fn add(self, files: Vec<Picked>, options: &UploadOptions, limit: u64) {
        self.queue.update(|queue| files.into_iter().for_each(|file| queue.add(file, options.clone(), limit)));
        self.go_on();
    }

    /// Stops one that waits or is being sent.
    pub(crate) fn abort(self, key: u32) {
        upload::abort(key);
        self.queue.update(|queue| queue.abort(key));
        self.go_on();
    }

    /// Tries one again.
    pub(crate) fn retry(self, key: u32) {
        self.queue.update(|queue| queue.retry(key));
        self.go_on();
    }

    /// Takes one out of the list.
    pub(crate) fn remove(self, key: u32) {
        upload::abort(key);
        upload::discard(key);
        self.queue.update(|queue| queue.remove(key));
        self.go_on();
    }

    fn go_on(self) {
        let started = self.queue.try_update(|queue| queue.start(upload::now())).unwrap_or_default();
        for (key, options) in started {
            upload::send(key, &options, move |event| self.on(key, event));
        }
    }

    fn on(self, key: u32, event: Event) {
        let (ended, arrived) = match &event {
            Event::Sent { .. } => (false, None),
            Event::Done(id) => (true, Some(*id)),
            Event::Failed(_) => (true, None),
        };
        self.queue.update(|queue| queue.on(key, event));
        if let Some(id) = arrived {
            upload::discard(key);
            self.arrived.set(Some(id));
        }
        if ended {
            self.go_on();
        }
    }
}
