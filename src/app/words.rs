//! Texts about a status, for display and for screen readers. Pure; the components and the page titles use it.

use crate::{
    feed::Mode,
    model::{
        Session, Stage, State, Status, Timestamp, clock, duration,
        text::{self, length},
    },
};

/// The name of a state.
pub(crate) fn state(state: State) -> &'static str {
    match state {
        State::Queued => "Queued",
        State::Processing => "Processing",
        State::Completed => "Done",
        State::Failed => "Failed",
        State::Cancelled => "Cancelled",
    }
}

/// What is happening, in a word or two: `Queued`, `Transcribing`, `Done`.
pub(crate) fn step(status: &Status) -> String {
    let words = match (status.state, &status.stage) {
        // A running session has been received already, so its work is about to start.
        (State::Processing, Some(Stage::Receiving)) => "Starting",
        (State::Processing, Some(stage)) => stage.label(),
        (state, _) => self::state(state),
    };
    words.to_owned()
}

/// The progress bar as text: `43%, Transcribing`, `Queued, 2 ahead`.
pub(crate) fn progress(status: &Status) -> String {
    match (status.progress, queue_position(status)) {
        (_, Some(queue)) => format!("Queued, {queue}"),
        (Some(progress), _) => format!("{}, {}", text::percentage(progress), step(status)),
        (None, _) => step(status),
    }
}

/// The position in the queue: `next in line`, `2 ahead`.
pub(crate) fn queue_position(status: &Status) -> Option<String> {
    match (status.state, status.queue_position) {
        (State::Queued, Some(0)) => Some("next in line".to_owned()),
        (State::Queued, Some(n)) => Some(format!("{n} ahead")),
        _ => None,
    }
}

/// How much of the audio is done: `2:10 of 5:02`.
pub(crate) fn audio_done(status: &Status) -> Option<String> {
    match (status.state, status.duration_total) {
        (State::Queued, _) => None,
        (State::Processing, Some(total)) => Some(format!("{} of {}", clock(status.duration_processed), length(total))),
        (State::Completed, Some(total)) => Some(length(total)),
        (_, Some(total)) if status.duration_processed > 0.0 => {
            Some(format!("{} of {}", clock(status.duration_processed), length(total)))
        }
        (_, total) => total.map(length),
    }
}

/// The speed, until the session has ended: `2.3x`.
pub(crate) fn speed(status: &Status) -> Option<String> {
    status.processing_speed.filter(|_| !status.state.is_terminal()).map(text::speed)
}

/// When the session will be done, until it has ended.
pub(crate) fn arrival(status: &Status) -> Option<Timestamp> {
    status.estimated_completion.filter(|_| !status.state.is_terminal())
}

/// The time until `arrival`. Both times are by the server's clock.
pub(crate) fn time_until(arrival: Timestamp, now: Timestamp) -> String {
    format!("in {}", text::remaining(arrival.seconds_since(now)))
}

/// How many seconds ago the last news came: `updated just now`, `updated 12 s ago`.
pub(crate) fn updated(ago: f64) -> String {
    match ago {
        s if s < 2.0 => "updated just now".to_owned(),
        s => format!("updated {} ago", duration(s.floor())),
    }
}

/// Seconds without a word of the server after which people are told. Shorter than it takes to notice that a connection is dead, and
/// longer than a reconnect.
const SILENCE: f64 = 5.0;

/// That the server has said nothing for so many seconds, unless that is nothing yet.
pub(crate) fn silence(secs: f64) -> Option<String> {
    (secs >= SILENCE).then(|| format!("No word from the server for {}", duration(secs.floor())))
}

/// What goes on in a list: `1 running, 10 waiting, about 3 min`; empty if nothing does. `left`: the seconds until all is done, if
/// that is known.
pub(crate) fn work(running: usize, waiting: usize, left: Option<f64>) -> String {
    let part = |n: usize, what: &str| (n > 0).then(|| format!("{n} {what}"));
    let parts = [part(running, "running"), part(waiting, "waiting")];
    let left = left.filter(|_| running + waiting > 0).map(text::remaining);
    // An estimate of seconds says already that it is one.
    let left = left.map(|left| if left.starts_with('a') { left } else { format!("about {left}") });
    parts.into_iter().flatten().chain(left).collect::<Vec<_>>().join(", ")
}

/// What a list of another search, filter or page has, for screen readers: `50 sessions and more, 1 line of text`. `more`, `more_lines`:
/// whether there are more than these sessions and lines.
pub(crate) fn listed(sessions: usize, more: bool, lines: usize, more_lines: bool) -> String {
    let part = |n: usize, words: String, more: bool| (n > 0).then(|| if more { words + " and more" } else { words });
    let sessions = part(sessions, text::count(sessions, "session"), more);
    let lines = part(lines, text::count(lines, "line") + " of text", more_lines);
    let parts: Vec<_> = sessions.into_iter().chain(lines).collect();
    match parts.join(", ") {
        words if !words.is_empty() => words,
        _ if more_lines => "Nothing found in the newest sessions".to_owned(),
        _ => "Nothing found".to_owned(),
    }
}

/// How updates arrive. `streams`: whether polling is a fallback here.
pub(crate) fn connection(mode: Mode, streams: bool) -> &'static str {
    match mode {
        Mode::Off | Mode::Connecting => "",
        Mode::Live => "Live",
        Mode::Polling if streams => "Live updates don't get through here: they come every 3 s",
        Mode::Polling => "Updates come every 3 s",
        Mode::Offline => "This device is offline. The work goes on; this page will catch up.",
        Mode::Unreachable => "The server can't be reached. The work goes on; this page will catch up.",
        Mode::SignIn => "You have to sign in again. The work goes on; this page will catch up.",
    }
}

/// How long a completed session took, from its first attempt on.
pub(crate) fn processing_time(session: &Session, status: &Status) -> Option<String> {
    let (start, end) = (session.started_at?, session.finished_at.unwrap_or(status.timestamp));
    (status.state == State::Completed).then(|| duration(end.seconds_since(start).max(1.0)))
}

/// What a completed session came to: `22:16 in 4 s, base`. Empty before. `took`: its `processing_time`.
pub(crate) fn outcome(status: &Status, took: Option<String>, model: &str) -> String {
    if status.state != State::Completed {
        return String::new();
    }
    let length = status.duration_total.map(length);
    let work = length.into_iter().chain(took.map(|took| format!("in {took}"))).collect::<Vec<_>>().join(" ");
    let parts = [work, model.to_owned()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// The page's title: `63% · interview.mp3 · Hark`.
pub(crate) fn page_title(title: &str, status: &Status) -> String {
    let prefix = match (status.state, status.progress) {
        (State::Completed, _) => return format!("{title} · Hark"),
        (State::Processing, Some(progress)) => text::percentage(progress),
        _ => step(status),
    };
    format!("{prefix} · {title} · Hark")
}

/// The milestone that a status has reached, which screen readers announce: state, stage, and quarters of the transcription.
pub(crate) fn milestone(status: &Status) -> (State, Option<Stage>, u8) {
    let stage = status.stage.filter(|_| status.state == State::Processing);
    let quarter = status.progress.filter(|_| stage == Some(Stage::Transcribing)).map_or(0, |p| (p / 25.0) as u8);
    (status.state, stage, quarter)
}

/// The announcement of a milestone.
pub(crate) fn announcement(title: &str, status: &Status) -> String {
    match status.state {
        State::Processing => match milestone(status).2 {
            0 => format!("{title}: {}", step(status)),
            quarter => format!("{title}: {}, {} percent", step(status), u32::from(quarter) * 25),
        },
        State::Failed => {
            let why = status.error.as_ref().map_or("", |e| e.message.as_str());
            format!("{title}: failed. {why}")
        }
        _ => format!("{title}: {}", progress(status).to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_since_an_update_is_never_negative() {
        let texts = [0.0, 1.9, 2.0, 65.0, -5.0].map(updated);
        let now = "updated just now";
        assert_eq!(texts, [now, now, "updated 2 s ago", "updated 1 min 5 s ago", now]);
    }

    #[test]
    fn work_is_counted() {
        assert_eq!(work(1, 10, Some(180.0)), "1 running, 10 waiting, about 3 min");
        assert_eq!(work(2, 0, Some(2.0)), "2 running, a few seconds");
        assert_eq!(work(0, 1, None), "1 waiting");
        assert_eq!(work(0, 0, Some(5.0)), "");
    }

    #[test]
    fn what_a_list_has_is_told_in_few_words() {
        assert_eq!(listed(1, false, 0, false), "1 session");
        assert_eq!(listed(50, true, 1, false), "50 sessions and more, 1 line of text");
        assert_eq!(listed(0, false, 12, true), "12 lines of text and more");
        assert_eq!(listed(0, false, 0, true), "Nothing found in the newest sessions");
        assert_eq!(listed(0, false, 0, false), "Nothing found");
    }

    #[test]
    fn a_reconnect_is_no_silence() {
        assert_eq!([0.0, 4.9, -3.0].map(silence), [None, None, None]);
        assert_eq!(silence(8.3).as_deref(), Some("No word from the server for 8 s"));
    }

    #[test]
    fn only_a_fallback_mentions_live_updates() {
        assert!(connection(Mode::Polling, true).contains("Live updates don't get through"));
        assert!(!connection(Mode::Polling, false).contains("ive"));
    }

    use crate::model::SessionId;
    use uuid::Uuid;

    fn status(state: State, stage: Option<Stage>, progress: Option<f64>) -> Status {
        Status {
            progress,
            duration_processed: 130.0,
            duration_total: Some(302.0),
            estimated_completion: Some(Timestamp(1)),
            processing_speed: Some(2.3),
            queue_position: (state == State::Queued).then_some(2),
            ..Status::new(SessionId(Uuid::nil()), state, stage, Timestamp(0))
        }
    }

    #[test]
    fn progress_bars_have_a_text() {
        assert_eq!(progress(&status(State::Processing, Some(Stage::Transcribing), Some(43.2))), "43%, Transcribing");
        assert_eq!(progress(&status(State::Queued, None, None)), "Queued, 2 ahead");
        assert_eq!(progress(&status(State::Completed, None, Some(100.0))), "100%, Done");
        assert_eq!(progress(&status(State::Processing, Some(Stage::Decoding), None)), "Decoding");
        let own = "Finding speakers".parse().ok();
        assert_eq!(progress(&status(State::Processing, own, Some(43.2))), "43%, Finding speakers");
    }

    #[test]
    fn audio_done_is_shown_out_of_all_audio() {
        assert_eq!(audio_done(&status(State::Processing, None, None)).as_deref(), Some("2:10 of 5:02"));
        assert_eq!(audio_done(&status(State::Completed, None, None)).as_deref(), Some("5:02"));
        assert_eq!(audio_done(&status(State::Queued, None, None)), None);
    }

    #[test]
    fn a_completed_session_is_told_in_one_line() {
        let done = status(State::Completed, None, Some(100.0));
        assert_eq!(outcome(&done, Some("4 s".to_owned()), "base"), "5:02 in 4 s, base");
        let imported = Status { duration_total: None, ..done };
        assert_eq!(outcome(&imported, None, "PocketSphinx"), "PocketSphinx");
        assert_eq!(outcome(&status(State::Failed, None, Some(43.0)), None, "base"), "");
    }

    #[test]
    fn an_ended_session_has_no_speed_and_no_arrival_time() {
        let ended = status(State::Failed, None, None);
        assert_eq!((speed(&ended), arrival(&ended)), (None, None));
    }

    #[test]
    fn page_titles_begin_with_the_progress() {
        assert_eq!(page_title("a.mp3", &status(State::Processing, None, Some(63.9))), "63% · a.mp3 · Hark");
        assert_eq!(page_title("a.mp3", &status(State::Completed, None, Some(100.0))), "a.mp3 · Hark");
        assert_eq!(page_title("a.mp3", &status(State::Queued, None, None)), "Queued · a.mp3 · Hark");
    }

    #[test]
    fn only_stages_and_quarters_are_announced() {
        let at = |p| milestone(&status(State::Processing, Some(Stage::Transcribing), Some(p)));
        assert_eq!(at(1.0), at(24.9));
        assert_ne!(at(24.9), at(25.0));
        assert_eq!(
            announcement("a", &status(State::Processing, Some(Stage::Transcribing), Some(51.0))),
            "a: Transcribing, 50 percent"
        );
        // The last quarter isn't announced once more when everything has been heard.
        assert_eq!(announcement("a", &status(State::Processing, Some(Stage::Saving), Some(99.9))), "a: Saving");
    }
}
