//! A button that transcribes the bundled sample, for a first look without a recording at hand.

use super::{Alert, Icon, Symbol};
use crate::api::{failed_form, upload::TrySample};
use leptos::{form::ActionForm, prelude::*, server_fn::ServerFn};

/// The button. What goes wrong is shown beneath it.
#[component]
pub fn TrySampleButton() -> impl IntoView {
    // The answer leads to the session.
    let sample = ServerAction::<TrySample>::new();
    let failed = failed_form(&[TrySample::PATH]);
    let error = move || match sample.value().get() {
        Some(answer) => answer.err(),
        None => failed.clone(),
    };
    view! {
        <ActionForm action=sample>
            <button class="button quiet" data-testid="try-sample" disabled=sample.pending()>
                <Icon symbol=Symbol::Play/>
                "Try a sample"
            </button>
        </ActionForm>
        {move || error().map(|error| view! { <Alert message=error.message/> })}
    }
}
