//! Placeholders for a page while its data is loaded. They aren't shown on a first visit, because the server waits for the data.

use leptos::prelude::*;

/// The placeholder of a list.
#[component]
pub fn ListSkeleton() -> impl IntoView {
    view! {
        <div class="rows" aria-hidden="true">
            {(0..4).map(|_| view! { <div class="row skeleton"><span class="bone"></span><span class="bone short"></span></div> }).collect_view()}
        </div>
        <p class="hidden" role="status">"Loading"</p>
    }
}

/// The placeholder of a session or of the upload form.
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
