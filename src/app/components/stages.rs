//! The list of stages of a session, with the current one marked and the time spent in each.

use crate::{
    app::{clock::Clock, detours::live_text, effect},
    feed::browser::dom,
    model::{Stage, StageLog, State, Status, Timestamp, text},
};
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

/// The rows after the stages that Hark's own workers have: a stage of an outside worker's own, and the end.
const OWN: usize = Stage::ALL.len();

/// The state of row `step`. A queued recording has been received already. `entered`: whether the session was in that stage,
/// which only matters if it is in a stage of an outside worker's own: that may have skipped any of Hark's.
fn row(status: &Status, step: usize, entered: bool) -> StageRow {
    let stage = status.stage.map(|s| Stage::ALL.iter().position(|other| *other == s).unwrap_or(OWN));
    match status.state {
        State::Completed => StageRow::Past,
        State::Queued if step == 0 => StageRow::Past,
        State::Queued => StageRow::Ahead,
        State::Processing | State::Failed | State::Cancelled => {
            // A session that is about to be processed has been received already.
            let current = stage.unwrap_or(0).max(usize::from(status.state == State::Processing));
            match step.cmp(&current) {
                std::cmp::Ordering::Less if current == OWN && step > 0 && !entered => StageRow::Ahead,
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
    let own = Memo::new(move |_| status.with(|s| s.stage.filter(Stage::is_own)));
    // The clock of the stage that runs goes on between two statuses, and while none arrive: by what the browser's clock has
    // advanced since the last one.
    let clock = Clock::expect();
    let received = RwSignal::new(None::<Timestamp>);
    effect(move || {
        status.track();
        received.set(dom::now());
    });
    let spent = move |step: usize| {
        let stage = if step == OWN { own.get() } else { Stage::ALL.get(step).copied() };
        let (at, runs) = status.with(|s| (s.timestamp, s.state == State::Processing));
        let since = || Some(clock.now()?.seconds_since(received.get()?));
        let now = if runs { at.plus_seconds(since().unwrap_or_default().max(0.0)) } else { at };
        log.with(|log| log.spent(stage?, now))
    };
    let names = Stage::ALL.iter().map(|s| (s.as_str(), s.label())).chain([("own", ""), ("done", "Done")]);
    let steps = names.enumerate().map(|(step, (name, label))| {
        let row = Memo::new(move |_| status.with(|s| row(s, step, spent(step).is_some())));
        let spent = Memo::new(move |_| spent(step).map(text::lapse));
        let label = move || own.get().filter(|_| step == OWN).map_or(label.to_owned(), |own| own.label().to_owned());
        view! {
            <li
                data-testid=format!("stage-{name}")
                hidden=move || step == OWN && own.get().is_none()
                data-row=move || row.get().name()
                aria-current=move || (row.get() == StageRow::Now).then_some("step")
            >
                <span class="stage-dot" aria-hidden="true"></span>
                <span>
                    <span inner_html=move || live_text(label())></span>
                    <span class="hidden" inner_html=move || row.get().words()></span>
                    {move || spent.get().map(|spent| view! {
                        <span class="stage-time" data-testid="stage-time" translate="no" inner_html=spent></span>
                    })}
                </span>
            </li>
        }
    });
    view! { <ol class="stages" aria-label="Stages">{steps.collect_view()}</ol> }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SessionId, Timestamp};
    use uuid::Uuid;

    #[test]
    fn a_workers_own_stage_leaves_those_ahead_that_it_skipped() {
        let own = Status::new(SessionId(Uuid::nil()), State::Processing, "Finding speakers".parse().ok(), Timestamp(0));
        let rows: Vec<_> = (0..=OWN + 1).map(|step| row(&own, step, step == 3).name()).collect();
        assert_eq!(rows, ["past", "ahead", "ahead", "past", "ahead", "now", "ahead"]);
        let failed = Status { state: State::Failed, ..own };
        assert_eq!(row(&failed, OWN, true).name(), "stopped");
        let known = Status { stage: Some(Stage::Transcribing), state: State::Processing, ..failed };
        let rows: Vec<_> = (0..=OWN + 1).map(|step| row(&known, step, false).name()).collect();
        assert_eq!(rows, ["past", "past", "past", "now", "ahead", "ahead", "ahead"]);
    }
}
