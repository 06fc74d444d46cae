//! The way of a recording to its transcript, and where on it a session stands.

use crate::model::{Stage, StageLog, State, Status, text};
use leptos::prelude::*;

/// How a step relates to where the session stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StageRow {
    Past,
    Now,
    Ahead,
    /// Here it stopped.
    Stopped,
}

impl StageRow {
    fn name(self) -> &'static str {
        match self {
            Self::Past => "past",
            Self::Now => "now",
            Self::Ahead => "ahead",
            Self::Stopped => "stopped",
        }
    }

    /// For screen readers, to whom the drawing says nothing.
    fn words(self) -> &'static str {
        match self {
            Self::Past => ", done",
            Self::Now => ", now",
            Self::Ahead => "",
            Self::Stopped => ", stopped here",
        }
    }
}

/// Where step `step` of the path stands; the step after the last stage is the end. A recording that waits was received.
fn row(status: &Status, step: usize) -> StageRow {
    let stage = status.stage.and_then(|s| Stage::ALL.iter().position(|other| *other == s));
    match status.state {
        State::Completed => StageRow::Past,
        State::Queued if step == 0 => StageRow::Past,
        State::Queued => StageRow::Ahead,
        State::Processing | State::Failed | State::Cancelled => {
            // One that is being taken up has been received already.
            let here = stage.unwrap_or(0).max(usize::from(status.state == State::Processing));
            match step.cmp(&here) {
                std::cmp::Ordering::Less => StageRow::Past,
                std::cmp::Ordering::Equal if status.state == State::Processing => StageRow::Now,
                std::cmp::Ordering::Equal => StageRow::Stopped,
                std::cmp::Ordering::Greater => StageRow::Ahead,
            }
        }
    }
}

/// The path.
#[component]
pub fn Stages(
    status: Memo<Status>,
    /// When it entered which stage, as of when the page was loaded.
    log: StageLog,
) -> impl IntoView {
    // Goes on with every status. Times are the server's, so the browser's clock doesn't matter.
    let log = Memo::new(move |before: Option<&StageLog>| {
        let mut log = before.unwrap_or(&log).clone();
        status.with(|status| log.note(status));
        log
    });
    let spent = move |step: usize| {
        let spent =
            Stage::ALL.get(step).and_then(|stage| log.with(|log| log.spent(*stage, status.with(|s| s.timestamp))))?;
        Some(text::lapse(spent))
    };
    let names = Stage::ALL.into_iter().map(|s| (s.as_str(), s.label())).chain([("done", "Done")]);
    let steps = names.enumerate().map(|(step, (name, label))| {
        let row = Memo::new(move |_| status.with(|s| row(s, step)));
        let spent = Memo::new(move |_| spent(step));
        view! {
            <li
                data-testid=format!("stage-{name}")
                data-place=move || row.get().name()
                aria-current=move || (row.get() == StageRow::Now).then_some("step")
            >
                <span class="stage-dot" aria-hidden="true"></span>
                <span>
                    {label}
                    <span class="hidden">{move || row.get().words()}</span>
                    {move || spent.get().map(|spent| view! { <span class="stage-time" data-testid="stage-time">{spent}</span> })}
                </span>
            </li>
        }
    });
    view! { <ol class="stages" aria-label="Stages">{steps.collect_view()}</ol> }
}
