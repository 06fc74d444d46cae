//! How updates reach the page: a badge in the header, a sentence beside the progress, a notice when it changes; and a warning
//! when a session seems stuck.

use super::{Icon, Symbol};
use crate::{
    api::sessions::RestartSession,
    app::{actions::Actions, clock::Clock, words},
    feed::{Feed, Mode, browser::dom},
    model::{SessionId, State, Status, Timestamp, duration},
};
use leptos::{form::ActionForm, prelude::*};
use std::time::Duration;

/// Seconds without a change after which a session may be stuck.
const STALLED: f64 = 60.0;

/// The badge in the header.
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
    let updated = move || {
        let (now, last) = (clock.now()?, feed.last_message.get()?);
        (mode.get() != Mode::Off).then(|| words::updated(last, now))
    };
    let words = move || match mode.get() {
        Mode::Off => "As of when this page was loaded",
        Mode::Connecting => "Connecting for live updates",
        Mode::Live => "Live: changes show as they happen",
        Mode::Polling if feed.can_stream.get() => "Live updates don't get through: asking every 3 s",
        Mode::Polling => "Asking every 3 s",
        Mode::Offline => "Offline: going on once the network is back",
    };
    view! {
        <p class="connection" data-testid="connection" data-mode=move || mode.get().name()>
            <span class="dot" aria-hidden="true"></span>
            <span>
                {words}
                {move || updated().map(|updated| view! { <span data-testid="updated">{format!(", {updated}")}</span> })}
            </span>
        </p>
    }
}

/// The texts of the notice about the connection.
const POLLING_TOOK_OVER: &str =
    "Live updates don't get through here, so this page asks every 3 seconds. Nothing is lost.";
const LIVE_AGAIN: &str = "Live updates are back.";

/// How long the notice stays that live updates are back. The other one stays until it is dismissed or no longer true.
const RECOVERY_NOTICE: Duration = Duration::from_secs(8);

/// Shows a notice, once each time, when polling takes over and when live updates are back. A browser without EventSource never
/// gets one, because it always polls.
#[component]
pub fn ConnectionNotice() -> impl IntoView {
    let feed = Feed::expect();
    let notice = RwSignal::new(None::<String>);
    let show = move |words: &str| notice.set(Some(words.to_owned()));
    Effect::new(move |polling: Option<bool>| {
        let was_polling = polling.unwrap_or_default();
        match feed.mode.get() {
            Mode::Polling if feed.can_stream.get() => {
                if !was_polling {
                    show(POLLING_TOOK_OVER);
                }
                true
            }
            Mode::Live => {
                if was_polling {
                    show(LIVE_AGAIN);
                    set_timeout(
                        move || {
                            if notice.with_untracked(|n| n.as_deref() == Some(LIVE_AGAIN)) {
                                notice.set(None);
                            }
                        },
                        RECOVERY_NOTICE,
                    );
                }
                false
            }
            Mode::Off => {
                notice.set(None);
                false
            }
            Mode::Connecting | Mode::Offline | Mode::Polling => was_polling,
        }
    });
    view! {
        // This element always exists, because screen readers announce only changes of an element that was there before.
        <div class="notices" role="status">
            {move || notice.get().map(|notice_text| view! {
                <div class="toast" data-testid="connection-notice">
                    <p>{notice_text}</p>
                    <button class="button quiet" on:click=move |_| notice.set(None)>"Dismiss"</button>
                </div>
            })}
        </div>
    }
}

/// Warns that a session being processed has shown no change for a minute, and offers a restart.
#[component]
pub fn StallWarning(
    status: Memo<Status>,
    actions: Actions,
    id: SessionId,
    /// Whether one of Hark's own workers processes it, which can be restarted.
    own: bool,
) -> impl IntoView {
    let restart = ServerAction::<RestartSession>::new();
    Effect::new(move || {
        if let Some(answer) = restart.value().get() {
            actions.changed(answer);
        }
    });
    let clock = Clock::expect();
    // Measured by the browser's clock: it may be wrong, but its differences are right.
    let changed = RwSignal::new(None::<Timestamp>);
    Effect::new(move || {
        status.track();
        changed.set(dom::now());
    });
    // Whole minutes, so that the text doesn't change every second; 0 if nothing is wrong.
    let stalled_minutes = Memo::new(move |_| {
        let (Some(now), Some(changed)) = (clock.now(), changed.get()) else { return 0 };
        let busy = status.with(|s| s.state == State::Processing);
        if busy { (now.seconds_since(changed) / STALLED).max(0.0) as usize } else { 0 }
    });
    move || {
        let minutes = stalled_minutes.get();
        (minutes > 0).then(|| {
            let stalled = minutes as f64 * STALLED;
            view! {
                <div class="alert stalled" role="status" data-testid="stalled">
                    <div>
                        <p>{format!("Nothing has changed for {}. The worker's last word: ", duration(stalled))}
                            <q>{status.with_untracked(|s| s.message.clone())}</q>"."</p>
                        <p>"A long silence in the recording or a busy machine looks like this too."</p>
                        {own.then(|| view! {
                            <ActionForm action=restart>
                                <input type="hidden" name="id" value=id.to_string()/>
                                <button class="button" data-testid="restart" disabled=restart.pending()>
                                    <Icon symbol=Symbol::Retry/>
                                    "Retry from the last line"
                                </button>
                            </ActionForm>
                        })}
                    </div>
                </div>
            }
        })
    }
}
