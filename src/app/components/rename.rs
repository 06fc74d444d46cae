//! A form to change a session's title, within a `<details>` element.

use super::{Icon, Symbol};
use crate::{
    api::sessions::RenameSession,
    app::{
        actions::{Actions, RENAME},
        effect,
    },
    feed::browser::dom,
    model::{SessionId, Title},
};
use leptos::{form::ActionForm, prelude::*};

/// The form. `title` is the initial content of the field.
#[component]
pub fn Rename(actions: Actions, id: SessionId, #[prop(into)] title: Signal<String>) -> impl IntoView {
    let open = RwSignal::new(false);
    let rename = ServerAction::<RenameSession>::new();
    effect(move || {
        if let Some(answer) = rename.value().get() {
            if answer.is_ok() {
                open.set(false);
            }
            actions.renamed(id, answer);
        }
    });
    view! {
        <details class="rename" prop:open=move || open.get() on:keydown=move |event| {
            if event.key() == "Escape" && open.get_untracked() {
                open.set(false);
                dom::focus(RENAME);
            }
        }>
            <summary class="button quiet" id=RENAME data-testid="rename" on:click=move |event| {
                // The signal opens and closes the form, so that it can be closed once the title is saved.
                event.prevent_default();
                open.update(|open| *open = !*open);
            }><Icon symbol=Symbol::Edit/>"Rename"</summary>
            <ActionForm action=rename>
                <input type="hidden" name="id" value=id.to_string()/>
                <label class="hidden" for="new-title">"New title"</label>
                <input
                    class="input"
                    id="new-title"
                    name="title"
                    dir="auto"
                    required=true
                    maxlength=Title::MAX_CHARS.to_string()
                    value=title.get_untracked()
                    autocomplete="off"
                    data-testid="rename-input"
                />
                <button class="button" data-testid="rename-save" disabled=rename.pending()>"Save"</button>
            </ActionForm>
        </details>
    }
}
