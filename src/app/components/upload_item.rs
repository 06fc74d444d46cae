//! One upload in the list: how much of it is sent, how fast, and what became of it, live.

use super::{Icon, ProgressBar, StateChip, Symbol, announce_milestones};
use crate::{
    app::{
        detours::live_text,
        uploads::{SENT_BEFORE, Uploads, actions_id},
        words,
    },
    feed::{
        Feed,
        reduce::View,
        uploads::{Phase, Upload},
    },
    model::{Status, bytes, text},
};
use leptos::prelude::*;

fn details(upload: &Upload) -> String {
    match &upload.phase {
        Phase::Waiting => format!("{}, waiting for its turn", bytes(upload.bytes)),
        Phase::Sending { .. } => {
            let mut words = format!("{} of {}", bytes(upload.sent()), bytes(upload.bytes));
            if upload.is_stalled() {
                words += ". The connection broke; it goes on as soon as it is back";
            }
            if let (Some(speed), Some(left)) = (upload.speed(), upload.seconds_remaining()) {
                words += &format!(", {}/s, {} left", bytes(speed as u64), text::remaining(left));
            }
            words
        }
        // The session says the rest.
        Phase::Done(_) => bytes(upload.bytes),
        Phase::SentBefore(_) => SENT_BEFORE.to_owned(),
        Phase::Failed(message) => message.clone(),
        Phase::Aborted => "Cancelled".to_owned(),
    }
}

fn phase_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Sending { .. } => "sending",
        Phase::Done(_) => "done",
        Phase::SentBefore(_) => "sent-before",
        Phase::Failed(_) => "failed",
        Phase::Aborted => "aborted",
    }
}

/// The upload with this key.
#[component]
pub fn UploadItem(uploads: Uploads, key: u32) -> impl IntoView {
    let upload = move || uploads.queue.with(|queue| queue.get(key).cloned());
    let of = move |read: fn(&Upload) -> bool| Memo::new(move |_| upload().as_ref().is_some_and(read));
    let open = of(Upload::is_open);
    let sending = of(|u| matches!(u.phase, Phase::Sending { .. }));
    let failed = of(|u| matches!(u.phase, Phase::Failed(_)));
    let retryable = of(Upload::can_retry);
    let sent_before = of(|u| matches!(u.phase, Phase::SentBefore(_)));
    let done = Memo::new(move |_| match upload()?.phase {
        Phase::Done(status) | Phase::SentBefore(status) => Some(status),
        _ => None,
    });
    let words = move || upload().as_ref().map(details).unwrap_or_default();
    let name = Signal::stored(untrack(upload).map(|u| u.name).unwrap_or_default());

    view! {
        <li
            class="upload"
            data-testid="upload-item"
            data-phase=move || upload().map(|u| phase_name(&u.phase))
        >
            <p class="upload-name" dir="auto">{name}</p>
            <Show when=move || open.get()>
                <ProgressBar
                    label=format!("Upload of {}", name.get_untracked())
                    percent=move || upload().as_ref().map(Upload::percent)
                    words=words
                    busy=sending
                    testid="upload-progress"
                />
            </Show>
            {move || {
                let (role, hook) = if failed.get() { (Some("alert"), "error-message") } else { (None, "upload-details") };
                view! { <p class="upload-details" role=role data-testid=hook inner_html=move || live_text(words())></p> }
            }}
            {move || done.get().map(|status| view! { <UploadedSession status=*status name/> })}
            <div class="row-actions" id=actions_id(key) tabindex="-1" role="group" aria-label=format!("Actions for {}", name.get_untracked())>
                <Show when=move || open.get()>
                    <button class="button quiet" type="button" data-testid="cancel" on:click=move |_| uploads.abort(key)>
                        <Icon symbol=Symbol::Cancelled/><span>"Cancel"<span class="hidden">" " {name}</span></span>
                    </button>
                </Show>
                <Show when=move || retryable.get()>
                    <button class="button quiet" type="button" data-testid="retry" on:click=move |_| uploads.retry(key)>
                        <Icon symbol=Symbol::Retry/>
                        <span inner_html=move || if sent_before.get() { "Send again" } else { "Retry" }></span><span><span class="hidden">" " {name}</span></span>
                    </button>
                </Show>
                <Show when=move || !open.get()>
                    <button class="button quiet" type="button" data-testid="remove" on:click=move |_| uploads.remove(key)>
                        <span>"Remove"<span class="hidden">" " {name}</span></span>
                    </button>
                </Show>
            </div>
        </li>
    }
}

/// The session that an upload has become: its state, live, and the way to it.
#[component]
fn UploadedSession(status: Status, name: Signal<String>) -> impl IntoView {
    let (feed, id) = (Feed::expect(), status.session_id);
    let view = feed.watch(View::new(status));
    let status = Memo::new(move |_| view.with(|view| view.status.clone()));
    announce_milestones(name, status, true);
    let more = move || {
        status.with(|status| {
            let error = status.error.as_ref().map(|error| error.message.clone());
            let percent = || status.progress.filter(|_| !status.state.is_terminal()).map(text::percentage);
            error.or_else(|| words::queue_position(status)).or_else(percent).unwrap_or_default()
        })
    };
    view! {
        <p class="upload-session">
            <Show when=move || !feed.is_deleted(id) fallback=|| "Deleted">
                <StateChip status/>
                <span class="fact" data-testid="upload-state" inner_html=move || live_text(more())></span>
                <a class="button quiet" href=format!("/sessions/{id}") data-testid="upload-session">
                    <span>"Open"<span class="hidden">" " {name}</span></span>
                </a>
            </Show>
        </p>
    }
}
