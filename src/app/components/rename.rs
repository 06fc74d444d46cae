//! A session's title with a form to change it, behind the browser's own disclosure.

use super::{Icon, Symbol};
use crate::{
    api::sessions::RenameSession,
    app::{actions::Actions, reactive::effect},
    model::{SessionId, Title},
};
use leptos::{ev, html, prelude::*, server_fn::ServerFn};

/// The form. `title` is what the field holds at first.
#[component]
pub fn Rename(actions: Actions, id: SessionId, #[prop(into)] title: Signal<String>) -> impl IntoView {
    let open = RwSignal::new(false);
    effect(move || {
        if actions.renamed.with(Option::is_some) {
            open.set(false);
        }
    });
    let input = NodeRef::<html::Input>::new();
    let on_submit = move |event: ev::SubmitEvent| {
        event.prevent_default();
        if let Some(input) = input.get_untracked() {
            actions.rename(id, input.value());
        }
    };
    view! {
        <details class="rename" prop:open=move || open.get()>
            <summary class="button quiet" data-testid="rename" on:click=move |event| {
                // The signal opens and closes it, so that a saved title can close it.
                event.prevent_default();
                open.update(|open| *open = !*open);
            }><Icon symbol=Symbol::Edit/>"Rename"</summary>
            <form method="post" action=RenameSession::url() on:submit=on_submit>
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
                    node_ref=input
                />
                <button class="button" data-testid="rename-save" disabled=move || actions.busy()>"Save"</button>
            </form>
        </details>
    }
}
