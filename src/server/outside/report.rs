//! The rules for reports of outside workers: which are valid, and which status they lead to. Pure. Called by `outside`
//! for reports over HTTP and by `redis_reports` for those over Redis.

use crate::{
    model::{Failure, Segment, Stage, State, Status, Timestamp, Word, unsure_words},
    server::{bus::Rejection, error::Error},
};
use serde::Deserialize;
use utoipa::ToSchema;

/// The longest text of a segment or a message, in bytes.
const MAX_TEXT: usize = 64 * 1024;

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
/// and `processing_speed`, which become unknown.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct Report {
    /// Higher than in every earlier report; one more than the last if left out.
    pub(super) version: Option<u64>,
    /// `processing` if left out.
    pub(super) status: Option<State>,
    pub(super) stage: Option<Stage>,
    /// 0 to 100; never falls; 100 only in `completed`; null if unknown.
    pub(super) progress: Option<f64>,
    pub(super) message: Option<String>,
    pub(super) duration_processed: Option<f64>,
    pub(super) duration_total: Option<f64>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) estimated_completion: Option<Timestamp>,
    pub(super) processing_speed: Option<f64>,
    /// Why it failed; only in `failed`.
    pub(super) error: Option<Failure>,
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

/// Why a report is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
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
            ReportError::Invalid(message) => Self::InvalidReport(message),
            ReportError::Conflict(code, message) => Self::Conflict(code, message),
        }
    }
}

impl From<ReportError> for Rejection {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Invalid(_) => Self::Malformed,
            ReportError::Conflict(..) => Self::Stale,
        }
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

/// The status that follows from the known one and a report.
///
/// # Errors
/// If the report isn't valid, or conflicts with the known status.
pub(super) fn status_after(known: &Status, report: Report, now: Timestamp) -> Result<Status, ReportError> {
    let invalid = |message: String| Err(ReportError::Invalid(message));
    check_not_ended(known)?;
    let version = report.version.unwrap_or(known.version + 1);
    if version <= known.version {
        return Err(ReportError::Conflict(
            "stale_version",
            format!("The version must be above {}, which is known already; {version} isn't.", known.version),
        ));
    }
    if version > Status::MAX_VERSION {
        let most = Status::MAX_VERSION;
        return invalid(format!("The version must be at most {most}, so that browsers read it exactly."));
    }
    let state = report.status.unwrap_or(State::Processing);
    if state == State::Queued && known.state != State::Queued {
        return invalid("A session that is being processed can't go back to 'queued'.".to_owned());
    }
    let progress = match report.progress {
        Some(p) if !(0.0..=100.0).contains(&p) => {
            return invalid(format!("The progress must be from 0 to 100, or null where it isn't known; {p} isn't."));
        }
        Some(p) if p == 100.0 && state != State::Completed => {
            return invalid("The progress is 100 only when the status is 'completed'.".to_owned());
        }
        Some(p) if state == State::Completed && p < 100.0 => {
            return invalid(format!("A completed session's progress is 100, not {p}."));
        }
        Some(p) if known.progress.is_some_and(|before| p < before) => {
            let before = known.progress.unwrap_or_default();
            return invalid(format!("The progress never falls: it was {before}, and {p} is less."));
        }
        None if state == State::Completed => Some(100.0),
        // A session that failed or was cancelled keeps the progress that it had.
        None if state.is_terminal() => known.progress,
        p => p,
    };
    if let Some(seconds) = report.duration_total {
        check_duration("duration_total", seconds)?;
    }
    if let Some(seconds) = report.duration_processed {
        check_duration("duration_processed", seconds)?;
    }
    if let Some(speed) = report.processing_speed
        && !(speed.is_finite() && speed > 0.0)
    {
        return invalid(format!("The processing_speed must be above 0, or null; {speed} isn't."));
    }
    if report.message.as_ref().is_some_and(|m| m.len() > MAX_TEXT) {
        return invalid(format!("The message is longer than {MAX_TEXT} bytes."));
    }
    if let Some(message) = &report.message {
        check_storable("message", message)?;
    }
    if let Some(error) = &report.error {
        check_storable("error's code", &error.code)?;
        check_storable("error's message", &error.message)?;
    }
    let error = match (state, report.error) {
        (State::Failed, Some(error)) => Some(error),
        (State::Failed, None) => {
            let message = report.message.clone().filter(|m| !m.is_empty());
            let message = message.unwrap_or_else(|| "The worker reported a failure.".to_owned());
            Some(Failure { code: "worker_failed".to_owned(), message })
        }
        (_, Some(_)) => return invalid("Only a failed session has an error.".to_owned()),
        (_, None) => None,
    };
    let stage = if state == State::Queued { None } else { report.stage.or(known.stage) };
    let message = report.message.unwrap_or_else(|| match (state, stage) {
        (State::Completed, _) => "Finished".to_owned(),
        (State::Cancelled, _) => "Cancelled".to_owned(),
        (State::Failed, _) => error.as_ref().map(|e| e.message.clone()).unwrap_or_default(),
        (_, Some(stage)) => stage.label().to_owned(),
        (_, None) => known.message.clone(),
    });
    let duration_total = report.duration_total.or(known.duration_total);
    let duration_processed = match (state, duration_total) {
        (State::Completed, Some(total)) => report.duration_processed.unwrap_or(total),
        _ => report.duration_processed.unwrap_or(known.duration_processed),
    };
    Ok(Status {
        version,
        state,
        stage,
        progress,
        message,
        timestamp: now,
        duration_processed,
        duration_total,
        estimated_completion: report.estimated_completion.filter(|_| !state.is_terminal()),
        processing_speed: report.processing_speed,
        queue_position: None,
        attempt: known.attempt.max(u32::from(state != State::Queued)),
        error,
        ..known.clone()
    })
}

pub(super) fn check_duration(name: &str, seconds: f64) -> Result<(), ReportError> {
    if seconds.is_finite() && seconds >= 0.0 {
        return Ok(());
    }
    Err(ReportError::Invalid(format!("The {name} must be a number of seconds from 0 on; {seconds} isn't.")))
}

/// Rejects the character 0, which PostgreSQL can't store: a report over Redis would be tried again for ever.
fn check_storable(name: &str, text: &str) -> Result<(), ReportError> {
    if text.contains('\0') {
        return Err(ReportError::Invalid(format!("The {name} contains the character 0; leave it out.")));
    }
    Ok(())
}

pub(super) fn check_segment(new: NewSegment) -> Result<Segment, ReportError> {
    let index = new.index;
    if !(new.start.is_finite() && new.end.is_finite() && 0.0 <= new.start && new.start <= new.end) {
        return Err(ReportError::Invalid(format!(
            "Segment {index} must start at 0 s or later and not end before it starts."
        )));
    }
    if new.text.len() > MAX_TEXT {
        return Err(ReportError::Invalid(format!(
            "The text of segment {index} is longer than {MAX_TEXT} bytes; send it as several segments."
        )));
    }
    check_storable(&format!("text of segment {index}"), &new.text)?;
    if new.confidence.is_some_and(|c| !(0.0..=1.0).contains(&c)) {
        return Err(ReportError::Invalid(format!("The confidence of segment {index} must be from 0 to 1.")));
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
        status_after(known, serde_json::from_value(report).unwrap(), NOW)
    }

    fn refused(report: Value) -> Option<&'static str> {
        match after(&known(), report) {
            Ok(_) => None,
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
    fn impossible_values_are_refused() {
        assert_eq!(refused(json!({"version": 7})), Some("stale_version"));
        for report in [
            json!({"version": Status::MAX_VERSION + 1}),
            json!({"status": "queued"}),
            json!({"progress": 39.9}),
            json!({"progress": 100.0}),
            json!({"progress": 101.0}),
            json!({"status": "completed", "progress": 99.0}),
            json!({"duration_total": -1.0}),
            json!({"duration_processed": -0.1}),
            json!({"processing_speed": 0.0}),
            json!({"message": "x".repeat(MAX_TEXT + 1)}),
            json!({"message": "a\0b"}),
            json!({"error": {"code": "x", "message": "y"}}),
            json!({"status": "failed", "error": {"code": "\0", "message": "y"}}),
        ] {
            assert_eq!(refused(report.clone()), Some("invalid"), "{report}");
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
    }

    #[test]
    fn http_and_redis_report_the_same_errors() {
        let (invalid, conflict) =
            (ReportError::Invalid("x".to_owned()), ReportError::Conflict("ended", "y".to_owned()));
        assert_eq!(Rejection::from(invalid.clone()), Rejection::Malformed);
        assert_eq!(Rejection::from(conflict.clone()), Rejection::Stale);
        assert!(matches!(Error::from(invalid), Error::InvalidReport(message) if message == "x"));
        assert!(matches!(Error::from(conflict), Error::Conflict("ended", message) if message == "y"));
    }
}
