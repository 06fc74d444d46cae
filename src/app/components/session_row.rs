//! One session in the list, live: its state, progress, speed and arrival time, and the actions on it.

use super::{
    Ago, Arrival, CancelButton, DeleteButton, Icon, Pick, ProgressBar, RetryButton, Selection, StateChip, Symbol,
    announce_milestones, use_announcer,
};
use crate::{
    app::{
        actions::{Actions, actions_id},
        clock::Clock,
        detours::live_text,
        effect, words,
    },
    feed::{Copied, Feed, browser::dom, reduce::View},
    model::{Session, SessionId, State, text},
};
use leptos::prelude::*;
use leptos_router::components::A;

/// The row.
#[component]
pub fn SessionRow(
    session: Session,
    /// The first words of its text; empty if they aren't known.
    beginning: Memo<String>,
    /// What is selected in its list.
    selection: Selection,
    actions: Actions,
) -> impl IntoView {
    let view = Feed::expect().watch(View::new(session.status.clone()));
    let status = Memo::new(move |_| view.with(|v| v.status.clone()));
    let running = Memo::new(move |_| status.with(|s| !s.state.is_terminal()));
    let loaded = session.clone();
    let retryable = Memo::new(move |_| status.with(|now| loaded.may_retry(now)));
    let readable = Memo::new(move |_| status.with(|s| s.state == State::Completed && s.lines() > 0));
    let menu = NodeRef::new();
    let (feed, id) = (Feed::expect(), session.id);
    let of_page = session.title.to_string();
    let title: Signal<String> = Memo::new(move |_| feed.title(id).unwrap_or_else(|| of_page.clone())).into();
    announce_milestones(title, status, true);
    // The first words come with the list.
    effect(move || {
        if readable.get() && beginning.with_untracked(String::is_empty) {
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
                <Pick selection id title/>
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
                {move || readable.get().then(|| view! { <TextButtons actions id title/> })}
                <details class="menu" node_ref=menu on:keydown=move |event| {
                    if event.key() == "Escape" {
                        dom::close(menu);
                    }
                }>
                    <summary class="button quiet" data-testid="menu">
                        <Icon symbol=Symbol::More/>
                        <span class="hidden" inner_html=move || format!("More for {}", live_text(title.get()))></span>
                    </summary>
                    <div class="menu-items"><DeleteButton actions id title undo=true/></div>
                </details>
            </div>
        </li>
    }
}

/// Copies the text of a session, or downloads it.
#[component]
fn TextButtons(actions: Actions, id: SessionId, title: Signal<String>) -> impl IntoView {
    let clock = Clock::expect();
    let address = format!("/api/v1/sessions/{id}/transcript.txt");
    let label = RwSignal::new("Copy text");
    let announce = use_announcer();
    // A text that can't be copied isn't shown here: the session's page does that.
    let field = NodeRef::new();
    let of = move || format!(" {}", live_text(title.get()));
    let copy = {
        let address = address.clone();
        move |_| {
            dom::copy(Some(address.clone()), field, move |copied| match copied {
                Copied::All | Copied::Selection => {
                    label.set("Copied");
                    announce("Copied the text".to_owned());
                }
                Copied::Refused => actions.several(Some(
                    "Your browser doesn't let this page copy. Download the text, or copy it on the session's page."
                        .to_owned(),
                )),
                Copied::NoAnswer => actions.several(Some("The server can't be reached. Try again.".to_owned())),
            });
        }
    };
    view! {
        <button class="button quiet" type="button" data-testid="row-copy" hidden=move || !clock.is_hydrated() on:click=copy>
            <span inner_html=move || label.get()></span>
            <span class="hidden" inner_html=of></span>
        </button>
        <a class="button quiet" href=address rel="external" download data-testid="row-txt">
            <Icon symbol=Symbol::Download/>
            <span>"TXT"</span>
            <span class="hidden" inner_html=of></span>
        </a>
    }
}
