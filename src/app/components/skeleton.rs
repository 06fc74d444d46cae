//! What stands in the place of a page while its data is on the way. Never seen on a first visit: the server waits.

use leptos::prelude::*;

/// The place of a list.
#[component]
pub fn ListSkeleton() -> impl IntoView {
    view! {
        <div class="rows" aria-hidden="true">
            {(0..4).map(|_| view! { <div class="row skeleton"><span class="bone"></span><span class="bone short"></span></div> }).collect_view()}
        </div>
        <p class="hidden" role="status">"Loading"</p>
    }
}

/// The place of a session, or of the upload form.
#[component]
pub fn PageSkeleton() -> impl IntoView {
    view! {
        <div class="skeleton" aria-hidden="true">
            <span class="bone title"></span>
            <div class="card"><span class="bone"></span><span class="bone short"></span><span class="bone"></span></div>
        </div>
        <p class="hidden" role="status">"Loading"</p>
    }
}
