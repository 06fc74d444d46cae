//! The rules for reports of outside workers: how they are read, which are valid, and which status they lead to. What
//! can be understood counts, even if some of it can't be so; progress never falls. Pure. Called by `outside` for
//! reports over HTTP and by `redis_reports` for those over Redis.

use super::lenient::{self, WORKER_FAILED};
use crate::{
    model::{Failure, Segment, Stage, State, Status, Timestamp, Word, round_speed, unsure_words},
    server::{
        bus::{Refusal, Rejection},
        error::Error,
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use std::fmt::Display;
use utoipa::ToSchema;

/// The longest text of a segment or a message, in bytes.
const MAX_TEXT: usize = 64 * 1024;
/// The most progress that is shown of a session that isn't completed.
const MAX_UNFINISHED: f64 = 99.9;
/// The highest speed that is shown; above it there would be no hundredths left in the number.
const MAX_SPEED: f64 = 1e9;

/// What a new session of an outside worker is made of.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Announcement {
    /// 1 to 200 characters.
    pub(super) title: Option<String>,
    /// Seconds of audio in all, if known.
    pub(super) duration_total: Option<f64>,
    /// The owner of the session: the value that follows the signature in the owner's cookie. The caller's own if left out.
    pub(super) owner: Option<String>,
    /// A BCP 47 tag such as `en`.
    pub(super) language: Option<String>,
}

/// A status as an outside worker reports it. What is left out stays as it was, except `progress`, `estimated_completion`
/// and `processing_speed`, which become unknown, and `message`, which becomes the stage's name. A number that can't be so
/// counts as left out, and so does a time that can't be understood.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct Report {
    /// Higher than in every earlier report; one more than the last, or more, if left out. That of an end may be any.
    #[serde(deserialize_with = "lenient::whole")]
    pub(super) version: Option<u64>,
    /// `processing` if left out. `pending` is understood as `queued`.
    #[serde(deserialize_with = "lenient::state")]
    pub(super) status: Option<State>,
    #[serde(deserialize_with = "lenient::stage")]
    pub(super) stage: Option<Stage>,
    /// 0 to 100; null if unknown. One that is lower than the highest before counts as that, and 100 counts as 99.9 until the
    /// session is completed.
    #[serde(deserialize_with = "lenient::number")]
    pub(super) progress: Option<f64>,
    #[serde(deserialize_with = "lenient::text")]
    pub(super) message: Option<String>,
    #[serde(deserialize_with = "lenient::number")]
    pub(super) duration_processed: Option<f64>,
    #[serde(deserialize_with = "lenient::number")]
    pub(super) duration_total: Option<f64>,
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(deserialize_with = "lenient::time")]
    pub(super) estimated_completion: Option<Timestamp>,
    #[serde(deserialize_with = "lenient::number")]
    pub(super) processing_speed: Option<f64>,
    /// Why it failed; ignored unless the status is `failed`. A text is understood as the message.
    #[serde(deserialize_with = "lenient::failure")]
    pub(super) error: Option<Failure>,
}

impl Report {
    /// Whether it says that the session has ended.
    pub(super) fn ends(&self) -> bool {
        self.status.is_some_and(State::is_terminal)
    }
}

/// A segment as an outside worker sends it.
#[derive(Debug, Deserialize, ToSchema)]
pub struct NewSegment {
    /// The number of segments before it.
    pub(super) index: u32,
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) text: String,
    pub(super) confidence: Option<f32>,
    #[serde(default)]
    pub(super) words: Vec<Word>,
    /// The number of the speaker, from 1, if the worker tells speakers apart.
    pub(super) speaker: Option<u16>,
}

/// Why a report is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// It can't be read at all.
    #[error("{0}")]
    NotJson(String),
    /// A value isn't valid.
    #[error("{0}")]
    Invalid(String),
    /// It conflicts with the session's current state: the error's code and message.
    #[error("{1}")]
    Conflict(&'static str, String),
}

impl From<ReportError> for Error {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::NotJson(message) => Self::BadRequest(message),
            ReportError::Invalid(message) => Self::InvalidReport(message),
            ReportError::Conflict(code, message) => Self::Conflict(code, message),
        }
    }
}

impl From<ReportError> for Refusal {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::NotJson(reason) => Self::new(Rejection::Malformed, "not_json", reason),
            ReportError::Invalid(reason) => Self::new(Rejection::Malformed, "invalid_report", reason),
            ReportError::Conflict(code, reason) => Self::new(Rejection::Stale, code, reason),
        }
    }
}

/// Reads a message of an outside worker.
///
/// # Errors
/// If it isn't JSON, or which field isn't as it must be, and why.
pub fn read<T: DeserializeOwned>(message: &[u8]) -> Result<T, ReportError> {
    // Following the path to each field costs more than all else, so only what can't be read is read again with it.
    serde_json::from_slice(message).or_else(|_| explain(message))
}

/// Reads a message that can't be read, to say why.
fn explain<T: DeserializeOwned>(message: &[u8]) -> Result<T, ReportError> {
    let mut json = serde_json::Deserializer::from_slice(message);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let why = error.into_inner();
        match field.as_str() {
            _ if !why.is_data() => ReportError::NotJson(format!("The message isn't JSON: {why}.")),
            "." => ReportError::Invalid(format!("The message doesn't fit: {why}.")),
            field => ReportError::Invalid(format!("The field {field} doesn't fit: {why}.")),
        }
    })?;
    json.end().map_err(|why| ReportError::NotJson(format!("The message isn't JSON: {why}.")))?;
    Ok(value)
}

/// Reads a status.
///
/// # Errors
/// As [`read`].
pub fn read_report(message: &[u8]) -> Result<Report, ReportError> {
    // Taken for the fields in their order otherwise.
    if message.trim_ascii_start().starts_with(b"[") {
        return Err(ReportError::Invalid("The message doesn't fit: it must be an object, and not a list.".to_owned()));
    }
    read(message)
}

/// Reads one segment, a list of them, or a list in the field `segments` of an object.
///
/// # Errors
/// As [`read`].
pub fn read_segments(message: &[u8]) -> Result<Vec<NewSegment>, ReportError> {
    #[derive(Deserialize)]
    struct Listed {
        segments: Vec<NewSegment>,
    }
    #[derive(Deserialize)]
    struct Shape {
        segments: Option<serde::de::IgnoredAny>,
    }
    if message.trim_ascii_start().starts_with(b"[") {
        read(message)
    } else if read::<Shape>(message)?.segments.is_some() {
        read(message).map(|listed: Listed| listed.segments)
    } else {
        read(message).map(|segment| vec![segment])
    }
}

pub(super) fn check_not_ended(known: &Status) -> Result<(), ReportError> {
    if known.state.is_terminal() {
        return Err(ReportError::Conflict(
            "ended",
            format!("The session is {}: nothing more can be reported.", known.state),
        ));
    }
    Ok(())
}

/// What the next status of a session must not be below, besides the known one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Floor {
    /// Versions below this may have been announced by a process that crashed before it stored them. A worker that names its
    /// versions knows which it has sent; one that names none must be given one that isn't below, and so must an end, after
    /// which nothing comes that would be newer.
    pub(super) version: u64,
    /// The highest progress of the session, which the known status may leave out; none if that has it.
    pub(super) progress: Option<f64>,
}

impl Floor {
    /// Notes that a status was reported.
    pub(super) fn note(&mut self, status: &Status) {
        self.progress = highest(self.progress, status.progress);
    }
}

fn highest(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.into_iter().chain(other).reduce(f64::max)
}

/// The status that follows from the known one and a report.
///
/// # Errors
/// If the session has ended, or the version isn't above the known one.
pub(super) fn status_after(
    known: &Status,
    floor: Floor,
    report: Report,
    now: Timestamp,
) -> Result<Status, ReportError> {
    check_not_ended(known)?;
    let state = match report.status.unwrap_or(State::Processing) {
        // A worker that was started again says so of a session that is being processed already.
        State::Queued => known.state,
        state => state,
    };
    let version = match report.version {
        None => floor.version.max(known.version + 1),
        Some(version) if version > known.version && version <= Status::MAX_REPORTED_VERSION => {
            if report.ends() {
                floor.version.max(version)
            } else {
                version
            }
        }
        // Nothing comes after an end, so it is never older than what is known.
        Some(_) if report.ends() => floor.version.max(known.version + 1),
        Some(version) if version > known.version => {
            let most = Status::MAX_REPORTED_VERSION;
            return Err(ReportError::Invalid(format!(
                "The version must be at most {most}, so that browsers read it exactly."
            )));
        }
        Some(version) => {
            return Err(ReportError::Conflict(
                "stale_version",
                format!("The version must be above {}, which is known already; {version} isn't.", known.version),
            ));
        }
    };
    let clean = |text: String| clean(text, MAX_TEXT);
    let given_message = report.message.map(clean);
    let error = (state == State::Failed).then(|| match report.error {
        Some(error) => Failure { code: clean(error.code), message: clean(error.message) },
        None => {
            let message = given_message.clone().filter(|m| !m.trim().is_empty());
            let message = message.unwrap_or_else(|| "The worker reported a failure.".to_owned());
            Failure { code: WORKER_FAILED.to_owned(), message }
        }
    });
    let stage = if state == State::Queued { None } else { report.stage.or(known.stage) };
    let message = given_message.unwrap_or_else(|| match (state, stage) {
        (State::Completed, _) => "Finished".to_owned(),
        (State::Cancelled, _) => "Cancelled".to_owned(),
        (State::Failed, _) => error.as_ref().map(|e| e.message.clone()).unwrap_or_default(),
        // Without a stage it is said of it what is done to every such session.
        (State::Processing, stage) => stage.unwrap_or(Stage::Transcribing).label().to_owned(),
        (State::Queued, _) => known.message.clone(),
    });
    let seconds = |seconds: Option<f64>| seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    let duration_total = seconds(report.duration_total).or(known.duration_total);
    let duration_processed = match (state, duration_total) {
        (State::Completed, Some(total)) => seconds(report.duration_processed).unwrap_or(total),
        _ => seconds(report.duration_processed).unwrap_or(known.duration_processed),
    };
    Ok(Status {
        version,
        state,
        stage,
        progress: progress_after(highest(floor.progress, known.progress), report.progress, state),
        message,
        timestamp: now,
        duration_processed: duration_processed.max(known.duration_processed),
        duration_total,
        estimated_completion: report.estimated_completion.filter(|_| !state.is_terminal()),
        processing_speed: report
            .processing_speed
            .filter(|speed| speed.is_finite() && *speed > 0.0)
            .map(|speed| round_speed(speed.min(MAX_SPEED))),
        queue_position: None,
        attempt: known.attempt.max(u32::from(state != State::Queued)),
        error,
        ..known.clone()
    })
}

/// The progress that is shown: never less than the highest before, and 100 only of what is completed. Below 0 it is unknown.
fn progress_after(highest: Option<f64>, reported: Option<f64>, state: State) -> Option<f64> {
    if state == State::Completed {
        return Some(100.0);
    }
    let reported = reported
        .filter(|p| *p >= 0.0)
        .map(|p| ((p * 10.0).round() / 10.0).min(MAX_UNFINISHED).max(highest.unwrap_or_default()));
    // A session that failed or was cancelled keeps the progress that it had.
    if state.is_terminal() { reported.or(highest) } else { reported }
}

/// A text without the character 0, which PostgreSQL can't store, and cut to `max` bytes.
fn clean(mut text: String, max: usize) -> String {
    text.retain(|char| char != '\0');
    text.truncate(text.floor_char_boundary(max));
    text
}

pub(super) fn check_duration(name: &str, seconds: f64) -> Result<(), ReportError> {
    if seconds.is_finite() && seconds >= 0.0 {
        return Ok(());
    }
    Err(ReportError::Invalid(format!("The {name} must be a number of seconds from 0 on; {seconds} isn't.")))
}

/// Refuses a segment or a word, which `name` names as it begins a sentence, whose times or confidence can't be so; or whose
/// text has the character 0, which PostgreSQL can't store: what came over Redis would be tried again for ever.
fn check_spoken(
    name: impl Display,
    (start, end): (f64, f64),
    text: &str,
    confidence: Option<f32>,
) -> Result<(), ReportError> {
    if !(start.is_finite() && end.is_finite() && 0.0 <= start && start <= end) {
        return Err(ReportError::Invalid(format!("{name} must start at 0 s or later and not end before it starts.")));
    }
    if text.contains('\0') {
        return Err(ReportError::Invalid(format!("{name} contains the character 0 in its text; leave it out.")));
    }
    if confidence.is_some_and(|c| !(0.0..=1.0).contains(&c)) {
        return Err(ReportError::Invalid(format!("{name} must have a confidence from 0 to 1.")));
    }
    Ok(())
}

pub(super) fn check_segment(new: NewSegment) -> Result<Segment, ReportError> {
    let index = new.index;
    check_spoken(format_args!("Segment {index}"), (new.start, new.end), &new.text, new.confidence)?;
    for (number, word) in (1..).zip(&new.words) {
        let name = format_args!("Word {number} of segment {index}");
        check_spoken(name, (word.start, word.end), &word.text, word.confidence)?;
    }
    if new.text.len() > MAX_TEXT {
        return Err(ReportError::Invalid(format!(
            "The text of segment {index} is longer than {MAX_TEXT} bytes; send it as several segments."
        )));
    }
    if new.speaker == Some(0) {
        return Err(ReportError::Invalid(format!("The speakers of segment {index} must be counted from 1.")));
    }
    Ok(Segment {
        index,
        start: new.start,
        end: new.end,
        unsure: unsure_words(&new.text, &new.words),
        text: new.text,
        confidence: new.confidence,
        words: new.words,
        speaker: new.speaker,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SessionId;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use uuid::Uuid;

    const NOW: Timestamp = Timestamp(1_000);

    /// Transcribing, 40 of 100 seconds done, at version 7.
    fn known() -> Status {
        Status {
            version: 7,
            progress: Some(40.0),
            duration_processed: 40.0,
            duration_total: Some(100.0),
            ..Status::new(SessionId(Uuid::from_u128(1)), State::Processing, Some(Stage::Transcribing), Timestamp(0))
        }
    }

    fn after(known: &Status, report: Value) -> Result<Status, ReportError> {
        status_after(known, Floor::default(), read_report(report.to_string().as_bytes())?, NOW)
    }

    fn refused(report: Value) -> Option<&'static str> {
        match after(&known(), report) {
            Ok(_) => None,
            Err(ReportError::NotJson(_)) => Some("not_json"),
            Err(ReportError::Invalid(_)) => Some("invalid"),
            Err(ReportError::Conflict(code, _)) => Some(code),
        }
    }

    #[test]
    fn missing_fields_keep_their_value_or_become_unknown() {
        let next = after(&known(), json!({})).unwrap();
        let wanted = Status { version: 8, timestamp: NOW, message: "Transcribing".to_owned(), ..known() };
        assert_eq!(next, Status { progress: None, ..wanted });
        let next = after(&known(), json!({"version": 20, "progress": 55.5, "processing_speed": 2.0})).unwrap();
        assert_eq!((next.version, next.progress, next.processing_speed), (20, Some(55.5), Some(2.0)));
    }

    #[test]
    fn after_a_crash_versions_that_hark_chooses_and_ends_are_above_all_that_may_have_been_announced() {
        let version = |known: &Status, report: Value| {
            status_after(
                known,
                Floor { version: 1_000, ..Floor::default() },
                read_report(report.to_string().as_bytes())?,
                NOW,
            )
            .map(|status| status.version)
        };
        for (report, wanted) in [
            (json!({"progress": 60}), 1_000),
            (json!({"status": "completed"}), 1_000),
            (json!({"version": 20, "status": "failed"}), 1_000),
            (json!({"version": 3, "status": "cancelled"}), 1_000),
            (json!({"version": 5_000, "status": "completed"}), 5_000),
            // The worker knows which versions it has sent.
            (json!({"version": 20, "progress": 60}), 20),
        ] {
            assert_eq!(version(&known(), report.clone()), Ok(wanted), "{report}");
        }
        let later = Status { version: 1_000, ..known() };
        assert_eq!(version(&later, json!({})), Ok(1_001));
        assert!(version(&later, json!({"version": 20})).is_err());
    }

    #[test]
    fn a_message_is_that_of_its_status_or_names_the_stage() {
        let waiting =
            Status { state: State::Queued, stage: None, message: "Waiting for its worker".to_owned(), ..known() };
        let message = |known: &Status, report: Value| after(known, report).unwrap().message;
        assert_eq!(message(&waiting, json!({"progress": 50})), "Transcribing");
        assert_eq!(message(&waiting, json!({"status": "pending"})), "Waiting for its worker");
        assert_eq!(message(&waiting, json!({"message": "Hello"})), "Hello");
        let greeted = after(&known(), json!({"stage": "warming up", "message": "Hello"})).unwrap();
        assert_eq!((&*greeted.message, &*message(&greeted, json!({"progress": 50}))), ("Hello", "warming up"));
    }

    #[test]
    fn a_terminal_status_is_complete() {
        let next =
            after(&known(), json!({"status": "completed", "estimated_completion": "2030-01-01T00:00:00Z"})).unwrap();
        assert_eq!((next.progress, next.duration_processed), (Some(100.0), 100.0));
        assert_eq!((next.message.as_str(), next.estimated_completion), ("Finished", None));
        let next = after(&known(), json!({"status": "failed", "message": "no speech"})).unwrap();
        assert_eq!(next.progress, Some(40.0), "the furthest it got");
        assert_eq!(next.error, Some(Failure { code: "worker_failed".to_owned(), message: "no speech".to_owned() }));
        for report in [json!({}), json!({"status": "queued"})] {
            let known = Status { state: State::Failed, ..known() };
            assert!(matches!(after(&known, report), Err(ReportError::Conflict("ended", _))));
        }
    }

    #[test]
    fn a_report_counts_even_if_some_of_it_can_not_be_so() {
        let next = |report: Value| after(&known(), report.clone()).unwrap_or_else(|error| panic!("{report}: {error}"));
        for (report, progress) in [
            (json!({"progress": 39.9}), Some(40.0)),
            (json!({"progress": 0}), Some(40.0)),
            (json!({"progress": 100.0}), Some(99.9)),
            (json!({"progress": 250}), Some(99.9)),
            (json!({"progress": -1}), None),
            (json!({"status": "completed", "progress": 99.0}), Some(100.0)),
            (json!({"status": "failed", "progress": 0}), Some(40.0)),
            (json!({"status": "cancelled", "progress": 100}), Some(99.9)),
        ] {
            assert_eq!(next(report.clone()).progress, progress, "{report}");
        }
        let odd = next(json!({"duration_total": -1.0, "duration_processed": -0.1, "processing_speed": 0.0}));
        assert_eq!((odd.duration_total, odd.duration_processed, odd.processing_speed), (Some(100.0), 40.0, None));
        assert_eq!(next(json!({"duration_processed": 0})).duration_processed, 40.0);
        assert_eq!(next(json!({"message": "x".repeat(MAX_TEXT + 1)})).message.len(), MAX_TEXT);
        assert_eq!(next(json!({"message": "a\0b"})).message, "ab");
        assert_eq!(next(json!({"error": {"code": "x", "message": "y"}})).error, None);
        // In the digits that every status has.
        for (given, wanted) in [("12.34", 40.0), ("45.67", 45.7), ("99.97", 99.9)] {
            assert_eq!(next(json!({"progress": given})).progress, Some(wanted), "{given}");
        }
        for (given, wanted) in [(1e-9, 0.01), (4.567, 4.57), (1e300, MAX_SPEED)] {
            assert_eq!(next(json!({"processing_speed": given})).processing_speed, Some(wanted), "{given}");
        }
        assert_eq!(next(json!({"estimated_completion": 1e300})).estimated_completion, None);
        // A worker that was started again.
        assert_eq!(next(json!({"status": "pending"})).state, State::Processing);
        assert_eq!(next(json!({"stage": "diarizing"})).stage.unwrap().as_str(), "diarizing");
        assert_eq!(next(json!({"stage": "diarizing"})).message, "diarizing");
        assert_eq!(next(json!({"stage": ""})).stage, Some(Stage::Transcribing));
        let eta = next(json!({"estimated_completion": "1970-01-01T00:00:02"})).estimated_completion;
        assert_eq!(eta, Some(Timestamp(2_000)));
    }

    #[test]
    fn the_form_that_older_workers_send_is_understood() {
        let failed = json!({
            "status": "failed", "progress": 0, "message": "no speech", "timestamp": "2026-11-27T07:02:09.123456",
            "error": "no speech was found", "stage": null, "estimated_completion": null,
        });
        let next = after(&known(), failed).unwrap();
        assert_eq!((next.version, next.state, next.progress), (8, State::Failed, Some(40.0)));
        assert_eq!(next.error.unwrap().message, "no speech was found");
    }

    #[test]
    fn what_can_not_be_understood_is_refused_with_the_field() {
        assert_eq!(refused(json!({"version": 7})), Some("stale_version"));
        // Nothing comes after an end, so its version doesn't matter.
        assert_eq!(after(&known(), json!({"version": 2, "status": "failed"})).unwrap().version, 8);
        for (report, field) in [
            (json!({"version": Status::MAX_REPORTED_VERSION + 1}), "version"),
            (json!({"version": -1}), "version"),
            (json!({"version": "seven"}), "version"),
            (json!({"status": "finished"}), "status"),
            (json!({"progress": "half"}), "progress"),
            (json!({"message": ["a"]}), "message"),
            (json!({"status": "failed", "error": 7}), "error"),
        ] {
            let error = after(&known(), report.clone()).unwrap_err();
            assert!(matches!(&error, ReportError::Invalid(why) if why.contains(field)), "{report}: {error}");
        }
        assert!(matches!(read_report(b"{\"version\":").unwrap_err(), ReportError::NotJson(_)));
        assert!(matches!(read_report(b"{} {}").unwrap_err(), ReportError::NotJson(_)));
        assert!(matches!(read_report(b"[]").unwrap_err(), ReportError::Invalid(_)));
    }

    #[test]
    fn segments_are_read_alone_in_a_list_and_in_an_object() {
        let one = r#"{"index":0,"start":0,"end":1,"text":"a"}"#;
        for message in [one.to_owned(), format!(" [{one}]"), format!(r#"{{"segments":[{one}]}}"#)] {
            assert_eq!(read_segments(message.as_bytes()).unwrap().len(), 1, "{message}");
        }
        let error = read_segments(format!(r#"[{one},{{"index":1,"start":"a"}}]"#).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("[1].start"), "{error}");
    }

    fn any_report() -> impl Strategy<Value = Value> {
        let states = ["pending", "queued", "processing", "completed", "failed", "canceled"];
        let state = prop_oneof![8 => Just(Value::Null), 4 => Just(json!("processing")),
            1 => prop::sample::select(states.to_vec()).prop_map(|state| json!(state))];
        let number = || prop_oneof![Just(Value::Null), (-50.0..200.0).prop_map(|n: f64| json!(n))];
        let version = prop_oneof![3 => Just(Value::Null), 1 => (0u64..50).prop_map(|n| json!(n))];
        let stage = prop_oneof![Just(Value::Null), Just(json!("transcribing")), ".{0,70}".prop_map(|s| json!(s))];
        (state, number(), number(), number(), version, stage).prop_map(
            |(status, progress, processed, speed, version, stage)| {
                json!({"status": status, "progress": progress, "duration_processed": processed,
                    "processing_speed": speed, "version": version, "stage": stage})
            },
        )
    }

    proptest! {
        #[test]
        fn progress_never_falls_and_no_report_takes_a_finished_session_back(
            reports in prop::collection::vec(any_report(), 0..40),
        ) {
            let mut status = Status { state: State::Queued, stage: None, progress: None, ..known() };
            let mut floor = Floor::default();
            let mut furthest: f64 = 0.0;
            for report in reports {
                let before = status.clone();
                let read = read_report(report.to_string().as_bytes());
                match read.and_then(|read| status_after(&before, floor, read, NOW)) {
                    Ok(next) => {
                        floor.note(&next);
                        prop_assert!(!before.state.is_terminal(), "{report} was taken after {before:?}");
                        prop_assert!(next.version > before.version);
                        prop_assert!(before.state == State::Queued || next.state != State::Queued, "{report}");
                        prop_assert!(next.duration_processed >= before.duration_processed);
                        prop_assert_eq!(next.progress == Some(100.0), next.state == State::Completed);
                        prop_assert_eq!(next.error.is_some(), next.state == State::Failed);
                        if let Some(progress) = next.progress {
                            prop_assert!((furthest..=100.0).contains(&progress), "{progress} after {furthest}");
                        }
                        furthest = furthest.max(next.progress.unwrap_or_default());
                        status = next;
                    }
                    Err(ReportError::Conflict("ended", _)) => prop_assert!(before.state.is_terminal()),
                    Err(ReportError::Conflict("stale_version", _)) => prop_assert!(
                        report["version"].as_u64() <= Some(before.version) && !before.state.is_terminal()
                    ),
                    Err(error) => prop_assert!(false, "{report}: {error}"),
                }
            }
        }
    }

    #[test]
    fn segments_are_checked() {
        let checked = |report: Value| check_segment(serde_json::from_value(report).unwrap());
        assert!(checked(json!({"index": 0, "start": 0.0, "end": 0.0, "text": ""})).is_ok());
        for report in [
            json!({"index": 0, "start": -0.1, "end": 1.0, "text": "a"}),
            json!({"index": 0, "start": 2.0, "end": 1.0, "text": "a"}),
            json!({"index": 0, "start": 0.0, "end": 1.0, "text": "x".repeat(MAX_TEXT + 1)}),
            json!({"index": 0, "start": 0.0, "end": 1.0, "text": "a\0b"}),
            json!({"index": 0, "start": 0.0, "end": 1.0, "text": "a", "confidence": 1.5}),
        ] {
            assert!(matches!(checked(report.clone()), Err(ReportError::Invalid(_))), "{report}");
        }
        let with_word = |word: Value| {
            let first = json!({"text": "one", "start": 0.0, "end": 0.5, "confidence": 1.0});
            checked(json!({"index": 3, "start": 0.0, "end": 1.0, "text": "one two", "words": [first, word]}))
        };
        assert!(with_word(json!({"text": "two", "start": 0.5, "end": 0.5})).is_ok());
        for word in [
            json!({"text": "two", "start": 5.0, "end": 4.0}),
            json!({"text": "two", "start": -0.1, "end": 1.0}),
            json!({"text": "two", "start": 0.5, "end": 1.0, "confidence": 7}),
            json!({"text": "t\0wo", "start": 0.5, "end": 1.0}),
        ] {
            let Err(ReportError::Invalid(why)) = with_word(word.clone()) else { panic!("{word} was taken") };
            assert!(why.starts_with("Word 2 of segment 3 "), "{why}");
        }
    }

    #[test]
    fn http_and_redis_report_the_same_errors() {
        let (invalid, conflict) =
            (ReportError::Invalid("x".to_owned()), ReportError::Conflict("ended", "y".to_owned()));
        assert_eq!(Refusal::from(invalid.clone()).rejection, Rejection::Malformed);
        assert_eq!(Refusal::from(conflict.clone()).rejection, Rejection::Stale);
        assert!(matches!(Error::from(invalid), Error::InvalidReport(message) if message == "x"));
        assert!(matches!(Error::from(conflict), Error::Conflict("ended", message) if message == "y"));
    }
}
