//! The buttons cancel, retry and delete: forms that work without JavaScript. Each is disabled while its request is pending.

use super::{Icon, Symbol};
use crate::{
    api::sessions::{CancelSession, DeleteSession, RetrySession},
    app::actions::Actions,
    model::SessionId,
};
use leptos::{form::ActionForm, prelude::*};

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
    Effect::new(move || {
        if let Some(answer) = cancel.value().get() {
            actions.changed(answer);
        }
    });
    view! {
        <ActionForm action=cancel>
            <input type="hidden" name="id" value=id.to_string()/>
            <button class="button quiet" data-testid="cancel" disabled=cancel.pending()>
                <Icon symbol=Symbol::Cancelled/>
                <span>"Cancel"<span class="hidden">" " {title}</span></span>
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
    Effect::new(move || {
        if let Some(answer) = retry.value().get() {
            actions.changed(answer);
        }
    });
    view! {
        <ActionForm action=retry>
            <input type="hidden" name="id" value=id.to_string()/>
            <button class="button quiet" data-testid="retry" disabled=retry.pending()>
                <Icon symbol=Symbol::Retry/>
                <span>"Retry"<span class="hidden">" " {title}</span></span>
            </button>
        </ActionForm>
    }
}

/// Deletes a session, after a second click.
#[component]
pub fn DeleteButton(
    actions: Actions,
    id: SessionId,
    /// The session's title, for screen readers.
    #[prop(into)]
    title: Signal<String>,
) -> impl IntoView {
    let delete = ServerAction::<DeleteSession>::new();
    Effect::new(move || {
        if let Some(answer) = delete.value().get() {
            actions.deleted(id, answer);
        }
    });
    view! {
        // `<details>` asks for confirmation with and without JavaScript.
        <details class="confirm">
            <summary class="button quiet" data-testid="delete">
                <Icon symbol=Symbol::Delete/>
                <span>"Delete"<span class="hidden">" " {title}</span></span>
            </summary>
            <ActionForm action=delete>
                <input type="hidden" name="id" value=id.to_string()/>
                <p>"The recording and its transcript will be gone for good."</p>
                <button class="button danger" data-testid="confirm-delete" disabled=delete.pending()>
                    "Delete for good"
                </button>
            </ActionForm>
        </details>
    }
}
