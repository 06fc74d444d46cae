//! A button that transcribes the bundled sample, for a first look without a recording at hand.

use super::{Icon, Symbol};
use crate::api::upload::TrySample;
use leptos::prelude::*;

/// The button. What goes wrong is shown beneath it.
#[component]
pub fn TrySampleButton() -> impl IntoView {
    let action = ServerAction::<TrySample>::new();
    let error = move || action.value().with(|v| v.as_ref().and_then(|r| r.as_ref().err().map(|e| e.message.clone())));
    view! {
        <ActionForm action=action>
            <button class="button quiet" data-testid="try-sample" disabled=move || action.pending().get()>
                <Icon symbol=Symbol::Play/>
                "Try a sample"
            </button>
        </ActionForm>
        {move || error().map(|message| view! { <super::Alert message/> })}
    }
}
