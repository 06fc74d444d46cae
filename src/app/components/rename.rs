//! A form to change a session's title, within a `<details>` element. It lies over the heading, so that nothing moves.

use super::{Symbol, reload};
use crate::{
    api::sessions::RenameSession,
    app::{actions::Actions, effect},
    feed::browser::dom,
    model::{SessionId, Title, page::RENAME},
};
use leptos::{form::ActionForm, html, prelude::*};
use leptos_router::hooks::use_query_map;

/// The button's icon and word while the form is closed, and those while it is open. Styles show one of the two.
fn words() -> String {
    format!(
        "<span class=\"when-closed\">{}<span>Rename</span></span><span class=\"when-open\">{}<span>Close</span></span>",
        Symbol::Edit.svg(),
        Symbol::Close.svg()
    )
}

/// The form, and the button that opens it.
#[component]
pub fn Rename(
    actions: Actions,
    id: SessionId,
    #[prop(into)] title: Signal<String>,
    /// Whether the session runs.
    running: Memo<bool>,
) -> impl IntoView {
    let details = NodeRef::<html::Details>::new();
    let field = NodeRef::<html::Input>::new();
    let rename = ServerAction::<RenameSession>::new();
    effect(move || {
        if let Some(answer) = rename.value().get() {
            if answer.is_ok() {
                dom::close(details);
            }
            actions.renamed(id, answer);
        }
    });
    // Without JavaScript the page would reload while one types, so there a link takes the place of the button. It leads to a page
    // that doesn't reload, with the form open.
    let open = use_query_map().with_untracked(|params| params.get_str(RENAME).is_some());
    let paused = reload::paused();
    let reloads = Memo::new(move |_| running.get() && !paused());
    let link = move || {
        format!(
            "<a class=\"button quiet rename-link\" href=\"/sessions/{id}?{}&amp;{RENAME}=on\" \
             data-testid=\"rename-link\">{}</a>",
            reload::OFF,
            words()
        )
    };
    view! {
        <Show when=move || reloads.get()><noscript inner_html=link></noscript></Show>
        <details
            class="rename"
            open=open
            data-reloads=move || reloads.get().then_some("")
            node_ref=details
            on:keydown=move |event| {
                if event.key() == "Escape" && dom::close(details) {
                    // It would pause the player.
                    event.prevent_default();
                }
            }
        >
            <summary class="button quiet" data-testid="rename" inner_html=words() on:click=move |event| {
                // Opened here and not by the browser, which would do it only after this.
                event.prevent_default();
                if !dom::close(details) {
                    dom::open(details, field, &title.get_untracked());
                }
            }></summary>
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
                    autofocus=open
                    node_ref=field
                    data-testid="rename-input"
                />
                <button class="button" data-testid="rename-save" disabled=rename.pending()>"Save"</button>
            </ActionForm>
        </details>
    }
}
