//! The notice of a deletion that can still be undone. It stands first in the page, where Tab finds it, and at the bottom of the
//! window, where people see it.

use super::Alert;
use crate::app::{deletions::Deletions, detours::live_text};
use leptos::prelude::*;

/// The notice, and the error if the deletion failed.
#[component]
pub fn UndoNotice() -> impl IntoView {
    let deletions = Deletions::expect();
    let words = Memo::new(move |_| deletions.words());
    let hold = move |on: bool| deletions.is_held.set_value(on);
    view! {
        <div
            class="undo"
            role="group"
            aria-label="Deleted"
            data-testid="undo-notice"
            hidden=move || words.with(Option::is_none)
            on:mouseenter=move |_| hold(true)
            on:mouseleave=move |_| hold(false)
            on:focusin=move |_| hold(true)
            on:focusout=move |_| hold(false)
        >
            <span dir="auto" inner_html=move || words.with(|words| words.as_ref().map(live_text).unwrap_or_default())></span>
            <button class="button" type="button" data-testid="undo" on:click=move |_| deletions.undo()>"Undo"</button>
        </div>
        {move || deletions.error.get().map(|error| view! {
            <Alert message=error/>
            <button class="button quiet" type="button" on:click=move |_| deletions.error.set(None)>"Dismiss"</button>
        })}
    }
}
