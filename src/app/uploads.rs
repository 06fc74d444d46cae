//! The uploads of this visit, and the files that are chosen for the next ones. They belong to the app and not to the upload page,
//! so they stay while other pages are open, and uploads go on. The upload page adds uploads; it and the list show them, and the
//! header their number.

use crate::{
    app::{MAIN, effect},
    feed::{
        Feed,
        browser::{dom, upload},
        uploads::{Event, Picked, Queue, Unfinished, UploadOptions},
    },
    model::{SessionId, page::UploadInfo, text},
};
use leptos::prelude::*;

/// The largest part before the server has said what it accepts, in bytes: every server accepts it.
const MIN_PART_LIMIT: u64 = 1024 * 1024;

/// What is said of a file that was sent before.
pub(crate) const SENT_BEFORE: &str = "You have sent this file before. It wasn't sent again.";

/// The id of the input that chooses files.
pub(crate) const FILE_INPUT: &str = "file";

/// The id of the list's section with the uploads that aren't sessions yet.
pub(crate) const UNFINISHED: &str = "unfinished-uploads";

/// The id of the group of buttons of an upload.
pub(crate) fn actions_id(key: u32) -> String {
    format!("upload-{key}")
}

/// The id of the button that removes an upload that an earlier page has begun.
pub(crate) fn forget_id(key: &str) -> String {
    format!("forget-{}", text::percent_encode(key))
}

/// A handle to the uploads.
#[derive(Clone, Copy)]
pub struct Uploads {
    pub queue: RwSignal<Queue>,
    /// The files that are chosen and not sent yet. The files themselves are kept by `feed/browser/upload.rs`.
    pub chosen: RwSignal<Vec<Picked>>,
    /// The uploads that earlier pages have begun, and whose files weren't chosen again yet.
    pub unfinished: RwSignal<Vec<Unfinished>>,
    /// The largest file and the largest part that the server accepts, in bytes.
    limits: StoredValue<(u64, u64)>,
    /// The session that the last upload created. The upload page opens it if that was the only upload.
    pub created: RwSignal<Option<SessionId>>,
    feed: Feed,
    announce: Callback<(String,)>,
}

impl Uploads {
    /// Makes the handle and puts it into the context. `announce` tells screen readers.
    pub(crate) fn provide(announce: impl Fn(String) + Send + Sync + 'static) {
        let uploads = Self {
            queue: RwSignal::default(),
            chosen: RwSignal::default(),
            unfinished: RwSignal::default(),
            limits: StoredValue::new((u64::MAX, MIN_PART_LIMIT)),
            created: RwSignal::default(),
            feed: Feed::expect(),
            announce: Callback::new(move |(text,)| announce(text)),
        };
        provide_context(uploads);
        effect(move || uploads.find_unfinished());
        // Leaving would end what is being sent, and lose the choice.
        let lossy =
            Memo::new(move |_| uploads.queue.with(|queue| queue.open() > 0) || !uploads.chosen.with(Vec::is_empty));
        effect(move || dom::warn_before_leaving(lossy.get()));
    }

    /// The uploads from the context.
    pub(crate) fn expect() -> Self {
        expect_context()
    }

    /// Notes what the server accepts.
    pub(crate) fn learn(self, info: &UploadInfo) {
        self.limits.set_value((info.max_upload_bytes, info.part_bytes));
    }

    /// Notes which files are chosen now. Those that an earlier page has begun to send go on at once, with their options of then.
    pub(crate) fn choose(self, chosen: Vec<Picked>) {
        if chosen.iter().any(|file| file.begun) {
            self.enqueue(upload::take_chosen(true), &UploadOptions::default());
        }
        self.chosen.set(chosen.into_iter().filter(|file| !file.begun).collect());
    }

    /// Queues the chosen files, and starts as many uploads as may be sent at once.
    pub(crate) fn add(self, options: &UploadOptions) {
        let files = upload::take_chosen(false);
        self.chosen.set(Vec::new());
        self.enqueue(files, options);
    }

    fn enqueue(self, files: Vec<Picked>, options: &UploadOptions) {
        let (limit, _) = self.limits.get_value();
        self.unfinished.update(|unfinished| {
            unfinished.retain(|one| {
                !files.iter().any(|file| file.begun && (&file.name, file.bytes) == (&one.name, one.bytes))
            });
        });
        self.queue.update(|queue| files.into_iter().for_each(|file| queue.add(file, options.clone(), limit)));
        self.start_next();
    }

    /// Finds the uploads that earlier pages have begun, and asks the server what it still has of them. One of them may be under way
    /// in another tab.
    fn find_unfinished(self) {
        let unfinished = upload::unfinished();
        self.unfinished.set(unfinished.clone());
        let note = move |key: &str, sent: Option<u64>| {
            self.unfinished.update(|all| match sent {
                Some(sent) => all.iter_mut().filter(|one| one.key == key).for_each(|one| one.sent = sent),
                None => all.retain(|one| one.key != key),
            });
        };
        for Unfinished { key, .. } in unfinished {
            upload::ask_unfinished(&key.clone(), move |sent| note(&key, sent));
        }
        upload::watch_unfinished(note);
    }

    /// Removes an upload that an earlier page has begun. The focus moves on as in the list of uploads, at its end to the element with
    /// the id `last`.
    pub(crate) fn forget(self, key: &str, last: &str) {
        let neighbour = self.unfinished.with_untracked(|all| {
            let at = all.iter().position(|one| one.key == key)?;
            all.get(at + 1).or_else(|| all.get(at.checked_sub(1)?)).map(|one| forget_id(&one.key))
        });
        dom::focus(neighbour.as_deref().unwrap_or(last));
        upload::remove(key);
        self.unfinished.update(|unfinished| unfinished.retain(|one| one.key != key));
    }

    /// Moves the focus from the buttons of an upload, which change with its phase, to what stays: their group, or if the upload
    /// itself goes from where it is shown, the group of its neighbour, or what chooses files, or the page.
    fn keep_focus(self, key: u32, goes: bool) {
        let group = actions_id(key);
        if !dom::has_focus(&group) {
            return;
        }
        let in_list = dom::has_focus(UNFINISHED);
        let neighbour = || self.queue.with_untracked(|queue| queue.neighbour(key, in_list)).map(actions_id);
        let otherwise = || if in_list { MAIN } else { FILE_INPUT }.to_owned();
        dom::focus(&if goes { neighbour().unwrap_or_else(otherwise) } else { group });
    }

    /// Cancels an upload that waits or is being sent.
    pub(crate) fn abort(self, key: u32) {
        self.keep_focus(key, false);
        upload::abort(key);
        self.queue.update(|queue| queue.abort(key));
        self.start_next();
    }

    /// Tries an upload again.
    pub(crate) fn retry(self, key: u32) {
        self.keep_focus(key, false);
        self.queue.update(|queue| queue.retry(key));
        self.start_next();
    }

    /// Removes an upload from the list.
    pub(crate) fn remove(self, key: u32) {
        self.keep_focus(key, true);
        upload::abort(key);
        upload::discard(key);
        self.queue.update(|queue| queue.remove(key));
        self.start_next();
    }

    fn announce(self, text: String) {
        self.announce.run((text,));
    }

    fn start_next(self) {
        let started = self.queue.try_update(|queue| queue.start(upload::now())).unwrap_or_default();
        for (key, options) in started {
            upload::send(key, &options, self.limits.get_value().1, move |event| self.on(key, event));
        }
    }

    fn on(self, key: u32, event: Event) {
        let was_stalled = self.queue.with_untracked(Queue::is_stalled);
        let goes_on = matches!(event, Event::Found { .. } | Event::Sent { .. });
        let is_session = matches!(event, Event::Done(_) | Event::SentBefore(_));
        let (ended, created) = match &event {
            Event::Found { .. } | Event::Sent { .. } | Event::Stalled => (false, None),
            Event::SentBefore(status) => {
                let name = self.queue.with_untracked(|queue| queue.get(key).map(|upload| upload.name.clone()));
                self.announce(format!("{}: {SENT_BEFORE}", name.unwrap_or_default()));
                self.feed.status(status.as_ref().clone());
                (true, None)
            }
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
        if ended {
            // The list shows only what isn't a session.
            self.keep_focus(key, is_session && dom::has_focus(UNFINISHED));
        }
        self.queue.update(|queue| queue.on(key, event));
        // Once for all of them, and not for each attempt.
        match (was_stalled, self.queue.with_untracked(Queue::is_stalled)) {
            (false, true) => {
                self.announce("The connection broke. The upload goes on as soon as it is back.".to_owned())
            }
            (true, false) if goes_on => self.announce("The connection is back, and the upload goes on.".to_owned()),
            _ => {}
        }
        if ended {
            self.start_next();
        }
    }
}
