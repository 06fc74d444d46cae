//! The page for an unknown address and for a session that doesn't exist. The server answers with status 404.

use crate::api::set_not_found;
use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::components::A;

/// The page for an unknown address.
#[component]
pub fn NotFoundPage() -> impl IntoView {
    view! { <NotFound heading="There is no such page" text="The address may have been typed wrong, or the page has moved."/> }
}

/// Says that something doesn't exist, and links to the list.
#[component]
pub fn NotFound(heading: &'static str, text: &'static str) -> impl IntoView {
    set_not_found();
    view! {
        <Title text="Not found · Hark"/>
        <section class="empty" data-testid="not-found">
            <svg class="empty-art" viewBox="0 0 120 40" aria-hidden="true" focusable="false">
                <path d="M4 20h30M44 14v12M54 6v28M64 17v6M74 12v16M84 20h32"></path>
            </svg>
            <h1>{heading}</h1>
            <p>{text}</p>
            <p class="empty-actions"><A href="/" attr:class="button primary">"All sessions"</A></p>
        </section>
    }
}
