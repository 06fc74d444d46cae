//! The list of stages of a session, with the current one marked and the time spent in each.

use crate::model::{Stage, StageLog, State, Status, text};
use leptos::prelude::*;

/// The state of a row in the list of stages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StageRow {
    Past,
    Now,
    Ahead,
    /// The session failed or was cancelled in this stage.
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

    /// The text for screen readers.
    fn words(self) -> &'static str {
        match self {
            Self::Past => ", done",
            Self::Now => ", now",
            Self::Ahead => "",
            Self::Stopped => ", stopped here",
        }
    }
}

/// The state of row `step`. The row after the last stage is the end. A queued recording has been received already.
fn row(status: &Status, step: usize) -> StageRow {
    let stage = status.stage.and_then(|s| Stage::ALL.iter().position(|other| *other == s));
    match status.state {
        State::Completed => StageRow::Past,
        State::Queued if step == 0 => StageRow::Past,
        State::Queued => StageRow::Ahead,
        State::Processing | State::Failed | State::Cancelled => {
            // A session that is about to be processed has been received already.
            let current = stage.unwrap_or(0).max(usize::from(status.state == State::Processing));
            match step.cmp(&current) {
                std::cmp::Ordering::Less => StageRow::Past,
                std::cmp::Ordering::Equal if status.state == State::Processing => StageRow::Now,
                std::cmp::Ordering::Equal => StageRow::Stopped,
                std::cmp::Ordering::Greater => StageRow::Ahead,
            }
        }
    }
}

/// The list of stages.
#[component]
pub fn Stages(
    status: Memo<Status>,
    /// When the session entered which stage, up to the loading of the page.
    log: StageLog,
) -> impl IntoView {
    // The log is continued with every status. All times are the server's, so the browser's clock doesn't matter.
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
                data-row=move || row.get().name()
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
