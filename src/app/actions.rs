//! The outcome of changes to sessions: the forms of the buttons send a change and report its answer here. Each page makes one
//! [`Actions`] and passes it to its rows and buttons.

use crate::{
    api::{
        failed_form,
        sessions::{CancelSession, DeleteSession, RenameSession, RestartSession, RetrySession, TranscribeAgain},
    },
    app::MAIN,
    feed::{Feed, browser::dom, reduce::View},
    model::{ApiError, Session, SessionId},
};
use leptos::{prelude::*, server_fn::ServerFn};

/// The outcome of the changes made on a page.
#[derive(Clone, Copy)]
pub struct Actions {
    feed: Feed,
    /// The error of the newest change, if it failed.
    pub error: RwSignal<Option<ApiError>>,
    /// The sessions deleted since the page was opened.
    pub deleted: RwSignal<Vec<SessionId>>,
    /// The session's new title, if it was renamed since the page was opened.
    pub renamed: RwSignal<Option<String>>,
    /// The session as it is since it was started again with another choice, if it was since the page was opened.
    pub again: RwSignal<Option<Session>>,
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
        ];
        Self {
            feed: Feed::expect(),
            error: RwSignal::new(failed_form(&paths)),
            deleted: RwSignal::default(),
            renamed: RwSignal::default(),
            again: RwSignal::default(),
        }
    }

    /// Handles the answer to a cancel, retry or restart: the feed gets the new status at once.
    pub(crate) fn changed(self, answer: Result<Session, ApiError>) {
        if let Some(session) = self.answer(answer) {
            self.feed.watch(View::new(session.status));
        }
    }

    /// Handles the answer to a new start with another choice.
    pub(crate) fn started_again(self, answer: Result<Session, ApiError>) {
        if let Some(session) = self.answer(answer) {
            self.feed.watch(View::new(session.status.clone()));
            self.again.set(Some(session));
        }
    }

    /// Handles the answer to a deletion.
    pub(crate) fn deleted(self, id: SessionId, answer: Result<(), ApiError>) {
        if self.answer(answer).is_some() {
            self.feed.forget(id);
            self.deleted.update(|deleted| deleted.push(id));
            // The button that had the focus no longer exists.
            dom::focus(MAIN);
        }
    }

    /// Handles the answer to a renaming.
    pub(crate) fn renamed(self, answer: Result<Session, ApiError>) {
        if let Some(session) = self.answer(answer) {
            self.renamed.set(Some(session.title.to_string()));
        }
    }

    fn answer<T>(self, answer: Result<T, ApiError>) -> Option<T> {
        let (value, error) = match answer {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error)),
        };
        self.error.set(error);
        value
    }
}
