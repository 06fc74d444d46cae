//! When something was, relative to now, with the exact time as its title. The server, which knows no time zone, tells only hours.

use crate::{
    app::{RenderedAt, clock::Clock},
    feed::browser::{dom, list},
    model::{Timestamp, text},
};
use leptos::prelude::*;

/// How long ago a time was: `2 hours ago`, `yesterday`, `23 Nov 2026`.
#[component]
pub fn Ago(at: Timestamp) -> impl IntoView {
    let clock = Clock::expect();
    let rendered_at = use_context::<RenderedAt>().map(|RenderedAt(at)| at);
    let words = Memo::new(move |_| match (clock.minute(), rendered_at) {
        (Some(now), _) => list::ago(at, dom::to_server_time(now)),
        (None, Some(now)) => list::ago(at, now),
        (None, None) => text::date_time(at),
    });
    let exact = move || if clock.is_hydrated() { dom::local_date_time(at) } else { text::date_time(at) };
    view! { <time datetime=at.to_string() title=exact inner_html=move || words.get()></time> }
}
