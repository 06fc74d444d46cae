//! When a session will be done: the time of day, and how long until then once the browser's clock may be used.

use crate::{
    app::{clock::Clock, words},
    feed::browser::dom,
    model::{Status, text},
};
use leptos::prelude::*;

/// The arrival time, while there is one: `done about 14:32, in 2 min`.
#[component]
pub fn Arrival(status: Memo<Status>) -> impl IntoView {
    let clock = Clock::expect();
    let arrival = Memo::new(move |_| status.with(words::arrival));
    let words = move || {
        arrival.get().map(|at| {
            let time = if clock.is_awake() { dom::local_time(at) } else { text::time_of_day(at) };
            let until = clock.now().map(|now| format!(", {}", words::until(at, now))).unwrap_or_default();
            format!("done about {time}{until}")
        })
    };
    move || words().map(|words| view! { <span class="fact" data-testid="eta">{words}</span> })
}
