//! Buttons that copy the transcript: its lines, or the selected part of them, without times; or all of it as Markdown. Where the
//! browser doesn't let the page copy, the text is shown, so that people can copy it themselves.

use super::use_announcer;
use crate::{
    feed::{Copied, browser::dom},
    model::SessionId,
};
use leptos::{html, prelude::*};

/// The buttons, which work once the app runs.
#[component]
pub fn CopyButtons(
    id: SessionId,
    /// Whether there is something to copy.
    has_lines: Memo<bool>,
) -> impl IntoView {
    let ready = RwSignal::new(false);
    Effect::new(move || ready.set(true));
    let done = RwSignal::new("");
    let is_refused = RwSignal::new(false);
    // Shows the text that the browser didn't copy.
    let field = NodeRef::<html::Textarea>::new();
    let announce = use_announcer();
    let button = move |label: &'static str, testid: &'static str, markdown: bool| {
        let copy = move |_| {
            dom::copy(markdown.then(|| format!("/api/v1/sessions/{id}/transcript.md")), field, move |copied| {
                let words = match copied {
                    Copied::Selection => "Copied the selection",
                    Copied::All if markdown => "Copied as Markdown",
                    Copied::All => "Copied all lines",
                    Copied::Refused => "",
                    Copied::NoAnswer => "The server can't be reached",
                };
                done.set(words);
                is_refused.set(copied == Copied::Refused);
                if !words.is_empty() {
                    announce(words.to_owned());
                }
            });
        };
        view! {
            // A press must not end the selection that is to be copied.
            <button class="button quiet" type="button" data-testid=testid
                on:mousedown=move |event| event.prevent_default() on:click=copy
            >{label}</button>
        }
    };
    view! {
        <div class="copy" hidden=move || !ready.get() || !has_lines.get()>
            {button("Copy", "copy", false)}
            {button("Copy as Markdown", "copy-markdown", true)}
            <span class="muted" data-testid="copied" inner_html=move || done.get()></span>
        </div>
        <div class="alert copy-refused" role="alert" data-testid="copy-refused" hidden=move || !is_refused.get()>
            <label for="copy-text">
                "Your browser doesn't let this page copy. Copy the text here: it is selected."
            </label>
            <textarea class="input" id="copy-text" dir="auto" rows="6" readonly node_ref=field></textarea>
            <button class="button" type="button" on:click=move |_| is_refused.set(false)>"Close"</button>
        </div>
    }
}
