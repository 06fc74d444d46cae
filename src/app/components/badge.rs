//! How updates reach the page: one word in the header, a sentence beside the progress, and a warning when nothing has
//! changed for long.

use crate::{
    app::{clock::Clock, words},
    feed::{Feed, Mode, browser::dom},
    model::{State, Status, Timestamp, duration},
};
use leptos::prelude::*;

/// A session that shows no change for this long may be stuck, in seconds.
const STALLED: f64 = 60.0;

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
        <span class="badge" data-testid="badge" data-mode=move || mode.get().name()>
            <span class="dot" aria-hidden="true"></span>
            <span class="hidden">"Updates: "</span>
            {words}
        </span>
    }
}

/// The sentence beside the progress of a session that runs.
#[component]
pub fn Connection() -> impl IntoView {
    let feed = Feed::expect();
    let (mode, clock) = (feed.mode, Clock::expect());
    let updated = Memo::new(move |_| {
        let (now, last) = (clock.now()?, feed.last_message.get()?);
        (mode.get() != Mode::Off).then(|| words::updated(last, now))
    });
    let words = move || match mode.get() {
        Mode::Off => "As of when this page was loaded",
        Mode::Connecting => "Connecting for live updates",
        Mode::Live => "Live: changes show as they happen",
        Mode::Polling => "The live stream is blocked: asking every 3 s",
        Mode::Offline => "Offline: going on once the network is back",
    };
    view! {
        <p class="connection" data-testid="connection" data-mode=move || mode.get().name()>
            <span class="dot" aria-hidden="true"></span>
            <span>
                {words}
                {move || updated.get().map(|updated| view! { <span data-testid="updated">{format!(", {updated}")}</span> })}
            </span>
        </p>
    }
}

/// Says that a session being processed has shown no change for a minute, and what can be done.
#[component]
pub fn StallWarning(status: Memo<Status>) -> impl IntoView {
    let clock = Clock::expect();
    // By the browser's clock, which may be wrong but runs evenly.
    let changed = RwSignal::new(None::<Timestamp>);
    let version = Memo::new(move |_| status.with(|s| s.version));
    Effect::new(move || {
        version.track();
        changed.set(dom::now());
    });
    let quiet = Memo::new(move |_| {
        let quiet = clock.now()?.seconds_since(changed.get()?);
        let minutes = (quiet / 60.0).floor() * 60.0; // so that it isn't written anew every second
        (quiet >= STALLED && status.with(|s| s.state == State::Processing)).then_some(minutes)
    });
    move || {
        quiet.get().map(|quiet| {
            view! {
                <div class="alert stalled" role="status" data-testid="stalled">
                    <div>
                        <p>{format!("Nothing has changed for {}.", duration(quiet))}</p>
                        <p>
                            "Long silence and slow machines look like this too. If it stays so, cancel the session and \
                             retry it: what has been heard is kept."
                        </p>
                    </div>
                </div>
            }
        })
    }
}
