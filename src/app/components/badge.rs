//! How updates reach the page: one word in the header, a sentence beside the progress.

use crate::feed::{Feed, Mode};
use leptos::prelude::*;

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "off",
        Mode::Connecting => "connecting",
        Mode::Live => "live",
        Mode::Polling => "polling",
        Mode::Offline => "offline",
    }
}

/// The word in the header.
#[component]
pub fn Badge() -> impl IntoView {
    let mode = Feed::expect().mode;
    let words = move || match mode.get() {
        Mode::Off => "Idle",
        Mode::Connecting => "Connecting",
        Mode::Live => "Live",
        Mode::Polling => "Polling every 3 s",
        Mode::Offline => "Offline",
    };
    view! {
        <span class="badge" data-testid="badge" data-mode=move || name(mode.get())>
            <span class="dot" aria-hidden="true"></span>
            <span class="hidden">"Updates: "</span>
            {words}
        </span>
    }
}

/// The sentence beside the progress of a session that runs.
#[component]
pub fn Connection() -> impl IntoView {
    let mode = Feed::expect().mode;
    let words = move || match mode.get() {
        Mode::Off => "As of when this page was loaded",
        Mode::Connecting => "Connecting for live updates",
        Mode::Live => "Live: changes show as they happen",
        Mode::Polling => "The live stream is blocked: asking every 3 s",
        Mode::Offline => "Offline: going on once the network is back",
    };
    view! {
        <p class="connection" data-testid="connection" data-mode=move || name(mode.get())>
            <span class="dot" aria-hidden="true"></span>
            {words}
        </p>
    }
}
