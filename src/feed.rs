//! Live status in the browser: one connection for all sessions, and the signals that pages read.
//! Pages call [`Feed::watch`] and don't know which transport is live. On the server, while rendering, it does nothing.

pub mod follow;
pub mod link;
pub mod measure;
pub mod player;
pub mod reduce;
pub mod tabs;
pub mod transfer;
pub mod uploads;

#[cfg(feature = "hydrate")]
pub mod browser;
#[cfg(not(feature = "hydrate"))]
#[path = "feed/inert.rs"]
pub mod browser;

pub use link::Mode;

use crate::model::{SegmentEvent, Session, SessionId, Status, Timestamp};
use leptos::prelude::*;
use reduce::View;
use std::collections::{HashMap, HashSet};

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    All,
    Selection,
    /// The browser doesn't let the page copy.
    Refused,
    /// The text couldn't be fetched.
    NoAnswer,
}

/// Whether a notification will be shown when a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notifications {
    On,
    Off,
    /// The person has blocked them, which only the browser's settings can undo.
    Blocked,
}

/// The handle that all pages share: a signal for each watched session, and the state of the connection.
#[derive(Clone, Copy)]
pub struct Feed {
    views: StoredValue<HashMap<SessionId, ArcRwSignal<View>>>,
    /// How many components show the segments of a session now. Missing segments are fetched only for these sessions, and not
    /// for rows of a list.
    transcripts: StoredValue<HashMap<SessionId, usize>>,
    /// The newest status of each session that no page watches, for a page that may soon watch it.
    unwatched: StoredValue<HashMap<SessionId, Status>>,
    /// How updates arrive. Written by `browser` only.
    pub mode: RwSignal<Mode>,
    /// Whether this browser has `EventSource` and the server gives it streams. If not, polling is no fallback, and pages don't
    /// mention streams. Written by `browser` only.
    pub can_stream: RwSignal<bool>,
    /// When the last word of the server came, such as a heartbeat, by the browser's clock. Written by `browser` only.
    pub last_word: RwSignal<Option<Timestamp>>,
    /// When the last news came: a newer status or a segment of a watched session.
    pub last_news: RwSignal<Option<Timestamp>>,
    /// The newest known titles of the sessions that were loaded or renamed since the app was opened.
    titles: RwSignal<HashMap<SessionId, String>>,
    /// The session that was loaded last, besides those of lists and that with which a page began.
    newest: RwSignal<Option<Session>>,
    /// The sessions that were deleted since the app was opened, here or elsewhere.
    deleted: RwSignal<HashSet<SessionId>>,
    /// Tells lists to load again. Grows by one for each session that appears and isn't watched, such as one made in another
    /// tab, for each watched session that turns out to be deleted, and whenever the page has heard nothing for a while.
    pub unknown: RwSignal<u64>,
}

impl Feed {
    /// More sessions than anybody runs at once. Beyond it, the oldest status of an unwatched session is dropped to save memory.
    const MAX_UNWATCHED: usize = 500;

    /// Makes the feed and puts it into the context. In the browser it connects once a session is watched; on the server it
    /// stays empty.
    pub fn provide() -> Self {
        let feed = Self::new();
        provide_context(feed);
        browser::start(feed);
        feed
    }

    fn new() -> Self {
        Self {
            views: StoredValue::default(),
            transcripts: StoredValue::default(),
            unwatched: StoredValue::default(),
            mode: RwSignal::new(Mode::Off),
            can_stream: RwSignal::new(true),
            last_word: RwSignal::new(None),
            last_news: RwSignal::new(None),
            titles: RwSignal::default(),
            newest: RwSignal::default(),
            deleted: RwSignal::default(),
            unknown: RwSignal::new(0),
        }
    }

    /// The feed of this app.
    ///
    /// # Panics
    /// Outside the app, which provides it.
    #[must_use]
    pub fn expect() -> Self {
        expect_context()
    }

    /// The live view of a session, seeded with the data that the page was rendered from. A seed older than the known view is
    /// ignored, so returning to a page never shows an old status.
    ///
    /// If the seed was made from a transcript, missing segments are fetched as long as the caller's reactive owner lives.
    pub fn watch(&self, mut seed: View) -> ArcRwSignal<View> {
        let id = seed.status.session_id;
        if let Some(status) = self.unwatched.try_update_value(|unwatched| unwatched.remove(&id)).flatten() {
            seed.status(status);
        }
        if seed.has_transcript() {
            self.open_transcript(id);
        }
        let view = match self.view(id) {
            Some(view) => {
                if view.with_untracked(|known| known.would_change(&seed)) {
                    view.update(|known| known.merge(seed));
                }
                view
            }
            None => {
                let view = ArcRwSignal::new(seed);
                self.views.update_value(|views| {
                    views.insert(id, view.clone());
                });
                view
            }
        };
        browser::watching(*self);
        view
    }

    /// Removes a deleted session from the feed.
    pub fn forget(&self, id: SessionId) {
        let known = self.views.try_update_value(|views| views.remove(&id)).flatten();
        // Kept as an unwatched session, so that a late status of it doesn't count as a new session.
        if let Some(view) = known {
            self.keep_unwatched(view.with_untracked(|view| view.status.clone()));
        }
        browser::watching(*self);
    }

    /// The view of a session, if a page has watched it.
    #[must_use]
    pub fn view(&self, id: SessionId) -> Option<ArcRwSignal<View>> {
        self.views.with_value(|views| views.get(&id).cloned())
    }

    /// The watched sessions whose newest known status isn't terminal.
    #[must_use]
    pub fn running(&self) -> Vec<SessionId> {
        let runs = |view: &ArcRwSignal<View>| view.with_untracked(|v| !v.status.state.is_terminal());
        self.views.with_value(|views| views.iter().filter(|(_, view)| runs(view)).map(|(id, _)| *id).collect())
    }

    /// Takes in a status from any transport. Returns false if no page watches the session.
    pub fn status(&self, status: Status) -> bool {
        let Some(view) = self.view(status.session_id) else {
            if self.keep_unwatched(status) {
                self.unknown.update(|n| *n += 1);
            }
            return false;
        };
        if view.with_untracked(|v| v.is_newer(&status)) {
            view.update(|v| v.status(status));
            self.last_news.set(browser::dom::now());
        }
        true
    }

    /// Takes in that a session has another title.
    pub fn renamed(&self, id: SessionId, title: String) {
        if self.titles.with_untracked(|titles| titles.get(&id) != Some(&title)) {
            self.titles.update(|titles| {
                titles.insert(id, title);
            });
        }
    }

    /// Takes in the title with which a session was loaded. A page shows the title that it was loaded with already, so readers
    /// hear of it only if another one was known.
    pub fn loaded_title(&self, id: SessionId, title: &str) {
        if self.titles.with_untracked(|titles| titles.contains_key(&id)) {
            self.renamed(id, title.to_owned());
        } else {
            self.titles.update_untracked(|titles| {
                titles.insert(id, title.to_owned());
            });
        }
    }

    /// Takes in a session that was loaded anew, because it was changed or may have been.
    pub fn loaded(&self, session: Session) {
        self.loaded_title(session.id, session.title.as_str());
        self.newest.set(Some(session));
    }

    /// The session of a page, as it was loaded anew since the page began with it.
    #[must_use]
    pub fn newest(&self, began_with: &Session) -> Session {
        let is_newer = |s: &&Session| s.id == began_with.id && s.status.version >= began_with.status.version;
        self.newest.with(|newest| newest.as_ref().filter(is_newer).unwrap_or(began_with).clone())
    }

    /// The title of a session, if it was loaded or renamed since the app was opened.
    #[must_use]
    pub fn title(&self, id: SessionId) -> Option<String> {
        self.titles.with(|titles| titles.get(&id).cloned())
    }

    /// Takes in that a session was deleted.
    pub fn deleted(&self, id: SessionId) {
        if self.deleted.with_untracked(|deleted| !deleted.contains(&id)) {
            self.deleted.update(|deleted| {
                deleted.insert(id);
            });
            self.forget(id);
        }
    }

    /// Whether a session was deleted since the app was opened.
    #[must_use]
    pub fn is_deleted(&self, id: SessionId) -> bool {
        self.deleted.with(|deleted| deleted.contains(&id))
    }

    /// Takes in a segment that a stream announced, if its transcript is shown. Otherwise it is dropped: the next page that
    /// shows the transcript is seeded with it.
    pub fn segment(&self, event: SegmentEvent) {
        let id = event.session_id;
        if self.shows_transcript(id)
            && let Some(view) = self.view(id)
        {
            let segment = event.into();
            if view.with_untracked(|v| v.wants(&segment)) {
                view.update(|v| v.segment(segment));
                self.last_news.set(browser::dom::now());
            }
        }
    }

    /// Whether a component shows the segments of a session now.
    #[must_use]
    pub fn shows_transcript(&self, id: SessionId) -> bool {
        self.transcripts.with_value(|open| open.contains_key(&id))
    }

    /// The sessions whose segments are shown now.
    #[must_use]
    pub fn shown_transcripts(&self) -> Vec<SessionId> {
        self.transcripts.with_value(|open| open.keys().copied().collect())
    }

    /// Counts a shown transcript until the current reactive owner is cleaned up.
    fn open_transcript(&self, id: SessionId) {
        let feed = *self;
        self.transcripts.update_value(|open| *open.entry(id).or_default() += 1);
        on_cleanup(move || {
            // If the whole app is being dropped, the counts may be gone already.
            let _ = feed.transcripts.try_update_value(|open| {
                if let Some(count) = open.get_mut(&id) {
                    *count -= 1;
                    if *count == 0 {
                        open.remove(&id);
                    }
                }
            });
        });
    }

    /// Keeps the status of a session that no page watches. Returns whether the session was unknown.
    fn keep_unwatched(&self, status: Status) -> bool {
        self.unwatched
            .try_update_value(|unwatched| {
                if let Some(known) = unwatched.get_mut(&status.session_id) {
                    if status.version > known.version {
                        *known = status;
                    }
                    return false;
                }
                if unwatched.len() >= Self::MAX_UNWATCHED
                    && let Some(oldest) = unwatched.iter().min_by_key(|(_, s)| s.timestamp).map(|(id, _)| *id)
                {
                    unwatched.remove(&oldest);
                }
                unwatched.insert(status.session_id, status);
                true
            })
            .unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Segment, State};
    use uuid::Uuid;

    fn status(n: u128, version: u64, state: State) -> Status {
        Status { version, ..Status::new(SessionId(Uuid::from_u128(n)), state, None, Timestamp(version as i64)) }
    }

    fn segment(session_id: SessionId, index: u32) -> SegmentEvent {
        let segment = Segment::new(index, 0.0, 1.0, "");
        SegmentEvent::new(session_id, &segment)
    }

    fn with_feed(f: impl FnOnce(Feed)) {
        let owner = Owner::new();
        owner.with(|| f(Feed::provide()));
    }

    #[test]
    fn watching_a_session_again_with_an_old_seed_changes_nothing() {
        with_feed(|feed| {
            let first = feed.watch(View::new(status(1, 5, State::Processing)));
            let again = feed.watch(View::new(status(1, 4, State::Queued)));
            assert_eq!(again.get_untracked().status.version, 5);
            assert!(feed.status(status(1, 6, State::Completed)));
            assert_eq!(first.get_untracked().status.version, 6);
            assert!(feed.running().is_empty());
        });
    }

    #[test]
    fn an_unwatched_session_is_reported_once_and_its_newest_status_is_kept() {
        with_feed(|feed| {
            assert!(!feed.status(status(1, 5, State::Processing)));
            assert!(!feed.status(status(1, 7, State::Completed)));
            assert!(!feed.status(status(1, 6, State::Processing)));
            assert_eq!(feed.unknown.get_untracked(), 1);
            let view = feed.watch(View::new(status(1, 4, State::Queued)));
            assert_eq!(view.get_untracked().status.version, 7);
        });
    }

    #[test]
    fn the_number_of_unwatched_sessions_is_bounded() {
        with_feed(|feed| {
            for n in 0..2 * Feed::MAX_UNWATCHED {
                feed.status(status(n as u128, n as u64, State::Processing));
            }
            assert_eq!(feed.unwatched.with_value(HashMap::len), Feed::MAX_UNWATCHED);
        });
    }

    #[test]
    fn a_forgotten_session_is_neither_watched_nor_reported_as_unknown() {
        with_feed(|feed| {
            let id = status(1, 1, State::Queued).session_id;
            feed.watch(View::new(status(1, 1, State::Queued)));
            assert_eq!(feed.running(), [id]);
            feed.forget(id);
            assert!(feed.running().is_empty() && feed.view(id).is_none());
            assert!(!feed.status(status(1, 2, State::Processing)));
            assert_eq!(feed.unknown.get_untracked(), 0);
        });
    }

    #[test]
    fn renaming_and_deleting_are_taken_in_once_and_for_all() {
        with_feed(|feed| {
            let id = status(1, 1, State::Completed).session_id;
            feed.watch(View::new(status(1, 1, State::Completed)));
            assert_eq!((feed.title(id), feed.is_deleted(id)), (None, false));
            feed.renamed(id, "One".to_owned());
            feed.renamed(id, "Two".to_owned());
            assert_eq!(feed.title(id).as_deref(), Some("Two"));
            feed.deleted(id);
            assert!(feed.is_deleted(id) && feed.view(id).is_none());
            // A status that comes late doesn't bring it back.
            feed.status(status(1, 2, State::Completed));
            assert!(feed.is_deleted(id) && feed.unknown.get_untracked() == 0);
        });
    }

    #[test]
    fn a_title_that_was_loaded_again_is_told_if_it_is_another_one() {
        with_feed(|feed| {
            let id = status(1, 1, State::Completed).session_id;
            feed.loaded_title(id, "One");
            assert_eq!(feed.title(id).as_deref(), Some("One"));
            feed.loaded_title(id, "Two");
            assert_eq!(feed.title(id).as_deref(), Some("Two"));
        });
    }

    #[test]
    fn segments_are_kept_only_while_a_transcript_is_shown() {
        with_feed(|feed| {
            let id = status(1, 1, State::Processing).session_id;
            let row = feed.watch(View::new(status(1, 1, State::Processing)));
            feed.segment(segment(id, 0));
            assert!(row.get_untracked().segments.is_empty() && !feed.shows_transcript(id));

            let seed = || View::of_transcript(status(1, 1, State::Processing), Vec::new());
            let (page, other) = (Owner::new(), Owner::new());
            page.with(|| feed.watch(seed()));
            other.with(|| feed.watch(seed()));
            feed.segment(segment(id, 0));
            assert_eq!(row.get_untracked().segments.len(), 1);
            page.cleanup();
            assert_eq!(feed.shown_transcripts(), [id]);
            other.cleanup();
            assert!(!feed.shows_transcript(id));
        });
    }
}
