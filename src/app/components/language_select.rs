//! The choice of the recording's language, among those that the chosen engine knows.

use crate::model::page::LanguageInfo;
use leptos::{html, prelude::*};

/// The select element. The first option leaves the choice to the engine. What the chosen engine doesn't know can't be
/// chosen; without JavaScript all can be, and the server refuses what doesn't fit.
#[component]
pub fn LanguageSelect(
    languages: Vec<LanguageInfo>,
    /// Whether the chosen engine knows a language, by its tag.
    #[prop(into)]
    knows: Callback<(String,), bool>,
    /// Called when another language was chosen.
    #[prop(into)]
    on_change: Callback<()>,
    /// Set to the element.
    select: NodeRef<html::Select>,
) -> impl IntoView {
    let options = languages.into_iter().map(|LanguageInfo { tag, name }| {
        let unknown = {
            let tag = tag.clone();
            Memo::new(move |_| !knows.run((tag.clone(),)))
        };
        view! { <option value=tag hidden=unknown disabled=unknown>{name}</option> }
    });
    view! {
        <select
            class="input"
            id="language"
            name="language"
            data-testid="language-select"
            node_ref=select
            on:change=move |_| on_change.run(())
        >
            <option value="">"Let the engine decide"</option>
            {options.collect_view()}
        </select>
    }
}
