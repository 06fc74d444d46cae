//! Several sessions at once: a checkbox in each row, and a bar with what can be done to the selected ones. The bar is a form that the
//! checkboxes belong to, so it works without JavaScript.

use super::{Icon, Symbol, use_announcer};
use crate::{
    api::sessions::{ActOnSessions, act_on_sessions},
    app::{actions::Actions, clock::Clock, deletions::Deletions, detours::live_text, effect},
    feed::{Feed, browser::dom, reduce::View},
    model::{
        Session, SessionId,
        many::{ManyAction, failures, has_text},
        page::ListedSession,
        text,
    },
};
use leptos::{prelude::*, server_fn::ServerFn};
use std::collections::HashSet;

/// The id of the form.
const FORM: &str = "selected";

/// The selected sessions of a list.
#[derive(Clone, Copy, Default)]
pub struct Selection(RwSignal<HashSet<SessionId>>);

impl Selection {
    fn set(self, id: SessionId, on: bool) {
        self.0.update(|selected| {
            if on {
                selected.insert(id);
            } else {
                selected.remove(&id);
            }
        });
    }
}

/// The checkbox of a row.
#[component]
pub fn Pick(
    selection: Selection,
    id: SessionId,
    /// The session's title, for screen readers.
    title: Signal<String>,
) -> impl IntoView {
    view! {
        <label class="pick">
            <input
                type="checkbox"
                name="ids[]"
                value=id.to_string()
                form=FORM
                autocomplete="off"
                data-testid="pick"
                prop:checked=move || selection.0.with(|selected| selected.contains(&id))
                on:change=move |event| selection.set(id, event_target_checked(&event))
            />
            <span class="hidden" inner_html=move || format!("Select {}", live_text(title.get()))></span>
        </label>
    }
}

/// The bar above the rows.
#[component]
pub fn SelectionBar(selection: Selection, rows: Memo<Vec<ListedSession>>, actions: Actions) -> impl IntoView {
    let feed = Feed::expect();
    let deletions = Deletions::expect();
    let clock = Clock::expect();
    let title_of = move |session: &Session| feed.title(session.id).unwrap_or_else(|| session.title.to_string());
    // With their statuses and titles as they are now. What isn't shown any more isn't selected either.
    let selected = Memo::new(move |_| {
        let selected = selection.0.get();
        let now = |session: &Session| match feed.view(session.id) {
            Some(view) => view.with(|view: &View| view.status.clone()),
            None => session.status.clone(),
        };
        rows.with(|rows| {
            let rows = rows.iter().map(|row| &row.session).filter(|session| selected.contains(&session.id));
            rows.map(|session| (Session { status: now(session), ..session.clone() }, title_of(session)))
                .collect::<Vec<_>>()
        })
    });
    let suiting = move |suits: fn(&Session) -> bool| {
        selected.with(|selected| {
            selected.iter().filter(|(session, _)| suits(session)).map(|(session, _)| session.id).collect::<Vec<_>>()
        })
    };
    let is_whole = Memo::new(move |_| rows.with(|rows| !rows.is_empty() && rows.len() == selected.with(Vec::len)));
    let act = Action::new(|(action, ids): &(ManyAction, Vec<SessionId>)| {
        let (action, ids) = (*action, ids.clone());
        async move { (action, act_on_sessions(action.as_str().to_owned(), ids).await) }
    });
    let announce = use_announcer();
    effect(move || {
        let Some((action, answer)) = act.value().get() else { return };
        let title = |id: SessionId| {
            rows.with_untracked(|rows| rows.iter().find(|row| row.session.id == id).map(|row| title_of(&row.session)))
        };
        let mut done = 0;
        let error = match &answer {
            Ok(outcomes) => {
                let mut failed = Vec::new();
                for outcome in outcomes {
                    match (&outcome.error, &outcome.session) {
                        (Some(error), _) => failed.push((untrack(|| title(outcome.id)), error)),
                        (None, session) => {
                            done += 1;
                            if let Some(session) = session {
                                feed.watch(View::new(session.status.clone()));
                            }
                            selection.set(outcome.id, false);
                        }
                    }
                }
                failures(action, outcomes.len(), &failed)
            }
            Err(error) => Some(error.message.clone()),
        };
        if done > 0 {
            announce(format!("{} {}", text::count(done, "session"), action.done()));
        }
        actions.several(error);
    });
    let button = move |action: ManyAction, label: &'static str, symbol: Symbol, suits: fn(&Session) -> bool| {
        let suiting = Memo::new(move |_| suiting(suits));
        // How many it is for, unless it is for all.
        let count = move || {
            let (n, all) = (suiting.with(Vec::len), selected.with(Vec::len));
            if n == 0 || n == all { String::new() } else { format!(" ({n})") }
        };
        view! {
            <button
                class="button quiet"
                name="action"
                value=action.as_str()
                data-testid=format!("selected-{}", action.as_str())
                disabled=move || clock.is_hydrated() && (suiting.with(Vec::is_empty) || act.pending().get())
                on:click=move |event| {
                    event.prevent_default();
                    let ids = suiting.get_untracked();
                    if action == ManyAction::Delete {
                        let titled = selected.with_untracked(|selected| {
                            selected.iter().map(|(session, title)| (session.id, title.clone())).collect()
                        });
                        deletions.begin(titled);
                    } else {
                        // The button can't have the focus while the request is pending.
                        dom::focus(FORM);
                        act.dispatch((action, ids));
                    }
                }
            >
                <Icon symbol/>
                {label}
                <span inner_html=count></span>
            </button>
        }
    };
    let readable = Memo::new(move |_| suiting(|session| has_text(&session.status)));
    let zip = move || {
        let ids = readable.with(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        format!("/api/v1/transcripts.zip?ids={ids}")
    };
    view! {
        <form class="selection" id=FORM tabindex="-1" method="post" action=ActOnSessions::PATH aria-label="Selected sessions">
            // What Enter in a checkbox would press: nothing.
            <button disabled hidden></button>
            <label class="check" hidden=move || !clock.is_hydrated()>
                <input
                    type="checkbox"
                    autocomplete="off"
                    data-testid="pick-all"
                    prop:checked=move || is_whole.get()
                    on:change=move |event| {
                        let on = event_target_checked(&event);
                        let all = rows.with_untracked(|rows| rows.iter().map(|row| row.session.id).collect());
                        selection.0.set(if on { all } else { HashSet::new() });
                    }
                />
                "Select all shown"
            </label>
            // Without JavaScript nobody knows what is selected.
            <div class="selection-actions" hidden=move || clock.is_hydrated() && selected.with(Vec::is_empty)>
                <span data-testid="selected-count" inner_html=move || match selected.with(Vec::len) {
                    0 => "Selected:".to_owned(),
                    n => format!("{n} selected:"),
                }></span>
                {button(ManyAction::Retry, "Retry", Symbol::Retry, |session| ManyAction::Retry.suits(session))}
                {button(ManyAction::Cancel, "Cancel", Symbol::Cancelled, |session| ManyAction::Cancel.suits(session))}
                <button
                    class="button quiet"
                    formaction="/api/v1/transcripts.zip"
                    formmethod="get"
                    data-testid="selected-download-plain"
                    hidden=move || clock.is_hydrated()
                >
                    <Icon symbol=Symbol::Download/>
                    "Download"
                </button>
                <a
                    class="button quiet"
                    href=zip
                    rel="external"
                    download
                    data-testid="selected-download"
                    hidden=move || !clock.is_hydrated() || readable.with(Vec::is_empty)
                >
                    <Icon symbol=Symbol::Download/>
                    "Download"
                </a>
                <span hidden=move || !clock.is_hydrated()>
                    {button(ManyAction::Delete, "Delete", Symbol::Delete, |_| true)}
                </span>
                // Without JavaScript nothing can be undone.
                <details class="confirm" hidden=move || clock.is_hydrated()>
                    <summary class="button quiet" data-testid="selected-delete-plain">
                        <Icon symbol=Symbol::Delete/>
                        "Delete"
                    </summary>
                    <div class="confirm-box">
                        <p>"The recordings and their transcripts will be gone for good."</p>
                        <button class="button danger" name="action" value="delete" data-testid="selected-confirm">"Delete for good"</button>
                    </div>
                </details>
            </div>
        </form>
    }
}
