//! The one polite live region: screen readers hear of stages, quarters and ends, not of every tick.

use crate::{app::words, model::Status};
use leptos::prelude::*;
use std::time::Duration;

/// Long enough for any screen reader to have taken it up.
const KEPT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
struct Announcement(RwSignal<String>);

/// Puts what [`announce`] and [`Announcer`] need into the context.
pub fn provide_announcer() {
    provide_context(Announcement(RwSignal::new(String::new())));
}

/// The live region. It is empty until something is announced.
#[component]
pub fn Announcer() -> impl IntoView {
    let Announcement(text) = expect_context();
    // What was spoken is old news to whoever comes across it later.
    Effect::new(move || {
        if !text.with(String::is_empty) {
            set_timeout(move || text.set(String::new()), KEPT);
        }
    });
    view! { <div class="hidden" role="status" aria-live="polite" data-testid="announcer">{move || text.get()}</div> }
}

/// What has sentences spoken, also where there is no context any more, such as after a request.
pub fn announcing() -> impl Fn(String) + Copy {
    let announcement = use_context::<Announcement>();
    move |text| {
        if let Some(Announcement(signal)) = announcement {
            signal.set(text);
        }
    }
}

/// Has the milestones of a session spoken while the current reactive owner lives; only its end if `ends_only`.
pub fn announce_milestones(title: Signal<String>, status: Memo<Status>, ends_only: bool) {
    let announcement = use_context::<Announcement>();
    Effect::new(move |before: Option<_>| {
        let now = status.with(words::milestone);
        let news = before.is_some_and(|before| before != now) && (!ends_only || now.0.is_terminal());
        if let (true, Some(Announcement(signal))) = (news, announcement) {
            signal.set(status.with_untracked(|s| words::announcement(&title.get_untracked(), s)));
        }
        now
    });
}
