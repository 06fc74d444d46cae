//! One session in the list, live: state, progress, speed, arrival time, and what can be done to it.

use super::{
    Arrival, CancelButton, DeleteButton, Moment, ProgressBar, RetryButton, StateChip, When, announce_milestones,
};
use crate::{
    app::{actions::Actions, reactive::memo, words},
    feed::{Feed, reduce::View},
    model::{Session, State, duration, text},
};
use leptos::prelude::*;

/// The row.
#[component]
pub fn SessionRow(session: Session, actions: Actions) -> impl IntoView {
    let view = Feed::expect().watch(View::new(session.status.clone()));
    let status = memo(move |_| view.with(|v| v.status.clone()));
    let running = memo(move |_| status.with(|s| !s.state.is_terminal()));
    let retryable = memo(move |_| status.with(|s| matches!(s.state, State::Failed | State::Cancelled)));
    let title = Signal::stored(session.title.to_string());
    announce_milestones(title, status, true);
    let id = session.id;
    let fact = move |testid: &'static str, words: Option<String>| {
        words.map(|words| view! { <span class="fact" data-testid=testid>{words}</span> }.into_any())
    };

    view! {
        <li class="row" data-testid="session-row" data-session=id.to_string()>
            <div class="row-main">
                <h2 class="row-title">
                    <a href=format!("/sessions/{id}") data-testid="session-title">{title}</a>
                </h2>
                <StateChip status/>
            </div>
            <p class="facts about">
                <span class="fact"><Moment at=session.created_at/></span>
                {move || fact("duration", status.with(|s| s.duration_total).map(duration))}
                <span class="fact">{session.engine.label()}</span>
            </p>
            <When holds=running>
                <ProgressBar
                    label=format!("Progress of {}", title.get_untracked())
                    percent=Signal::derive(move || status.with(|s| s.progress))
                    words=Signal::derive(move || status.with(words::progress))
                    busy=Signal::derive(move || status.with(|s| s.state == State::Processing))
                    testid="progress"
                />
                <p class="facts live">
                    {move || fact("percent", status.with(|s| s.progress).map(text::percentage))}
                    {move || fact("queue-position", status.with(words::queue))}
                    {move || fact("speed", status.with(words::speed))}
                    <Arrival status/>
                </p>
            </When>
            <When holds=Signal::derive(move || status.with(|s| s.error.is_some()))>
                <p class="row-error" data-testid="error-message">
                    {move || status.with(|s| s.error.as_ref().map(|e| e.message.clone()))}
                </p>
            </When>
            <div class="row-actions">
                <When holds=running><CancelButton actions id title/></When>
                <When holds=retryable><RetryButton actions id title/></When>
                <DeleteButton actions id title/>
            </div>
        </li>
    }
}
