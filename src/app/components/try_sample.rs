//! A button that transcribes the bundled sample, for a first look without a recording at hand.

use super::{Alert, Icon, Symbol};
use crate::{
    api::upload::{TrySample, try_sample},
    app::actions::Errand,
};
use leptos::{ev, prelude::*, server_fn::ServerFn};

/// The button. What goes wrong is shown beneath it.
#[component]
pub fn TrySampleButton() -> impl IntoView {
    let errand = Errand::new(&[TrySample::PATH]);
    let on_submit = move |event: ev::SubmitEvent| {
        event.prevent_default();
        // The answer leads to the session.
        errand.run(try_sample(), |()| {});
    };
    view! {
        <form method="post" action=TrySample::url() on:submit=on_submit>
            <button class="button quiet" data-testid="try-sample" disabled=move || errand.busy.get()>
                <Icon symbol=Symbol::Play/>
                "Try a sample"
            </button>
        </form>
        {move || errand.error.get().map(|error| view! { <Alert message=error.message/> }.into_any())}
    }
}
