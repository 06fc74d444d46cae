//! How updates came to this page since it was loaded: by stream or by polling, how late, and how many requests that took. Part
//! of a session's page, for whoever opens it; there is none before something was measured, and none without JavaScript.

use crate::{
    app::clock::Clock,
    feed::{browser, measure::Updates},
    model::{duration, text},
};
use leptos::prelude::*;

/// What was measured, within a `<details>` element.
#[component]
pub fn HowUpdatesCame() -> impl IntoView {
    let (clock, open) = (Clock::expect(), RwSignal::new(false));
    // Looked at once a second until there is something, and then only while somebody reads it.
    let updates = Memo::new(move |before: Option<&Option<Updates>>| match before.copied().flatten() {
        Some(known) if !open.get() => Some(known),
        _ => clock.now().and_then(|_| browser::updates()),
    });
    let row = move |name: &'static str, words: fn(&Updates) -> Option<String>| {
        move || {
            let words = updates.with(|updates| updates.as_ref().and_then(words));
            words.map(|words| view! { <div><dt>{name}</dt><dd>{words}</dd></div> })
        }
    };
    view! {
        <Show when=move || updates.with(Option::is_some)>
            <section class="card updates" aria-labelledby="updates-heading" data-testid="updates">
                <details prop:open=move || open.get()>
                    <summary on:click=move |event| {
                        event.prevent_default();
                        open.update(|open| *open = !*open);
                    }><h2 id="updates-heading">"How updates came"</h2></summary>
                    <dl class="facts-list">
                        {row("Way", |updates| Some(time_by_transport(updates)))}
                        {row("Delay", delays)}
                        {row("Requests", |updates| Some(requests(updates)))}
                    </dl>
                    <p class="muted">{move || updates.with(|updates| updates.as_ref().map(formula))}</p>
                </details>
            </section>
        </Show>
    }
}

/// For how long they came by which way.
fn time_by_transport(updates: &Updates) -> String {
    let secs = |ms: u64| duration((ms as f64 / 1000.0).max(1.0));
    match (updates.live_ms, updates.polling_ms) {
        (live, 0) => format!("Live, for {}", secs(live)),
        (0, polling) => format!("By asking every 3 s, for {}", secs(polling)),
        (live, polling) => format!("Live for {}, by asking every 3 s for {}", secs(live), secs(polling)),
    }
}

/// How late they came, if that is known of any.
fn delays(updates: &Updates) -> Option<String> {
    let time = |ms: f64| match ms {
        ms if ms < 999.5 => format!("{} ms", text::decimal(ms, 0)),
        ms => text::lapse(ms / 1000.0),
    };
    let (half, all) = (time(updates.half_within_ms), time(updates.all_within_ms));
    match updates.count {
        0 => None,
        1 => Some(format!("1 update, after {all}")),
        n if half == all => Some(format!("{n} updates within {all}")),
        n => Some(format!("{n} updates: half of them within {half}, all within {all}")),
    }
}

/// The requests that polling would have made.
fn by_polling(updates: &Updates) -> u64 {
    updates.polls() + updates.segments
}

/// The requests that were made, and how many were saved.
fn requests(updates: &Updates) -> String {
    let (made, polling) = (updates.requests, by_polling(updates));
    match polling.saturating_sub(made) {
        0 => format!("{made} made"),
        saved => format!("{made} made, {saved} saved"),
    }
}

/// How the saved requests are counted.
fn formula(updates: &Updates) -> String {
    let (polls, lines) = (updates.polls() - 1, updates.segments);
    let watched = duration(updates.online_ms as f64 / 1000.0);
    let (for_lines, plus) = match lines {
        0 => (String::new(), String::new()),
        n => (format!(", and {n} for lines of the transcript, as were made"), format!(" + {n}")),
    };
    format!(
        "Since this page was loaded. Asking every 3 s would take 1 request at once and then {polls} in {watched}{for_lines}: \
         1 + {polls}{plus} = {}.",
        by_polling(updates)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updates() -> Updates {
        Updates {
            live_ms: 124_600,
            polling_ms: 0,
            online_ms: 125_000,
            count: 98,
            half_within_ms: 50.0,
            all_within_ms: 312.4,
            requests: 3,
            segments: 2,
        }
    }

    #[test]
    fn the_way_is_told_with_its_time() {
        let at = |live_ms, polling_ms| time_by_transport(&Updates { live_ms, polling_ms, ..updates() });
        assert_eq!(at(124_600, 0), "Live, for 2 min 5 s");
        assert_eq!(at(0, 12_000), "By asking every 3 s, for 12 s");
        assert_eq!(at(60_000, 3_000), "Live for 1 min, by asking every 3 s for 3 s");
        assert_eq!(at(300, 0), "Live, for 1 s");
    }

    #[test]
    fn delays_are_told_where_they_are_known() {
        let at = |count, half_within_ms, all_within_ms| {
            delays(&Updates { count, half_within_ms, all_within_ms, ..updates() }).unwrap_or_default()
        };
        assert_eq!(at(98, 50.0, 312.4), "98 updates: half of them within 50 ms, all within 312 ms");
        assert_eq!(at(98, 1000.0, 2_940.0), "98 updates: half of them within 1.0 s, all within 2.9 s");
        assert_eq!(at(2, 4.0, 4.0), "2 updates within 4 ms");
        assert_eq!(at(1, 4.0, 4.0), "1 update, after 4 ms");
        assert_eq!(at(0, 0.0, 0.0), "");
    }

    #[test]
    fn saved_requests_are_told_with_the_formula() {
        assert_eq!(requests(&updates()), "3 made, 41 saved");
        let text = "Since this page was loaded. Asking every 3 s would take 1 request at once and then 41 in 2 min 5 s, \
                    and 2 for lines of the transcript, as were made: 1 + 41 + 2 = 44.";
        assert_eq!(formula(&updates()), text);
        let polling = Updates { online_ms: 12_000, requests: 7, segments: 0, ..updates() };
        assert_eq!(requests(&polling), "7 made", "nothing is saved by polling");
        assert!(formula(&polling).ends_with("at once and then 4 in 12 s: 1 + 4 = 5."), "{}", formula(&polling));
    }
}
