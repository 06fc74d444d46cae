//! Reports on many sessions in one request. What the store must know of them is written in few statements. Of several
//! reports on one session each is checked against the one before, and the last that was taken is stored and published,
//! because only the newest status matters. Called by `http::outside::batch`.

use super::{
    MAX_TRIES, Outside,
    live::{BATCH, Live},
    report::{self, Floor, Report},
};
use crate::{
    model::{ApiError, SessionId, Status, Timestamp},
    server::{error::Error, event::Event, telemetry::traces::Step},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The most lines of a batch.
const MAX_LINES: usize = 1000;
/// The longest line, in bytes. Without a message a report has some hundred.
const MAX_LINE: usize = 64 * 1024;

/// What became of a line.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum LineResult {
    /// It was taken.
    Taken {
        session_id: SessionId,
        /// The version that the status got.
        version: u64,
    },
    /// It was refused.
    Refused {
        /// Null if the line says none, or can't be read.
        session_id: Option<SessionId>,
        error: ApiError,
    },
}

impl LineResult {
    fn refused(id: SessionId, error: &ApiError) -> Self {
        Self::Refused { session_id: Some(id), error: error.clone() }
    }
}

/// What becomes of reports on one session: the number of the line, and the version that the status gets.
type Outcomes = Vec<(usize, Result<u64, Error>)>;

/// What became of the lines of a batch, by the number of the line.
type Results = BTreeMap<usize, LineResult>;

/// A line without a report in it: its session as far as it says one, and what is wrong.
#[derive(Debug)]
struct BadLine {
    session_id: Option<SessionId>,
    error: Error,
}

/// The reports of a batch on one session, in order, each with the number of its line.
struct SessionReports {
    id: SessionId,
    reports: Vec<(usize, Report)>,
}

/// The lines of a batch. Blank ones don't count.
fn lines(body: &[u8]) -> Result<Vec<&str>, Error> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Error::BadRequest(format!("The body isn't UTF-8 from byte {} on.", error.valid_up_to())))?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).take(MAX_LINES + 1).collect();
    match lines.len() {
        0 => Err(Error::BadRequest("The body has no lines. Send a report as JSON in each line.".to_owned())),
        n if n > MAX_LINES => Err(Error::TooManyLines { limit: MAX_LINES }),
        _ => Ok(lines),
    }
}

fn read_line(line: &str) -> Result<(SessionId, Report), BadLine> {
    #[derive(Deserialize)]
    struct Head {
        session_id: SessionId,
    }
    if line.len() > MAX_LINE {
        return Err(BadLine { session_id: None, error: Error::MessageTooLarge { limit: MAX_LINE as u64 } });
    }
    let line = line.as_bytes();
    let head: Head = report::read(line).map_err(|error| BadLine { session_id: None, error: error.into() })?;
    let id = head.session_id;
    let report = report::read_report(line).map_err(|error| BadLine { session_id: Some(id), error: error.into() })?;
    Ok((id, report))
}

impl Outside {
    /// Takes in a batch of statuses from an outside worker, a JSON object in each line, and publishes them. Returns what
    /// became of each line, in order; one that is refused doesn't keep the others from being taken.
    ///
    /// # Errors
    /// If the body isn't UTF-8, or has no lines or too many; or if the database fails before anything was taken.
    pub async fn report_batch(&self, body: &[u8]) -> Result<Vec<LineResult>, Error> {
        let mut results = Results::new();
        let mut by_session: BTreeMap<SessionId, Vec<(usize, Report)>> = BTreeMap::new();
        for (number, line) in lines(body)?.into_iter().enumerate() {
            match read_line(line) {
                Ok((id, report)) => by_session.entry(id).or_default().push((number, report)),
                Err(BadLine { session_id, error }) => {
                    if let Some(id) = session_id {
                        self.log_refused(id, &error);
                    }
                    results.insert(number, LineResult::Refused { session_id, error: error.public() });
                }
            }
        }
        let sessions: Vec<SessionReports> =
            by_session.into_iter().map(|(id, reports)| SessionReports { id, reports }).collect();
        for some in sessions.chunks(BATCH) {
            self.report_some(some, &mut results).await?;
        }
        Ok(results.into_values().collect())
    }

    /// Takes in the reports on at most [`BATCH`] sessions, again if other nodes changed some of them meanwhile.
    ///
    /// # Errors
    /// If the database fails and nothing of the batch was taken. Otherwise the lines say that it failed.
    async fn report_some(&self, sessions: &[SessionReports], results: &mut Results) -> Result<(), Error> {
        let mut left: Vec<&SessionReports> = sessions.iter().collect();
        let mut tries = 0;
        let failed = loop {
            if left.is_empty() {
                return Ok(());
            }
            if tries == MAX_TRIES {
                break Error::Conflict("changed", "The session was changed elsewhere; look at it again.".to_owned());
            }
            tries += 1;
            match self.try_reports(&left, results).await {
                Ok(again) => left = again,
                Err(error) => break error,
            }
        };
        let is_taken = |result: &LineResult| matches!(result, LineResult::Taken { .. });
        if !matches!(failed, Error::Conflict(..)) && !results.values().any(is_taken) {
            return Err(failed);
        }
        let error = failed.public();
        for session in left {
            results.extend(session.reports.iter().map(|(line, _)| (*line, LineResult::refused(session.id, &error))));
        }
        Ok(())
    }

    /// Takes in the reports on at most [`BATCH`] sessions, which are in the order of their ids. Returns those sessions
    /// that another node changed meanwhile; their reports are to be tried again.
    async fn try_reports<'a>(
        &self,
        sessions: &[&'a SessionReports],
        results: &mut Results,
    ) -> Result<Vec<&'a SessionReports>, Error> {
        let ids: Vec<SessionId> = sessions.iter().map(|session| session.id).collect();
        let live = self.live.live_many(&self.store, &ids).await?;
        let now = Timestamp::now();
        let mut taken = Vec::with_capacity(live.len());
        for (session, (id, live)) in sessions.iter().zip(live) {
            match live {
                Ok(live) => {
                    let (status, floor, outcomes) = statuses_after(&live.status, live.floor, &session.reports, now);
                    taken.push((*session, live, (status, floor), outcomes));
                }
                Err(error) => {
                    self.log_refused(id, &error);
                    let error = error.public();
                    results.extend(session.reports.iter().map(|(line, _)| (*line, LineResult::refused(id, &error))));
                }
            }
        }
        let is_due = |status: &Status, live: &Live| {
            self.live.shared || status.changes(&live.status) || live.is_far_ahead(status)
        };
        let due: Vec<(u64, Status)> = taken
            .iter()
            .filter(|(_, live, (status, _), _)| status.version > live.status.version && is_due(status, live))
            .map(|(_, live, (status, _), _)| (live.status.version, status.clone()))
            .collect();
        let changes = taken.iter().filter(|(_, live, (status, _), _)| status.changes(&live.status));
        let steps: Vec<Step> = changes.map(|(session, ..)| Step::begin(session.id, "store")).collect();
        let mut written = self.store.report_many(&due, self.lease_until(now)).await?;
        drop(steps);
        let mut again = Vec::new();
        for (session, mut live, (status, floor), outcomes) in taken {
            let id = session.id;
            let is_new = status.version > live.status.version;
            let is_step = status.changes(&live.status);
            let stored = written.remove(&id);
            if is_new && is_due(&status, &live) && stored.is_none() {
                self.live.forget(&mut live);
                again.push(session);
                continue;
            }
            if is_new {
                let version = status.version;
                live.status = status;
                live.floor = floor;
                match stored {
                    Some(stored) => {
                        live.status.segments = stored.segments;
                        live.owner = stored.owner;
                        live.mark_stored(version, now);
                    }
                    None => live.dirty = true,
                }
                let _step = if is_step { Step::begin(id, "publish") } else { Step::default() };
                self.bus.publish(&Event::status(live.owner.clone(), live.status.clone()));
                if live.status.state.is_terminal() {
                    self.live.forget(&mut live);
                }
            }
            for (line, outcome) in outcomes {
                let result = match outcome {
                    Ok(version) => {
                        self.refusals.taken(id);
                        LineResult::Taken { session_id: id, version }
                    }
                    Err(error) => {
                        self.log_refused(id, &error);
                        LineResult::refused(id, &error.public())
                    }
                };
                results.insert(line, result);
            }
        }
        Ok(again)
    }
}

/// The status after several reports, of which those that can't be taken change nothing; what the next one must not be below;
/// and what becomes of each.
fn statuses_after(
    known: &Status,
    mut floor: Floor,
    reports: &[(usize, Report)],
    now: Timestamp,
) -> (Status, Floor, Outcomes) {
    let mut status = known.clone();
    let outcomes = reports.iter().map(|(line, report)| {
        let outcome = match report::status_after(&status, floor, report.clone(), now) {
            Ok(next) => {
                floor.note(&next);
                status = next;
                Ok(status.version)
            }
            Err(error) => Err(error.into()),
        };
        (*line, outcome)
    });
    let outcomes = outcomes.collect();
    (status, floor, outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Stage, State};
    use serde_json::{Value, json};
    use uuid::Uuid;

    const ID: &str = "00000000-0000-0000-0000-000000000007";

    #[test]
    fn lines_end_as_texts_of_any_system_do_and_blank_ones_do_not_count() {
        let read = |text: &str| lines(text.as_bytes()).unwrap().into_iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(read("a\nb\n"), ["a", "b"]);
        assert_eq!(read("\r\na\r\n\r\n \t\nb"), ["a", "b"]);
        for body in [&b""[..], b"\n\r\n  \n", b"{\"message\":\"\xff\"}"] {
            assert!(matches!(lines(body), Err(Error::BadRequest(_))), "{body:?}");
        }
        let many = "x\n".repeat(MAX_LINES);
        assert_eq!(lines(many.as_bytes()).unwrap().len(), MAX_LINES);
        let more = format!("{many}\n\ny");
        assert!(matches!(lines(more.as_bytes()), Err(Error::TooManyLines { limit: MAX_LINES })));
    }

    #[test]
    fn a_line_without_a_report_says_what_is_wrong_with_it() {
        let (id, report) = read_line(&format!(r#"{{"session_id":"{ID}","version":3,"progress":1}}"#)).unwrap();
        assert_eq!((id.to_string().as_str(), report.version), (ID, Some(3)));
        let long = format!(r#"{{"session_id":"{ID}","message":"{}"}}"#, "x".repeat(MAX_LINE));
        for (line, id, code, why) in [
            ("{\"session_id\":".to_owned(), None, "bad_request", "isn't JSON"),
            ("{}".to_owned(), None, "invalid_report", "session_id"),
            (r#"{"session_id":"x"}"#.to_owned(), None, "invalid_report", "session_id"),
            (format!(r#"["{ID}"]"#), Some(ID), "invalid_report", "an object"),
            (format!(r#"{{"session_id":"{ID}","progress":[]}}"#), Some(ID), "invalid_report", "progress"),
            (long, None, "too_large", "64 KiB"),
        ] {
            let bad = read_line(&line).unwrap_err();
            assert_eq!(bad.session_id.map(|id| id.to_string()).as_deref(), id, "{line}");
            let error = bad.error.public();
            assert_eq!(error.code, code, "{line}: {error}");
            assert!(error.message.contains(why), "{error}");
        }
    }

    #[test]
    fn each_report_is_checked_against_the_one_before() {
        let known = Status {
            version: 7,
            progress: Some(40.0),
            ..Status::new(SessionId(Uuid::nil()), State::Processing, Some(Stage::Transcribing), Timestamp(0))
        };
        let reports: Vec<(usize, Report)> = [
            json!({"version": 7}),
            json!({"version": 9, "progress": 50.0}),
            json!({"version": 9, "progress": 60.0}),
            json!({"progress": 70.0}),
            json!({"status": "completed", "version": 1}),
            json!({"version": 99}),
        ]
        .iter()
        .map(Value::to_string)
        .map(|json| report::read_report(json.as_bytes()).unwrap())
        .enumerate()
        .collect();
        let (status, floor, outcomes) = statuses_after(&known, Floor::default(), &reports, Timestamp(1));
        let outcomes: Vec<_> = outcomes.into_iter().map(|(_, outcome)| outcome.map_err(|e| e.code())).collect();
        let stale = Err("stale_version");
        assert_eq!(outcomes, [stale, Ok(9), stale, Ok(10), Ok(11), Err("ended")]);
        assert_eq!((status.version, status.state, status.progress), (11, State::Completed, Some(100.0)));
        assert_eq!(floor.progress, Some(100.0));
        // A report without progress doesn't lower what comes after it, in the same batch or in the next.
        let report = |json: Value| (0, report::read_report(json.to_string().as_bytes()).unwrap());
        let [hides, less] = [report(json!({"stage": "saving"})), report(json!({"progress": 20}))];
        let first = [report(json!({"progress": 80})), hides.clone(), less.clone(), hides];
        let (status, floor, _) = statuses_after(&known, Floor::default(), &first, Timestamp(1));
        assert_eq!((status.progress, floor.progress), (None, Some(80.0)));
        let (status, ..) = statuses_after(&status, floor, &[less], Timestamp(2));
        assert_eq!(status.progress, Some(80.0));
    }
}
