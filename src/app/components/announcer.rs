//! The one polite live region: screen readers announce stages, quarters and ends, and not every tick of progress.

use crate::{
    app::{detours::live_text, effect, words},
    model::Status,
};
use leptos::prelude::*;
use std::time::Duration;

/// The time after which an announcement is cleared: long enough for any screen reader to read it out.
const CLEAR_AFTER: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
struct Announcement(RwSignal<String>);

/// Puts the text of the live region into the context.
pub fn provide_announcer() {
    provide_context(Announcement(RwSignal::new(String::new())));
}

/// The live region. It is empty until something is announced.
#[component]
pub fn Announcer() -> impl IntoView {
    let Announcement(text) = expect_context();
    // Cleared, so that somebody who moves through the page later doesn't come upon an old announcement. Each has its own time.
    effect(move || {
        if !text.with(String::is_empty)
            && let Ok(timer) = set_timeout_with_handle(move || text.set(String::new()), CLEAR_AFTER)
        {
            on_cleanup(move || timer.clear());
        }
    });
    view! { <div class="hidden" role="status" aria-live="polite" data-testid="announcer" inner_html=move || live_text(text.get())></div> }
}

/// Returns a function that announces a text. It also works where there is no context, such as after a request.
pub fn use_announcer() -> impl Fn(String) + Copy {
    let announcement = use_context::<Announcement>();
    move |text| {
        if let Some(Announcement(signal)) = announcement {
            signal.set(text);
        }
    }
}

/// Announces the milestones of a session while the current reactive owner lives; only its end if `ends_only`.
pub fn announce_milestones(title: Signal<String>, status: Memo<Status>, ends_only: bool) {
    let announcement = use_context::<Announcement>();
    Effect::new(move |before: Option<_>| {
        let now = status.with(words::milestone);
        let reached = before.is_some_and(|before| before != now) && (!ends_only || now.0.is_terminal());
        if let (true, Some(Announcement(signal))) = (reached, announcement) {
            signal.set(status.with_untracked(|s| words::announcement(&title.get_untracked(), s)));
        }
        now
    });
}
