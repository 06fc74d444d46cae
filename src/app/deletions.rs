//! Deletions that can be undone for a while: their sessions disappear from lists at once, and are deleted when the time is over or
//! the page is left. One for the app, so that it goes on while another page is opened.

use crate::{
    api::sessions::{ActOnSessions, act_on_sessions},
    app::{MAIN, actions::actions_id, effect},
    feed::{
        Feed,
        browser::{self, dom, list},
    },
    model::{
        ApiError, SessionId,
        many::{ManyAction, Outcome, failures},
    },
};
use leptos::{leptos_dom::helpers::IntervalHandle, prelude::*, server_fn::ServerFn, task::spawn_local};
use std::time::Duration;

/// How many seconds a deletion can be undone.
const SECONDS: u32 = 10;

/// Sessions that are about to be deleted.
#[derive(Clone, Debug, PartialEq)]
struct Pending {
    /// With their titles.
    sessions: Vec<(SessionId, String)>,
}

impl Pending {
    fn has(&self, id: SessionId) -> bool {
        self.sessions.iter().any(|(known, _)| *known == id)
    }

    fn ids(&self) -> Vec<SessionId> {
        self.sessions.iter().map(|(id, _)| *id).collect()
    }

    fn words(&self) -> String {
        match &*self.sessions {
            [(_, title)] => format!("Deleted “{title}”."),
            sessions => format!("Deleted {} sessions.", sessions.len()),
        }
    }
}

/// The deletions of the app.
#[derive(Clone, Copy)]
pub(crate) struct Deletions {
    feed: Feed,
    announce: Callback<(String,)>,
    /// What can still be undone.
    pending: RwSignal<Option<Pending>>,
    /// What was sent and isn't answered yet.
    sent: RwSignal<Vec<Pending>>,
    /// The seconds that are left.
    left: StoredValue<u32>,
    timer: StoredValue<Option<IntervalHandle>>,
    /// Whether the time stands still, because somebody is about to undo.
    pub(crate) is_held: StoredValue<bool>,
    /// Why the last deletion failed.
    pub(crate) error: RwSignal<Option<String>>,
}

impl Deletions {
    /// Makes it and puts it into the context. `announce` tells screen readers.
    pub(crate) fn provide(announce: impl Fn(String) + Send + Sync + 'static) {
        let deletions = Self {
            feed: Feed::expect(),
            announce: Callback::new(move |(text,)| announce(text)),
            pending: RwSignal::new(None),
            sent: RwSignal::default(),
            left: StoredValue::new(0),
            timer: StoredValue::new(None),
            is_held: StoredValue::new(false),
            error: RwSignal::new(None),
        };
        provide_context(deletions);
        effect(move || {
            let leaving = window_event_listener_untyped("pagehide", move |_| deletions.leave());
            on_cleanup(move || leaving.remove());
        });
    }

    /// The deletions from the context.
    pub(crate) fn expect() -> Self {
        expect_context()
    }

    /// Whether a session is about to be deleted, so that lists leave it out.
    pub(crate) fn hides(self, id: SessionId) -> bool {
        self.pending.with(|pending| pending.as_ref().is_some_and(|pending| pending.has(id)))
            || self.sent.with(|sent| sent.iter().any(|sent| sent.has(id)))
    }

    /// What is said of what can be undone; none if nothing can.
    pub(crate) fn words(self) -> Option<String> {
        self.pending.with(|pending| pending.as_ref().map(Pending::words))
    }

    /// Begins to delete sessions, given with their titles. What could be undone until now is deleted at once.
    pub(crate) fn begin(self, sessions: Vec<(SessionId, String)>) {
        if sessions.is_empty() {
            return;
        }
        self.finish();
        let pending = Pending { sessions };
        self.announce.run((format!("{} It can be undone for {SECONDS} seconds.", pending.words()),));
        self.error.set(None);
        self.is_held.set_value(false);
        self.left.set_value(SECONDS);
        self.pending.set(Some(pending));
        let tick = move || {
            if !self.is_held.get_value() {
                self.left.update_value(|left| *left -= 1);
                if self.left.get_value() == 0 {
                    self.finish();
                }
            }
        };
        self.timer.set_value(set_interval_with_handle(tick, Duration::from_secs(1)).ok());
        // The row that had the focus is gone. The notice is the first thing in the page.
        dom::focus(MAIN);
    }

    fn take(self) -> Option<Pending> {
        if let Some(timer) = self.timer.try_update_value(Option::take).flatten() {
            timer.clear();
        }
        self.pending.try_update(Option::take).flatten()
    }

    /// Brings back what is about to be deleted.
    pub(crate) fn undo(self) {
        let Some(pending) = self.take() else { return };
        self.announce.run(("Nothing was deleted.".to_owned(),));
        if let Some((id, _)) = pending.sessions.first() {
            let id = actions_id(*id);
            // The row is made anew.
            request_animation_frame(move || _ = dom::focus(&id));
        }
    }

    /// Deletes what could be undone until now, with as few requests as may be.
    fn finish(self) {
        let Some(pending) = self.take() else { return };
        for part in pending.sessions.chunks(ManyAction::MAX_SESSIONS) {
            let part = Pending { sessions: part.to_vec() };
            self.sent.update(|sent| sent.push(part.clone()));
            spawn_local(async move {
                let answer = act_on_sessions(ManyAction::Delete.as_str().to_owned(), part.ids()).await;
                self.answered(&part, answer);
            });
        }
    }

    fn answered(self, pending: &Pending, answer: Result<Vec<Outcome>, ApiError>) {
        let mut failed = Vec::new();
        match &answer {
            Ok(outcomes) => {
                for Outcome { id, error, .. } in outcomes {
                    match error.as_ref().filter(|error| !error.is_not_found()) {
                        Some(error) => {
                            let title = pending.sessions.iter().find(|(known, _)| known == id);
                            failed.push((title.map(|(_, title)| title.clone()), error));
                        }
                        None => {
                            browser::tell_deleted(*id);
                            self.feed.deleted(*id);
                        }
                    }
                }
            }
            Err(error) => failed.push((None, error)),
        }
        self.sent.update(|sent| sent.retain(|sent| sent != pending));
        if let Some(error) = failures(ManyAction::Delete, pending.sessions.len(), &failed) {
            self.error.set(Some(error));
        }
    }

    /// Deletes what could be undone until now, while the page is left: nothing waits for the answer.
    fn leave(self) {
        let Some(pending) = self.take() else { return };
        let ids = pending.ids();
        for part in ids.chunks(ManyAction::MAX_SESSIONS) {
            let action = std::iter::once(("action", ManyAction::Delete.as_str().to_owned()));
            let fields: Vec<_> = action.chain(part.iter().map(|id| ("ids[]", id.to_string()))).collect();
            list::send_form(ActOnSessions::PATH, &fields);
        }
        for id in ids {
            browser::tell_deleted(id);
            self.feed.deleted(id);
        }
    }
}
