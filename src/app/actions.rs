//! What can be done to a session: the forms of the buttons send it, and report here what came of it. A page makes one of
//! these and hands it to its rows and buttons.

use crate::{
    api::{
        failed_form,
        sessions::{CancelSession, DeleteSession, RenameSession, RestartSession, RetrySession},
    },
    app::MAIN,
    feed::{Feed, browser::dom, reduce::View},
    model::{ApiError, Session, SessionId},
};
use leptos::{prelude::*, server_fn::ServerFn};

/// What became of the changes that were made on a page.
#[derive(Clone, Copy)]
pub struct Actions {
    feed: Feed,
    /// Why the newest change failed, if it did.
    pub error: RwSignal<Option<ApiError>>,
    /// The sessions deleted since the page was opened.
    pub deleted: RwSignal<Vec<SessionId>>,
    /// The title that the session was given since the page was opened.
    pub renamed: RwSignal<Option<String>>,
}

impl Actions {
    /// Nothing has been changed yet, unless by a form that was sent without JavaScript and failed.
    pub(crate) fn new() -> Self {
        let paths =
            [CancelSession::PATH, RetrySession::PATH, RestartSession::PATH, DeleteSession::PATH, RenameSession::PATH];
        Self {
            feed: Feed::expect(),
            error: RwSignal::new(failed_form(&paths)),
            deleted: RwSignal::default(),
            renamed: RwSignal::default(),
        }
    }

    /// A session was cancelled, retried or restarted: the feed knows its new status at once.
    pub(crate) fn changed(self, answer: Result<Session, ApiError>) {
        if let Some(session) = self.answer(answer) {
            self.feed.watch(View::new(session.status));
        }
    }

    /// A session was deleted.
    pub(crate) fn deleted(self, id: SessionId, answer: Result<(), ApiError>) {
        if self.answer(answer).is_some() {
            self.feed.forget(id);
            self.deleted.update(|deleted| deleted.push(id));
            // The button that had the focus is gone.
            dom::focus(MAIN);
        }
    }

    /// A session was given another title.
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
