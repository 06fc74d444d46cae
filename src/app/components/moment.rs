//! A date and time: in UTC as the server renders it, and in the browser's time zone once hydrated.

use crate::{
    app::clock::Clock,
    feed::browser::dom,
    model::{Timestamp, text},
};
use leptos::prelude::*;

/// A date and time.
#[component]
pub fn Moment(at: Timestamp) -> impl IntoView {
    let clock = Clock::expect();
    let words = move || if clock.is_hydrated() { dom::local_date_time(at) } else { text::date_time(at) };
    view! { <time datetime=at.to_string() inner_html=words></time> }
}
