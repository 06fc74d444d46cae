//! The uploads of this visit, and the files that are chosen for the next ones. They belong to the app and not to the upload page,
//! so they stay while other pages are open, and uploads go on. The upload page adds uploads; it and the list show them, and the
//! header their number.

use crate::{
    app::effect,
    feed::{
        Feed,
        browser::{dom, upload},
        uploads::{Event, Picked, Queue, UploadOptions},
    },
    model::SessionId,
};
use leptos::prelude::*;

/// A handle to the uploads.
#[derive(Clone, Copy)]
pub struct Uploads {
    pub queue: RwSignal<Queue>,
    /// The files that are chosen and not sent yet. The files themselves are kept by `feed/browser/upload.rs`.
    pub chosen: RwSignal<Vec<Picked>>,
    /// The session that the last upload created. The upload page opens it if that was the only upload.
    pub created: RwSignal<Option<SessionId>>,
    feed: Feed,
}

impl Uploads {
    /// Makes the handle and puts it into the context.
    pub(crate) fn provide() {
        let uploads = Self {
            queue: RwSignal::default(),
            chosen: RwSignal::default(),
            created: RwSignal::default(),
            feed: Feed::expect(),
        };
        provide_context(uploads);
        // Leaving would lose what is being sent, and the choice.
        let lossy =
            Memo::new(move |_| uploads.queue.with(|queue| queue.open() > 0) || !uploads.chosen.with(Vec::is_empty));
        effect(move || dom::warn_before_leaving(lossy.get()));
    }

    /// The uploads from the context.
    pub(crate) fn expect() -> Self {
        expect_context()
    }

    /// Queues the chosen files, and starts as many uploads as may be sent at once.
    pub(crate) fn add(self, options: &UploadOptions, limit: u64) {
        let files = upload::take_chosen();
        self.chosen.set(Vec::new());
        self.queue.update(|queue| files.into_iter().for_each(|file| queue.add(file, options.clone(), limit)));
        self.start_next();
    }

    /// Cancels an upload that waits or is being sent.
    pub(crate) fn abort(self, key: u32) {
        upload::abort(key);
        self.queue.update(|queue| queue.abort(key));
        self.start_next();
    }

    /// Tries an upload again.
    pub(crate) fn retry(self, key: u32) {
        self.queue.update(|queue| queue.retry(key));
        self.start_next();
    }

    /// Removes an upload from the list.
    pub(crate) fn remove(self, key: u32) {
        upload::abort(key);
        upload::discard(key);
        self.queue.update(|queue| queue.remove(key));
        self.start_next();
    }

    fn start_next(self) {
        let started = self.queue.try_update(|queue| queue.start(upload::now())).unwrap_or_default();
        for (key, options) in started {
            upload::send(key, &options, move |event| self.on(key, event));
        }
    }

    fn on(self, key: u32, event: Event) {
        let (ended, created) = match &event {
            Event::Sent { .. } => (false, None),
            Event::Done(status) => {
                // Before the queue shows the session and so watches it: lists load it only if nobody does.
                self.feed.status(status.as_ref().clone());
                (true, Some(status.session_id))
            }
            Event::Failed(_) => (true, None),
        };
        // First, so that the upload page opens the session of a single upload before it shows, and watches, that here.
        if let Some(id) = created {
            upload::discard(key);
            self.created.set(Some(id));
        }
        self.queue.update(|queue| queue.on(key, event));
        if ended {
            self.start_next();
        }
    }
}
