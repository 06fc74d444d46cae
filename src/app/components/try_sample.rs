//! A button that transcribes the bundled sample, to try Hark without a recording of one's own.

use super::{Alert, Icon, Symbol};
use crate::api::{failed_form, upload::TrySample};
use leptos::{form::ActionForm, prelude::*, server_fn::ServerFn};

/// The button. An error is shown below it.
#[component]
pub fn TrySampleButton() -> impl IntoView {
    // The server's answer redirects to the session.
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
