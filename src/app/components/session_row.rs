//! One session in the list, live: its state, progress, speed and arrival time, and the actions on it.

use super::{Ago, Arrival, CancelButton, DeleteButton, ProgressBar, RetryButton, StateChip, announce_milestones};
use crate::{
    app::{
        actions::{Actions, actions_id},
        detours::live_text,
        effect, words,
    },
    feed::{Feed, reduce::View},
    model::{Session, State, Status, text},
};
use leptos::prelude::*;
use leptos_router::components::A;

/// The row.
#[component]
pub fn SessionRow(
    session: Session,
    /// The first words of its text; empty if they aren't known.
    beginning: Memo<String>,
    actions: Actions,
) -> impl IntoView {
    let view = Feed::expect().watch(View::new(session.status.clone()));
    let status = Memo::new(move |_| view.with(|v| v.status.clone()));
    let running = Memo::new(move |_| status.with(|s| !s.state.is_terminal()));
    let retryable = Memo::new(move |_| status.with(Status::may_retry));
    let (feed, id) = (Feed::expect(), session.id);
    let of_page = session.title.to_string();
    let title: Signal<String> = Memo::new(move |_| feed.title(id).unwrap_or_else(|| of_page.clone())).into();
    announce_milestones(title, status, true);
    let completed = Memo::new(move |_| status.with(|s| s.state == State::Completed && s.lines() > 0));
    // The first words come with the list.
    effect(move || {
        if completed.get() && beginning.with_untracked(String::is_empty) {
            feed.unknown.update(|n| *n += 1);
        }
    });
    // Whether the row has more than one line of facts, which then take its whole width.
    let full = move || running.get() || status.with(|s| s.error.is_some());
    let fact = move |testid: &'static str, words: Option<String>| {
        words.map(|words| view! { <span class="fact" data-testid=testid inner_html=live_text(words)></span> })
    };

    view! {
        <li class="row" class:full=full data-testid="session-row" data-session=id.to_string()>
            <div class="row-main">
                <h2 class="row-title">
                    <A href=format!("/sessions/{id}") attr:data-testid="session-title"><bdi inner_html=move || live_text(title.get())></bdi></A>
                </h2>
                <StateChip status/>
            </div>
            <p class="facts about">
                <span class="fact"><Ago at=session.created_at/></span>
                {move || fact("duration", status.with(|s| s.duration_total).map(text::length))}
                <span class="fact">{session.engine.label()}</span>
            </p>
            <p
                class="row-beginning"
                dir="auto"
                data-testid="beginning"
                hidden=move || beginning.with(String::is_empty)
                inner_html=move || live_text(beginning.get())
            ></p>
            <Show when=move || running.get()>
                <ProgressBar
                    label=format!("Progress of {}", title.get_untracked())
                    percent=move || status.with(|s| s.progress)
                    words=move || status.with(words::progress)
                    busy=move || status.with(|s| s.state == State::Processing)
                    testid="progress"
                />
                <p class="facts live">
                    {move || fact("percent", status.with(|s| s.progress).map(text::percentage))}
                    {move || fact("queue-position", status.with(words::queue_position))}
                    {move || fact("speed", status.with(words::speed))}
                    <Arrival status/>
                </p>
            </Show>
            <Show when=move || status.with(|s| s.error.is_some())>
                <p
                    class="row-error"
                    data-testid="error-message"
                    inner_html=move || status.with(|s| s.error.as_ref().map(|e| live_text(&e.message)).unwrap_or_default())
                ></p>
            </Show>
            <div class="row-actions" id=actions_id(id) tabindex="-1" role="group" aria-label="Actions">
                {move || running.get().then(|| view! { <CancelButton actions id title/> })}
                {move || retryable.get().then(|| view! { <RetryButton actions id title/> })}
                <DeleteButton actions id title/>
            </div>
        </li>
    }
}
