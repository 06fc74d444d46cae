//! A session's title with a form to change it, behind the browser's own disclosure.

use super::{Icon, Symbol};
use crate::{
    api::sessions::RenameSession,
    model::{SessionId, Title},
};
use leptos::prelude::*;

/// The form. `title` is what the field holds at first.
#[component]
pub fn Rename(
    action: ServerAction<RenameSession>,
    id: SessionId,
    #[prop(into)] title: Signal<String>,
) -> impl IntoView {
    let open = RwSignal::new(false);
    Effect::new(move || {
        if action.value().with(|v| matches!(v, Some(Ok(_)))) {
            open.set(false);
        }
    });
    view! {
        <details class="rename" prop:open=move || open.get()>
            <summary class="button quiet" data-testid="rename" on:click=move |event| {
                // The signal opens and closes it, so that a saved title can close it.
                event.prevent_default();
                open.update(|open| *open = !*open);
            }><Icon symbol=Symbol::Edit/>"Rename"</summary>
            <ActionForm action=action>
                <input type="hidden" name="id" value=id.to_string()/>
                <label class="hidden" for="new-title">"New title"</label>
                <input
                    class="input"
                    id="new-title"
                    name="title"
                    required=true
                    maxlength=Title::MAX_CHARS.to_string()
                    value=title.get_untracked()
                    autocomplete="off"
                    data-testid="rename-input"
                />
                <button class="button" data-testid="rename-save" disabled=move || action.pending().get()>"Save"</button>
            </ActionForm>
        </details>
    }
}
