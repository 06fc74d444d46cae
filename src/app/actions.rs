//! What can be done to sessions, with forms that work without JavaScript, and what the page does once it is done.
//! Made once for each page; rows and buttons get a copy. An [`Errand`] is what it is built on, for other requests too.

use crate::{
    api::{
        failed_form,
        sessions::{
            CancelSession, DeleteSession, RenameSession, RestartSession, RetrySession, cancel_session, delete_session,
            rename_session, restart_session, retry_session,
        },
    },
    app::MAIN,
    feed::{Feed, browser::dom, reduce::View},
    model::{ApiError, SessionId},
};
use leptos::{prelude::*, server_fn::ServerFn, task::spawn_local};

/// Something asked of the server on somebody's wish: whether it is under way, and why it failed. One type for all
/// server functions, where a `ServerAction` for each would be a copy of its machinery for each.
#[derive(Clone, Copy)]
pub(crate) struct Errand {
    pub(crate) busy: RwSignal<bool>,
    /// Why the newest failed, if it did.
    pub(crate) error: RwSignal<Option<ApiError>>,
}

impl Errand {
    /// `paths` are those of the server functions it may call: a form sent without JavaScript leaves its error for the
    /// next page.
    pub(crate) fn new(paths: &[&str]) -> Self {
        Self { busy: RwSignal::new(false), error: RwSignal::new(failed_form(paths)) }
    }

    /// Asks, and hands on what comes if the page is still there.
    pub(crate) fn run<T: 'static>(
        self,
        ask: impl Future<Output = Result<T, ApiError>> + 'static,
        then: impl FnOnce(T) + 'static,
    ) {
        self.busy.set(true);
        spawn_local(async move {
            let answer = ask.await;
            if self.busy.try_set(false).is_some() {
                return;
            }
            match answer {
                Ok(answer) => {
                    self.error.set(None);
                    then(answer);
                }
                Err(error) => self.error.set(Some(error)),
            }
        });
    }
}

/// A change that needs nothing but the session's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Cancel,
    Retry,
    Restart,
    Delete,
}

impl Change {
    /// Where the form of this change is sent.
    #[must_use]
    pub fn url(self) -> &'static str {
        match self {
            Self::Cancel => CancelSession::url(),
            Self::Retry => RetrySession::url(),
            Self::Restart => RestartSession::url(),
            Self::Delete => DeleteSession::url(),
        }
    }
}

/// The actions of a page.
#[derive(Clone, Copy)]
pub struct Actions {
    feed: Feed,
    errand: Errand,
    /// The sessions deleted since the page was opened.
    pub deleted: RwSignal<Vec<SessionId>>,
    /// The title that the session was given since the page was opened.
    pub renamed: RwSignal<Option<String>>,
}

impl Actions {
    /// Makes the actions. What they change the feed knows at once.
    pub(crate) fn new() -> Self {
        let paths =
            [CancelSession::PATH, RetrySession::PATH, RestartSession::PATH, DeleteSession::PATH, RenameSession::PATH];
        Self {
            feed: Feed::expect(),
            errand: Errand::new(&paths),
            deleted: RwSignal::default(),
            renamed: RwSignal::default(),
        }
    }

    /// Changes a session.
    pub(crate) fn change(self, id: SessionId, change: Change) {
        let ask = async move {
            Ok(match change {
                Change::Cancel => Some(cancel_session(id).await?),
                Change::Retry => Some(retry_session(id).await?),
                Change::Restart => Some(restart_session(id).await?),
                Change::Delete => {
                    delete_session(id).await?;
                    self.feed.forget(id);
                    None
                }
            })
        };
        self.errand.run(ask, move |session| match session {
            Some(session) => drop(self.feed.watch(View::new(session.status))),
            None => {
                self.deleted.update(|deleted| deleted.push(id));
                // The button that had the focus is gone.
                dom::focus(MAIN);
            }
        });
    }

    /// Gives a session another title.
    pub(crate) fn rename(self, id: SessionId, title: String) {
        self.errand.run(rename_session(id, title), move |session| self.renamed.set(Some(session.title.to_string())));
    }

    /// Whether something is being changed.
    pub(crate) fn busy(self) -> bool {
        self.errand.busy.get()
    }

    /// Why the newest of them failed, if it did.
    pub(crate) fn error(self) -> Option<ApiError> {
        self.errand.error.get()
    }
}
