//! The page of one session: its status, its recording and its transcript, all live.
//! The server renders the current state; the feed updates it, or without JavaScript a reload every 3 seconds.

use super::not_found::NotFound;
use crate::{
    api::sessions::get_session,
    app::{
        MAIN,
        actions::{Actions, STATUS_TOGGLE, actions_id, keep_focus_of},
        components::{
            ActionAlert, AnotherChoice, Arrival, CancelButton, Connection, CopyButtons, DeleteButton, Downloads,
            FindInText, HowUpdatesCame, Icon, LoadBoundary, Moment, NotifyWhenDone, Player, ProgressBar, Reload,
            Rename, RetryButton, Stages, StallWarning, StateChip, Symbol, TranscriptLines, announce_milestones,
            line_at, retry_on_failure, use_announcer,
        },
        detours::{PageTitle, live_text},
        effect,
        listing::LIST_ADDRESS,
        playback::PlayerControl,
        words,
    },
    feed::{Feed, browser::dom, reduce::View},
    model::{ApiError, Channels, Session, SessionDetail, SessionId, StageLog, State, Status, Track, bytes, text},
};
use leptos::{either::Either, html, prelude::*};
use leptos_router::{
    components::A,
    hooks::{use_params_map, use_query_map},
};

/// The page.
#[component]
pub fn SessionPage() -> impl IntoView {
    let params = use_params_map();
    let id = move || params.with(|params| params.get_str("id").and_then(|id| id.parse().ok()));
    let detail = Resource::new(id, load);
    retry_on_failure(detail);
    let feed = Feed::expect();
    // In another tab or on another device, while this page is open.
    let deleted = Memo::new(move |_| id().is_some_and(|id| feed.is_deleted(id)));
    let announce = use_announcer();
    let mut before = None;
    effect(move || {
        let now = deleted.get();
        if before.replace(now) == Some(false) && now {
            // What the page has shown is replaced.
            if dom::has_focus(MAIN) || dom::is_focus_lost() {
                dom::focus(MAIN);
            }
            let title = untrack(|| id().and_then(|id| feed.title(id))).unwrap_or_default();
            announce(format!("“{title}” was deleted."));
        }
    });
    let shown = move || {
        let deleted = deleted.get();
        Suspend::new(async move {
            match detail.await {
                Ok(_) if deleted => Ok(Either::Right(view! {
                    <NotFound heading="This session isn't here" text="It was deleted."/>
                })),
                Ok(detail) => Ok(Either::Left(view! { <SessionView detail/> })),
                Err(error) if error.is_not_found() => Ok(Either::Right(view! {
                    <NotFound
                        heading="This session isn't here"
                        text="It was deleted, or it belongs to another browser: sessions are seen only where they were made."
                    />
                })),
                Err(error) => Err(error),
            }
        })
    };
    view! {
        <LoadBoundary heading="Session" on_retry=move |()| detail.refetch()>{shown}</LoadBoundary>
    }
}

/// Loads a session. `id`: none if the address contains no session id.
async fn load(id: Option<SessionId>) -> Result<SessionDetail, ApiError> {
    match id {
        Some(id) => get_session(id).await,
        None => Err(ApiError::new("not_found", "This is no session's address.")),
    }
}

/// The session, once loaded.
#[component]
fn SessionView(detail: SessionDetail) -> impl IntoView {
    let SessionDetail { transcript, language_name, waveform, stages } = detail;
    let session = StoredValue::new(transcript.session.clone());
    let id = transcript.session.id;
    let feed = Feed::expect();
    let view = feed.watch(View::from(transcript));
    let status = Memo::new({
        let view = view.clone();
        move |_| view.with(|v| v.status.clone())
    });
    let running = Memo::new(move |_| status.with(|s| !s.state.is_terminal()));
    // Read from the segments, because the status that counts them comes a moment later.
    let has_lines = Memo::new({
        let view = view.clone();
        move |_| view.with(|v| !v.segments.is_empty())
    });
    let actions = Actions::new();
    let newest = Memo::new(move |_| session.with_value(|session| feed.newest(session)));
    let title = Memo::new(move |_| feed.title(id).unwrap_or_else(|| session.with_value(|s| s.title.to_string())));
    effect(move || session.with_value(|s| feed.loaded_title(id, s.title.as_str())));
    // With the search and the filters that led here.
    let back = RwSignal::new("/".to_owned());
    effect(move || {
        back.set(dom::kept(LIST_ADDRESS).filter(|kept| kept.starts_with("/?")).unwrap_or_else(|| "/".to_owned()))
    });
    announce_milestones(title.into(), status, false);
    effect(move || dom::show_progress_in_icon(status.with(|s| s.progress.filter(|_| !s.state.is_terminal()))));
    on_cleanup(|| dom::show_progress_in_icon(None));

    let list = NodeRef::<html::Div>::new();
    let count = Memo::new({
        let view = view.clone();
        move |_| view.with(|v| v.segments.len())
    });
    let media = session.with_value(|s| s.media.clone());
    let control = PlayerControl::new(id, &media);
    let has_recording = media.bytes > 0;
    // A link to a second of the recording, as a search gives it.
    let address = use_query_map().get_untracked();
    let start_at = address.get_str("t").and_then(dom::number).filter(|t| *t >= 0.0);
    let start_line = start_at.and_then(|at| view.with_untracked(|v| line_at(&v.segments, at)));
    let wanted = address.get_str("find").unwrap_or_default().to_owned();
    effect(move || {
        if let Some(at) = start_at {
            // A player that has just been made isn't in the document yet.
            request_animation_frame(move || control.begin_at(at));
        }
    });
    view! {
        <PageTitle text=Memo::new(move |_| status.with(|s| words::page_title(&title.get(), s)))/>
        <Reload running address=format!("/sessions/{id}")/>
        <div class="page-head session-head">
            <p class="crumb"><A href=move || back.get()>"Sessions"</A></p>
            <div class="title-row">
                <h1 dir="auto" data-testid="session-title" inner_html=move || live_text(title.get())></h1>
                <Rename actions id title running/>
            </div>
        </div>
        <ActionAlert actions/>
        <div class="session">
            <StatusCard session=newest status stages title=title.into() actions/>
            <section class="session-main" aria-labelledby="transcript-heading">
                <div class="transcript-head">
                    <h2 id="transcript-heading">"Transcript"</h2>
                    <CopyButtons id has_lines/>
                </div>
                {has_recording.then(|| view! { <Player control status media peaks=waveform/> })}
                <Remarks status/>
                <AnotherChoice actions session=newest status/>
                <NoLines status/>
                <FindInText list count wanted start_line/>
                <TranscriptLines view running control=has_recording.then_some(control) list start_line/>
            </section>
            <div class="session-more">
                <Downloads id status has_lines/>
                {move || view! { <Facts session=newest.get() status language_name=language_name.clone()/> }}
                <HowUpdatesCame/>
            </div>
        </div>
    }
}

/// The status of the session, and the actions on it. Once it is done, one line is left, and on a phone a strip while it runs;
/// a button shows the rest.
#[component]
fn StatusCard(
    session: Memo<Session>,
    status: Memo<Status>,
    stages: StageLog,
    title: Signal<String>,
    actions: Actions,
) -> impl IntoView {
    let id = session.with_untracked(|s| s.id);
    let running = Memo::new(move |_| status.with(|s| !s.state.is_terminal()));
    let retryable = Memo::new(move |_| session.with(|session| status.with(|now| session.may_retry(now))));
    let error = Memo::new(move |_| status.with(|s| s.error.clone()));
    let unfolded = RwSignal::new(false);
    let folds = move || match status.with(|s| s.state) {
        State::Completed => "done",
        State::Queued | State::Processing => "running",
        State::Failed | State::Cancelled => "never",
    };
    let mut folded = None;
    effect(move || {
        let folds = folds();
        if folded.replace(folds).is_some_and(|before| before != folds) {
            keep_focus_of(&actions_id(id), id);
        }
    });
    let fact = move |testid: &'static str, words: Option<String>| {
        words.map(|words| view! { <span class="fact" data-testid=testid inner_html=live_text(words)></span> })
    };
    let number = move || status.with(|s| s.progress.map(text::percentage).unwrap_or_default());
    let took = move || session.with(|s| status.with(|now| words::processing_time(s, now)));
    let model = move || session.with(|s| s.model.clone().unwrap_or_else(|| s.engine.label().to_owned()));
    let outcome = move || status.with(|status| words::outcome(status, took(), &model()));
    view! {
        <section
            class="card status"
            aria-labelledby="status-heading"
            data-testid="status-card"
            data-version=move || status.with(|s| s.version.to_string())
            data-folds=folds
            data-unfolded=move || unfolded.get().then_some("")
        >
            <div class="status-head">
                <h2 id="status-heading" class="hidden">"Status"</h2>
                <StateChip status/>
                <span class="status-summary" data-testid="outcome" inner_html=move || live_text(outcome())></span>
                <span class="status-number" data-testid="percent" translate="no" inner_html=number></span>
                <button
                    class="button quiet status-toggle"
                    id=STATUS_TOGGLE
                    type="button"
                    aria-expanded=move || unfolded.get().to_string()
                    aria-controls="status-details"
                    data-testid="status-toggle"
                    on:click=move |_| unfolded.update(|unfolded| *unfolded = !*unfolded)
                >"Details"</button>
            </div>
            <ProgressBar
                label="Progress of the transcription"
                percent=move || status.with(|s| s.progress)
                words=move || status.with(words::progress)
                busy=move || status.with(|s| s.state == State::Processing)
                testid="progress"
            />
            {move || error.get().map(|error| view! {
                <div class="alert" role="alert">
                    <Icon symbol=Symbol::Failed/>
                    <div>
                        <p data-testid="error-message" inner_html=live_text(error.message)></p>
                        {(retryable.get() && status.with_untracked(|s| s.lines() > 0))
                            .then(|| view! { <p>"Retry goes on after the last line that was heard."</p> })}
                        {retryable.get().then(|| view! { <RetryButton actions id title/> })}
                    </div>
                </div>
            })}
            <StallWarning status actions id own=session.with_untracked(Session::is_own)/>
            <div class="status-details" id="status-details">
                // Hidden after a failure, because the alert says the same and more.
                <p
                    class="status-message"
                    data-testid="message"
                    hidden=move || error.with(Option::is_some)
                    inner_html=move || status.with(|s| live_text(&s.message))
                ></p>
                <p class="facts">
                    {move || fact("queue-position", status.with(words::queue_position))}
                    {move || fact("amount", status.with(|s| words::audio_done(s).filter(|amount| !s.message.contains(amount))))}
                    {move || fact("speed", status.with(words::speed).map(|s| format!("{s} real time")))}
                    <Arrival status/>
                    {move || fact("took", took().map(|t| format!("took {t}")))}
                    {move || fact("attempt", status.with(|s| (s.attempt > 1).then(|| format!("started {} times", s.attempt))))}
                </p>
                <Stages status log=stages/>
            </div>
            {move || running.get().then(|| view! { <Connection/> })}
            <div class="row-actions" id=actions_id(id) tabindex="-1" role="group" aria-label="Actions">
                {move || running.get().then(|| view! { <CancelButton actions id title/> })}
                {move || (retryable.get() && error.with(Option::is_none)).then(|| view! { <RetryButton actions id title/> })}
                <DeleteButton actions id title/>
                <NotifyWhenDone title status/>
            </div>
        </section>
    }
}

/// The properties of the recording, its engine and its language.
#[component]
fn Facts(session: Session, status: Memo<Status>, language_name: Option<String>) -> impl IntoView {
    let media = session.media;
    let engine = match session.model {
        Some(model) => format!("{}, {model}", session.engine.label()),
        None => session.engine.label().to_owned(),
    };
    // For an MP3 file, format and codec have the same name.
    let mut format = vec![media.format, media.codec];
    format.retain(|part| !part.is_empty());
    format.dedup();
    let sound = (media.sample_rate > 0)
        .then(|| format!("{}, {}", text::sample_rate(media.sample_rate), text::channels(media.channels)));
    let language = match (session.language, session.detected_language) {
        (Some(tag), _) => language_name.unwrap_or(tag),
        (None, found) => found.map(|found| format!("{}, found by the engine", found.label())).unwrap_or_default(),
    };
    let length = Memo::new(move |_| status.with(|s| s.duration_total.map(text::length)));
    let row = |name: &'static str, value: String| {
        (!value.is_empty())
            .then(|| view! { <div><dt>{name}</dt><dd dir="auto" inner_html=live_text(value)></dd></div> })
    };
    view! {
        <section class="card" aria-labelledby="facts-heading" data-testid="facts">
            <h2 id="facts-heading">"Recording"</h2>
            <dl class="facts-list">
                {row("File", media.file_name)}
                <div hidden=move || length.get().is_none()><dt>"Length"</dt><dd inner_html=move || length.get().unwrap_or_default()></dd></div>
                {row("Size", if media.bytes > 0 { bytes(media.bytes) } else { String::new() })}
                {row("Format", format.join(", "))}
                {row("Sound", sound.unwrap_or_default())}
                {row("Engine", engine)}
                {row("Language", language)}
                {row("Audio track", session.track.map(Track::label).unwrap_or_default())}
                {row("Channels", if session.channels == Channels::Split { session.channels.label().to_owned() } else { String::new() })}
                {row("Names and terms", session.vocabulary.unwrap_or_default())}
                <div><dt>"Created"</dt><dd><Moment at=session.created_at/></dd></div>
            </dl>
        </section>
    }
}

/// What a reader of the transcript should know of it or of the recording.
#[component]
fn Remarks(status: Memo<Status>) -> impl IntoView {
    let remarks = Memo::new(move |_| status.with(|s| s.remarks.clone()));
    view! {
        <Show when=move || remarks.with(|remarks| !remarks.is_empty())>
            <ul class="remarks" aria-label="Remarks" data-testid="remarks">
                {move || {
                    let items = remarks.get().into_iter();
                    items.map(|remark| view! { <li data-code=remark.code inner_html=live_text(remark.message)></li> }).collect_view()
                }}
            </ul>
        </Show>
    }
}

/// Says why there are no lines, if none will come.
#[component]
fn NoLines(status: Memo<Status>) -> impl IntoView {
    let words = move || {
        status.with(|s| match s.state {
            State::Completed if s.lines() == 0 => Some("No speech was heard in this recording."),
            State::Failed if s.lines() == 0 => Some("It failed before the first line."),
            State::Cancelled if s.lines() == 0 => Some("It was cancelled before the first line."),
            _ => None,
        })
    };
    move || words().map(|words| view! { <p class="muted" data-testid="no-lines" inner_html=words></p> })
}
