//! What stands around every page: the header with name, ways and live badge, and the footer.

use super::{Badge, Icon, Symbol};
use crate::app::{reactive::memo, uploads::Uploads};
use leptos::prelude::*;
use leptos_router::hooks::use_location;

/// The header.
#[component]
pub fn Header() -> impl IntoView {
    let queue = Uploads::expect().queue;
    let open = memo(move |_| queue.with(|queue| queue.open()));
    let path = use_location().pathname;
    let here = move |link: &str| path.with(|path| path == link).then_some("page");
    view! {
        <header class="header">
            <div class="header-inner">
                <a class="wordmark" href="/" aria-label="Hark, home">
                    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
                        <path d="M5 13v6M10.5 8v16M16 4v24M21.5 10v12M27 14v4"></path>
                    </svg>
                    <span>"Hark"</span>
                </a>
                <nav class="nav" aria-label="Main">
                    <a href="/" aria-current=move || here("/")>"Sessions"</a>
                    <a href="/upload" aria-current=move || here("/upload")>
                        <Icon symbol=Symbol::Plus/>
                        "New"
                        {move || (open.get() > 0).then(|| view! {
                            <span class="count" data-testid="uploads-open">{open}<span class="hidden">" being uploaded"</span></span>
                        }.into_any())}
                    </a>
                </nav>
                <Badge/>
            </div>
        </header>
    }
}

/// The footer.
#[component]
pub fn Footer() -> impl IntoView {
    view! {
        <footer class="footer">
            <p>"Hark, transcription on your own server"</p>
            <p><a href="/identity">"Your sessions on another device"</a></p>
            <p><a href="/api/openapi.json" rel="external">"API"</a></p>
        </footer>
    }
}
