//! A browser notification when a session has ended, for people who have asked for it and don't look at the page.
//! The setting is stored in the browser and applies to all sessions.

use super::{Icon, Symbol};
use crate::{
    app::{effect, words},
    feed::{Notifications, browser::dom},
    model::{State, Status},
};
use leptos::prelude::*;

/// The switch, shown while the session runs if the browser has notifications; it also sends the notification.
#[component]
pub fn NotifyWhenDone(#[prop(into)] title: Signal<String>, status: Memo<Status>) -> impl IntoView {
    // Unknown until the page is hydrated: the server can't know it.
    let setting = RwSignal::new(None::<Notifications>);
    effect(move || setting.set(dom::notifications()));
    let state = Memo::new(move |_| status.with(|s| s.state));
    Effect::new(move |before: Option<State>| {
        let now = state.get();
        let ended = matches!(now, State::Completed | State::Failed) && before.is_some_and(|b| !b.is_terminal());
        if ended && setting.get_untracked() == Some(Notifications::On) {
            let id = status.with_untracked(|s| s.session_id.to_string());
            status.with_untracked(|s| dom::notify(&id, &words::announcement(&title.get_untracked(), s)));
        }
        now
    });
    let shown = Memo::new(move |_| setting.get().filter(|_| !state.get().is_terminal()));
    move || {
        shown.get().map(|now| {
            let toggle = move |_| dom::ask_for_notifications(now != Notifications::On, move |now| setting.set(now));
            view! {
                <button
                    class="button quiet"
                    data-testid="notify"
                    aria-pressed=(now == Notifications::On).to_string()
                    disabled=now == Notifications::Blocked
                    on:click=toggle
                >
                    <Icon symbol=Symbol::Bell/>
                    <span inner_html=match now {
                        Notifications::On => "You will be notified",
                        Notifications::Off => "Notify me when done",
                        Notifications::Blocked => "Notifications are blocked by the browser",
                    }></span>
                </button>
            }
        })
    }
}
