//! What can be done to sessions, as forms that work without JavaScript, and what the page does once it is done.
//! Made once for each page; rows and buttons get a copy.

use crate::{
    api::sessions::{CancelSession, DeleteSession, RenameSession, RestartSession, RetrySession},
    app::MAIN,
    feed::{Feed, browser::dom, reduce::View},
    model::{ApiError, Session, SessionId},
};
use leptos::prelude::*;

/// The actions of a page.
#[derive(Clone, Copy)]
pub struct Actions {
    pub cancel: ServerAction<CancelSession>,
    pub retry: ServerAction<RetrySession>,
    pub restart: ServerAction<RestartSession>,
    pub delete: ServerAction<DeleteSession>,
    pub rename: ServerAction<RenameSession>,
    /// The sessions deleted since the page was opened.
    pub deleted: RwSignal<Vec<SessionId>>,
}

impl Actions {
    /// Makes the actions, and lets the feed know at once what they changed.
    pub(crate) fn new() -> Self {
        let actions = Self {
            cancel: ServerAction::new(),
            retry: ServerAction::new(),
            restart: ServerAction::new(),
            delete: ServerAction::new(),
            rename: ServerAction::new(),
            deleted: RwSignal::default(),
        };
        let feed = Feed::expect();
        let take = move |answer: Option<Result<Session, ApiError>>| {
            if let Some(Ok(session)) = answer {
                feed.watch(View::new(session.status));
            }
        };
        Effect::new(move || take(actions.cancel.value().get()));
        Effect::new(move || take(actions.retry.value().get()));
        Effect::new(move || take(actions.restart.value().get()));
        let doomed = StoredValue::new(None);
        Effect::new(move || {
            if let Some(input) = actions.delete.input().get() {
                doomed.set_value(Some(input.id));
            }
        });
        Effect::new(move || {
            if let (Some(Ok(())), Some(id)) = (actions.delete.value().get(), doomed.get_value()) {
                feed.forget(id);
                actions.deleted.update(|deleted| deleted.push(id));
                // The button that had the focus is gone.
                dom::focus(MAIN);
            }
        });
        actions
    }

    /// Why the newest of them failed, if it did.
    pub(crate) fn error(self) -> Option<ApiError> {
        let changed = [self.cancel.value(), self.retry.value(), self.restart.value(), self.rename.value()];
        let error =
            changed.into_iter().find_map(|value| value.with(|v| v.as_ref().and_then(|r| r.as_ref().err().cloned())));
        error.or_else(|| self.delete.value().with(|v| v.as_ref().and_then(|r| r.as_ref().err().cloned())))
    }
}
