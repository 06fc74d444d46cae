//! How updates reach the page: said once, beside the progress, with a word in the header if something is wrong; and a warning when
//! a session seems stuck.

use super::{Icon, Symbol, buttons::keep_focus_of_removed, use_announcer};
use crate::{
    api::sessions::RestartSession,
    app::{
        actions::{Actions, keep_focus},
        clock::Clock,
        detours::live_text,
        effect, words,
    },
    feed::{Feed, Mode, browser::dom},
    model::{SessionId, State, Status, Timestamp, duration},
};
use leptos::{form::ActionForm, prelude::*};

/// Seconds without a change after which a session may be stuck.
const STALLED: f64 = 60.0;

/// The badge in the header: empty unless people should be told that something is wrong. Screen readers are told here too, also
/// that it is over.
#[component]
pub fn Badge() -> impl IntoView {
    let feed = Feed::expect();
    let mode = feed.mode;
    let announce = use_announcer();
    Effect::new(move |trouble: Option<bool>| {
        let (was, mode) = (trouble.unwrap_or_default(), mode.get());
        if mode.is_trouble() {
            announce(words::connection(mode, feed.can_stream.get_untracked()).to_owned());
        } else if was && mode.delivers() {
            announce("Updates arrive again.".to_owned());
        }
        mode.is_trouble() || was && !mode.delivers()
    });
    let trouble = move || match mode.get() {
        Mode::Offline => "Offline",
        Mode::Unreachable => "No connection",
        Mode::SignIn => "Signed out",
        _ => "",
    };
    view! {
        <span
            class="badge"
            data-testid="badge"
            data-mode=move || mode.get().name()
            hidden=move || !mode.get().is_trouble()
        >
            <span class="dot" aria-hidden="true"></span>
            <span inner_html=trouble></span>
        </span>
    }
}

/// The sentence beside the progress of a session that runs.
#[component]
pub fn Connection() -> impl IntoView {
    let feed = Feed::expect();
    let (mode, clock) = (feed.mode, Clock::expect());
    let ago = move |last: RwSignal<Option<Timestamp>>| Some(clock.now()?.seconds_since(last.get()?));
    let sentence = move || match mode.get() {
        Mode::Connecting => ago(feed.last_word).and_then(words::silence).unwrap_or_default(),
        mode => words::connection(mode, feed.can_stream.get()).to_owned(),
    };
    let updated = move || {
        let news = ago(feed.last_news).filter(|_| mode.get() != Mode::Off)?;
        let dot = if sentence().is_empty() { "" } else { " · " };
        Some(format!("{dot}{}", words::updated(news)))
    };
    view! {
        <p class="connection" data-testid="connection" data-mode=move || mode.get().name()>
            <span class="dot" aria-hidden="true"></span>
            <span>
                <span inner_html=move || live_text(sentence())></span>
                // The server leads to its login by itself.
                {move || (mode.get() == Mode::SignIn).then(|| view! {
                    " "
                    <a href="" rel="external" data-testid="sign-in">"Sign in"</a>
                })}
                <span data-testid="updated" translate="no" inner_html=move || live_text(updated().unwrap_or_default())></span>
            </span>
        </p>
    }
}

/// Warns that a session being processed has shown no change for a minute although updates arrive, and offers a restart.
#[component]
pub fn StallWarning(
    status: Memo<Status>,
    actions: Actions,
    id: SessionId,
    /// Whether one of Hark's own workers processes it, which can be restarted.
    own: bool,
) -> impl IntoView {
    let restart = ServerAction::<RestartSession>::new();
    effect(move || {
        if let Some(answer) = restart.value().get() {
            actions.changed(id, answer);
        }
    });
    let clock = Clock::expect();
    let mode = Feed::expect().mode;
    let delivers = Memo::new(move |_| mode.get().delivers());
    // Since when there could have been a change: the last one, or when updates began to arrive again. Measured by the browser's
    // clock: it may be wrong, but its differences are right.
    let changed = RwSignal::new(None::<Timestamp>);
    effect(move || {
        status.track();
        delivers.track();
        changed.set(dom::now());
    });
    // Whole minutes, so that the text doesn't change every second; 0 if nothing is wrong.
    let stalled_minutes = Memo::new(move |_| {
        let (Some(now), Some(changed)) = (clock.now(), changed.get()) else { return 0 };
        let busy = delivers.get() && status.with(|s| s.state == State::Processing);
        if busy { (now.seconds_since(changed) / STALLED).max(0.0) as usize } else { 0 }
    });
    move || {
        let minutes = stalled_minutes.get();
        (minutes > 0).then(|| {
            let button = format!("restart-{id}");
            keep_focus_of_removed(button.clone(), id);
            let stalled = format!("Nothing has changed for {}.", duration(minutes as f64 * STALLED));
            view! {
                <div class="alert stalled" role="status" data-testid="stalled">
                    <div>
                        <p>
                            <span inner_html=stalled></span>
                            " The worker's last word: "
                            <q inner_html=status.with_untracked(|s| live_text(&s.message))></q>
                        </p>
                        <p>"A long silence in the recording or a busy machine looks like this too."</p>
                        {own.then(|| view! {
                            <ActionForm action=restart>
                                <input type="hidden" name="id" value=id.to_string()/>
                                <button class="button" id=button data-testid="restart" disabled=restart.pending() on:click=move |_| keep_focus(id)>
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
