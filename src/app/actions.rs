//! The outcome of changes to sessions: the forms of the buttons send a change and report its answer here. Each page makes one
//! [`Actions`] and passes it to its rows and buttons.

use crate::{
    api::{
        failed_form,
        sessions::{
            ActOnSessions, CancelSession, DeleteSession, RenameSession, RestartSession, RetrySession, TranscribeAgain,
        },
    },
    app::{MAIN, effect},
    feed::{
        Feed,
        browser::{self, dom},
        reduce::View,
    },
    model::{ApiError, Session, SessionId, State},
};
use leptos::{prelude::*, server_fn::ServerFn};

/// The id of the group of buttons that change a session.
pub(crate) fn actions_id(session: SessionId) -> String {
    format!("actions-{session}")
}

/// The id of the button that unfolds the status of a session's page.
pub(crate) const STATUS_TOGGLE: &str = "status-toggle";

/// Moves the focus from a button to its group, because the button disappears as soon as what it does is done. If the group is
/// folded away, to the button that unfolds it.
pub(crate) fn keep_focus(session: SessionId) {
    let _ = dom::focus(&actions_id(session)) || dom::focus(STATUS_TOGGLE) || dom::focus(MAIN);
}

/// Does so if the focus is lost with the element that has this id and is about to be removed or hidden.
pub(crate) fn keep_focus_of(element: &str, session: SessionId) {
    if dom::has_focus(element) {
        request_animation_frame(move || {
            if dom::is_focus_lost() {
                keep_focus(session);
            }
        });
    }
}

/// A change that failed, with what its session was like then.
#[derive(Clone)]
struct FailedAction {
    /// None for a form that was sent without scripts.
    id: Option<SessionId>,
    version: u64,
    title: Option<String>,
    error: ApiError,
}

/// The outcome of the changes made on a page.
#[derive(Clone, Copy)]
pub struct Actions {
    feed: Feed,
    /// The newest change, if it failed.
    failed: RwSignal<Option<FailedAction>>,
}

impl Actions {
    /// No outcome yet, except for the error of a form that was sent without JavaScript and failed.
    pub(crate) fn new() -> Self {
        let paths = [
            CancelSession::PATH,
            RetrySession::PATH,
            RestartSession::PATH,
            TranscribeAgain::PATH,
            DeleteSession::PATH,
            RenameSession::PATH,
            ActOnSessions::PATH,
        ];
        let failed = failed_form(&paths).map(|error| FailedAction { id: None, version: 0, title: None, error });
        let actions = Self { feed: Feed::expect(), failed: RwSignal::new(failed) };
        // The error goes once its session is fine again.
        effect(move || {
            if actions.failed.with(|failed| failed.as_ref().is_some_and(|failed| actions.is_over(failed))) {
                actions.dismiss();
            }
        });
        actions
    }

    /// Whether what a change failed to do has been done otherwise, or doesn't matter any more.
    fn is_over(self, failed: &FailedAction) -> bool {
        let Some(id) = failed.id else { return false };
        let goes_on = |view: &View| view.status.version > failed.version && view.status.state != State::Failed;
        let goes_on = self.feed.view(id).is_some_and(|view| view.with(goes_on));
        goes_on || self.feed.title(id) != failed.title || self.feed.is_deleted(id)
    }

    /// The error of the newest change, if it failed.
    pub(crate) fn error(self) -> Option<String> {
        self.failed.with(|failed| failed.as_ref().map(|failed| failed.error.message.clone()))
    }

    /// Forgets the error.
    pub(crate) fn dismiss(self) {
        self.failed.set(None);
    }

    /// Handles the answer to a cancel, retry, restart or new start with another choice: the feed gets the session at once.
    pub(crate) fn changed(self, id: SessionId, answer: Result<Session, ApiError>) {
        if let Some(session) = self.answer(id, answer) {
            self.feed.watch(View::new(session.status.clone()));
            self.feed.loaded(session);
        }
    }

    /// Handles the answer to a deletion.
    pub(crate) fn deleted(self, id: SessionId, answer: Result<(), ApiError>) {
        if self.answer(id, answer).is_some() {
            browser::tell_deleted(id);
            self.feed.deleted(id);
            // The button that had the focus no longer exists.
            dom::focus(MAIN);
        }
    }

    /// Handles the end of a change of several sessions, or of none: the error, if something failed.
    pub(crate) fn several(self, error: Option<String>) {
        let failed =
            |message| FailedAction { id: None, version: 0, title: None, error: ApiError::new("failed", message) };
        self.failed.set(error.map(failed));
    }

    /// Handles the answer to a renaming.
    pub(crate) fn renamed(self, id: SessionId, answer: Result<Session, ApiError>) {
        if let Some(session) = self.answer(id, answer) {
            let title = session.title.to_string();
            browser::tell_renamed(id, &title);
            self.feed.renamed(id, title);
        }
    }

    fn answer<T>(self, id: SessionId, answer: Result<T, ApiError>) -> Option<T> {
        let (value, error) = match answer {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error)),
        };
        let version = self.feed.view(id).map_or(0, |view| view.with_untracked(|view| view.status.version));
        let title = untrack(|| self.feed.title(id));
        self.failed.set(error.map(|error| FailedAction { id: Some(id), version, title, error }));
        value
    }
}
