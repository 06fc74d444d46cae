//! The buttons cancel, retry and delete: forms that work without JavaScript. Each is disabled while its request is pending.

use super::{Icon, Symbol};
use crate::{
    api::sessions::{CancelSession, DeleteSession, RetrySession},
    app::{
        actions::{Actions, keep_focus, keep_focus_of},
        clock::Clock,
        deletions::Deletions,
        detours::live_text,
        effect,
        listing::LIST_ADDRESS,
    },
    feed::browser::dom,
    model::SessionId,
};
use leptos::{form::ActionForm, prelude::*};

/// The title of the session that a button is for, for screen readers.
#[component]
fn OfSession(title: Signal<String>) -> impl IntoView {
    view! { <span class="hidden" inner_html=move || format!(" {}", live_text(title.get()))></span> }
}

/// Keeps the focus that a button with this id has when it is removed without a click: the session has gone on by itself.
pub(super) fn keep_focus_of_removed(button: String, id: SessionId) {
    on_cleanup(move || keep_focus_of(&button, id));
}

/// Cancels a session.
#[component]
pub fn CancelButton(
    actions: Actions,
    id: SessionId,
    /// The session's title, for screen readers.
    #[prop(into)]
    title: Signal<String>,
) -> impl IntoView {
    let cancel = ServerAction::<CancelSession>::new();
    effect(move || {
        if let Some(answer) = cancel.value().get() {
            actions.changed(id, answer);
        }
    });
    let button = format!("cancel-{id}");
    keep_focus_of_removed(button.clone(), id);
    view! {
        <ActionForm action=cancel>
            <input type="hidden" name="id" value=id.to_string()/>
            <button class="button quiet" id=button data-testid="cancel" disabled=cancel.pending() on:click=move |_| keep_focus(id)>
                <Icon symbol=Symbol::Cancelled/>
                <span>"Cancel" <OfSession title/></span>
            </button>
        </ActionForm>
    }
}

/// Queues a session again.
#[component]
pub fn RetryButton(
    actions: Actions,
    id: SessionId,
    /// The session's title, for screen readers.
    #[prop(into)]
    title: Signal<String>,
) -> impl IntoView {
    let retry = ServerAction::<RetrySession>::new();
    effect(move || {
        if let Some(answer) = retry.value().get() {
            actions.changed(id, answer);
        }
    });
    let button = format!("retry-{id}");
    keep_focus_of_removed(button.clone(), id);
    view! {
        <ActionForm action=retry>
            <input type="hidden" name="id" value=id.to_string()/>
            <button class="button quiet" id=button data-testid="retry" disabled=retry.pending() on:click=move |_| keep_focus(id)>
                <Icon symbol=Symbol::Retry/>
                <span>"Retry" <OfSession title/></span>
            </button>
        </ActionForm>
    }
}

/// Deletes a session, after a second click. In a list the first one is enough, because it can be undone, once the app runs.
#[component]
pub fn DeleteButton(
    actions: Actions,
    id: SessionId,
    /// The session's title, for screen readers.
    #[prop(into)]
    title: Signal<String>,
    /// Whether it is in a list, where a deletion can be undone.
    #[prop(optional)]
    undo: bool,
) -> impl IntoView {
    let clock = Clock::expect();
    let deletions = Deletions::expect();
    let at_once = move || undo && clock.is_hydrated();
    let delete = ServerAction::<DeleteSession>::new();
    let details = NodeRef::new();
    // What the list that led to the session's page was searched and filtered by: without scripts nobody knows.
    let list = RwSignal::new(String::new());
    if !undo {
        effect(move || {
            let kept = dom::kept(LIST_ADDRESS).unwrap_or_default();
            list.set(kept.strip_prefix("/?").unwrap_or_default().to_owned());
        });
    }
    effect(move || {
        if let Some(answer) = delete.value().get() {
            actions.deleted(id, answer);
        }
    });
    view! {
        // `<details>` asks for confirmation with and without JavaScript.
        <details class="confirm" node_ref=details hidden=at_once on:keydown=move |event| {
            if event.key() == "Escape" && dom::close(details) {
                // It would pause the player.
                event.prevent_default();
            }
        }>
            <summary class="button quiet" data-testid="delete">
                <Icon symbol=Symbol::Delete/>
                <span>"Delete" <OfSession title/></span>
            </summary>
            <ActionForm action=delete>
                <input type="hidden" name="id" value=id.to_string()/>
                <input type="hidden" name="list" value=move || list.get()/>
                <p>"The recording and its transcript will be gone for good."</p>
                <button class="button danger" data-testid="confirm-delete" disabled=delete.pending()>
                    "Delete for good"
                </button>
            </ActionForm>
        </details>
        {undo.then(|| view! {
            <button
                class="button quiet"
                type="button"
                data-testid="row-delete"
                hidden=move || !at_once()
                on:click=move |_| deletions.begin(vec![(id, title.get_untracked())])
            >
                <Icon symbol=Symbol::Delete/>
                <span>"Delete" <OfSession title/></span>
            </button>
        })}
    }
}
