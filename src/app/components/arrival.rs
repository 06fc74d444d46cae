//! When a session will be done: a time of day or a range of two, and once the page is hydrated the time until then.

use crate::{
    app::{clock::Clock, words},
    feed::browser::dom,
    model::{ArrivalRange, Status, text},
};
use leptos::prelude::*;

/// The arrival time, while there is one: `done about 14:32, in 2 min`.
#[component]
pub fn Arrival(status: Memo<Status>) -> impl IntoView {
    let clock = Clock::expect();
    let range = Memo::new(move |before: Option<&ArrivalRange>| {
        let mut range = before.cloned().unwrap_or_default();
        status.with(|status| range.note(status.timestamp, words::arrival(status)));
        range
    });
    let time = move |at| if clock.is_hydrated() { dom::local_time(at) } else { text::time_of_day(at) };
    let words = move || {
        status.with(words::arrival).map(|at| {
            let until = clock
                .now()
                .map(|now| format!(", {}", words::time_until(at, dom::to_server_time(now))))
                .unwrap_or_default();
            match range.with(|range| range.range().map(|(from, to)| (time(from), time(to)))) {
                // A range within the same minute is shown as one time.
                Some((from, to)) if from != to => format!("done between {from} and {to}{until}"),
                _ => format!("done about {}{until}", time(at)),
            }
        })
    };
    move || words().map(|words| view! { <span class="fact" data-testid="eta" inner_html=words></span> })
}
