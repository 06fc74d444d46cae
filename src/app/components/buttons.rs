//! Cancel, retry and delete: plain forms underneath, so each works without JavaScript.

use super::{Icon, Symbol};
use crate::{
    app::actions::{Actions, Change},
    model::SessionId,
};
use leptos::{ev, prelude::*};

/// The form around a button that changes a session: handled in the browser once hydrated, and sent by it without that.
#[component]
pub fn ChangeForm(actions: Actions, id: SessionId, change: Change, children: Children) -> impl IntoView {
    view! {
        <form method="post" action=change.url() on:submit=move |event: ev::SubmitEvent| {
            event.prevent_default();
            actions.change(id, change);
        }>
            <input type="hidden" name="id" value=id.to_string()/>
            {children()}
        </form>
    }
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
    view! {
        <ChangeForm actions id change=Change::Cancel>
            <button class="button quiet" data-testid="cancel" disabled=move || actions.busy()>
                <Icon symbol=Symbol::Cancelled/>
                <span>"Cancel"<span class="hidden">" " {title}</span></span>
            </button>
        </ChangeForm>
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
    view! {
        <ChangeForm actions id change=Change::Retry>
            <button class="button quiet" data-testid="retry" disabled=move || actions.busy()>
                <Icon symbol=Symbol::Retry/>
                <span>"Retry"<span class="hidden">" " {title}</span></span>
            </button>
        </ChangeForm>
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
    view! {
        // The browser's own disclosure: it asks with and without JavaScript.
        <details class="confirm">
            <summary class="button quiet" data-testid="delete">
                <Icon symbol=Symbol::Delete/>
                <span>"Delete"<span class="hidden">" " {title}</span></span>
            </summary>
            <ChangeForm actions id change=Change::Delete>
                <p>"The recording and its transcript will be gone for good."</p>
                <button class="button danger" data-testid="confirm-delete" disabled=move || actions.busy()>
                    "Delete for good"
                </button>
            </ChangeForm>
        </details>
    }
}
