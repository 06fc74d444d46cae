//! Cancel, retry and delete: plain forms underneath, so each works without JavaScript.

use super::{Icon, Symbol};
use crate::{
    api::sessions::{CancelSession, DeleteSession, RetrySession},
    model::SessionId,
};
use leptos::prelude::*;

/// Cancels a session.
#[component]
pub fn CancelButton(
    action: ServerAction<CancelSession>,
    id: SessionId,
    /// The session's title, for screen readers.
    #[prop(into)]
    title: Signal<String>,
) -> impl IntoView {
    view! {
        <ActionForm action=action>
            <input type="hidden" name="id" value=id.to_string()/>
            <button class="button quiet" data-testid="cancel" disabled=move || action.pending().get()>
                <Icon symbol=Symbol::Cancelled/>
                <span>"Cancel"<span class="hidden">" " {title}</span></span>
            </button>
        </ActionForm>
    }
}

/// Queues a session again.
#[component]
pub fn RetryButton(
    action: ServerAction<RetrySession>,
    id: SessionId,
    /// The session's title, for screen readers.
    #[prop(into)]
    title: Signal<String>,
) -> impl IntoView {
    view! {
        <ActionForm action=action>
            <input type="hidden" name="id" value=id.to_string()/>
            <button class="button quiet" data-testid="retry" disabled=move || action.pending().get()>
                <Icon symbol=Symbol::Retry/>
                <span>"Retry"<span class="hidden">" " {title}</span></span>
            </button>
        </ActionForm>
    }
}

/// Deletes a session, after a second click.
#[component]
pub fn DeleteButton(
    action: ServerAction<DeleteSession>,
    id: SessionId,
    /// The session's title, for screen readers.
    #[prop(into)]
    title: Signal<String>,
) -> impl IntoView {
    view! {
        // The browser's own disclosure: it asks with and without JavaScript.
        <details class="confirm">
            <summary class="button quiet" data-testid="delete">
                <Icon symbol=Symbol::Delete/>
                <span>"Delete"<span class="hidden">" " {title}</span></span>
            </summary>
            <ActionForm action=action>
                <input type="hidden" name="id" value=id.to_string()/>
                <p>"The recording and its transcript will be gone for good."</p>
                <button class="button danger" data-testid="confirm-delete" disabled=move || action.pending().get()>
                    "Delete for good"
                </button>
            </ActionForm>
        </details>
    }
}
