//! The frame of every page: the header with name, navigation and live badge, and the footer.

use super::{Badge, Icon, Symbol, ThemeSelect};
use crate::app::uploads::Uploads;
use leptos::prelude::*;
use leptos_router::components::A;

/// The header.
#[component]
pub fn Header() -> impl IntoView {
    let queue = Uploads::expect().queue;
    let open = Memo::new(move |_| queue.with(|queue| queue.open()));
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
                    <A href="/">"Sessions"</A>
                    <A href="/upload">
                        <Icon symbol=Symbol::Plus/>
                        "New"
                        <Show when=move || { open.get() > 0 }>
                            <span class="count" data-testid="uploads-open">
                                <span inner_html=move || open.get().to_string()></span>
                                <span class="hidden">" being uploaded"</span>
                            </span>
                        </Show>
                    </A>
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
            <p><A href="/identity">"Your sessions on another device"</A></p>
            <p><A href="/models">"Speech models"</A></p>
            <p><a href="/api/openapi.json" rel="external">"API"</a></p>
            <ThemeSelect/>
        </footer>
    }
}
