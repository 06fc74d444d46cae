//! Says in the log why reports of outside workers are refused: once for each session and reason, because a worker that
//! is wrong is wrong with every report. The inbox and `outside` call it.

use super::Refusal;
use crate::{model::SessionId, server::telemetry::lines};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The sessions that are remembered. With more, all are forgotten, and what is logged about them is logged once more.
const MAX_SESSIONS: usize = 4096;
/// The reasons that are logged of one session: some name what differs from report to report.
const MAX_REASONS: usize = 8;
/// How many old versions in a row are logged. A few are nothing special: another node may have stored newer ones.
const STALE_IN_A_ROW: u32 = 3;

/// The sessions of which reports were refused, by one of the ways that reports come in.
#[derive(Debug)]
pub struct RefusalLog {
    /// `HTTP` or `Redis`.
    via: &'static str,
    sessions: Mutex<HashMap<SessionId, Refused>>,
}

#[derive(Debug, Default)]
struct Refused {
    logged: Vec<Refusal>,
    stale_in_a_row: u32,
}

impl RefusalLog {
    pub fn new(via: &'static str) -> Self {
        Self { via, sessions: Mutex::default() }
    }

    /// Takes in that a report was refused, and logs it unless it was logged before.
    pub fn refused(&self, id: SessionId, refusal: &Refusal) {
        if !self.is_new(id, refusal) || !lines::REFUSED_MESSAGES.admit() {
            return;
        }
        let Refusal { code, reason, .. } = refusal;
        tracing::warn!(session_id = %id, via = self.via, code,
            "a report of the outside worker of session {id} over {} was refused: {reason} More of the kind aren't logged.",
            self.via);
    }

    /// Takes in that a report was taken.
    pub fn taken(&self, id: SessionId) {
        let mut sessions = self.lock();
        if !sessions.is_empty()
            && let Some(session) = sessions.get_mut(&id)
        {
            session.stale_in_a_row = 0;
        }
    }

    fn is_new(&self, id: SessionId, refusal: &Refusal) -> bool {
        if refusal.reason.is_empty() {
            return false;
        }
        let mut sessions = self.lock();
        if sessions.len() >= MAX_SESSIONS && !sessions.contains_key(&id) {
            sessions.clear();
        }
        let session = sessions.entry(id).or_default();
        let is_stale = refusal.code == "stale_version";
        session.stale_in_a_row = if is_stale { session.stale_in_a_row + 1 } else { 0 };
        let same = |known: &Refusal| {
            known.code == refusal.code && (refusal.code != "invalid_report" || known.reason == refusal.reason)
        };
        let is_new = session.logged.len() < MAX_REASONS
            && !session.logged.iter().any(same)
            && (!is_stale || session.stale_in_a_row >= STALE_IN_A_ROW);
        if is_new {
            session.logged.push(refusal.clone());
        }
        is_new
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Refused>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Rejection, *};
    use uuid::Uuid;

    fn id(n: u128) -> SessionId {
        SessionId(Uuid::from_u128(n))
    }

    #[test]
    fn each_reason_is_logged_once_for_each_session() {
        let log = RefusalLog::new("Redis");
        let invalid = |why: &str| Refusal::new(Rejection::Malformed, "invalid_report", why);
        let ended = |why: &str| Refusal::new(Rejection::Stale, "ended", why);
        let logged = [
            (1, invalid("status")),
            (1, invalid("status")),
            (1, invalid("progress")),
            (2, invalid("status")),
            (1, ended("It is completed.")),
            (1, ended("It is failed.")),
            (1, Refusal::new(Rejection::Foreign, "unread", "")),
        ]
        .map(|(session, refusal)| log.is_new(id(session), &refusal));
        assert_eq!(logged, [true, false, true, true, true, false, false]);
        let many = (0..100).filter(|n| log.is_new(id(3), &invalid(&n.to_string()))).count();
        assert_eq!(many, MAX_REASONS);
    }

    #[test]
    fn a_few_old_versions_are_not_worth_a_line() {
        let log = RefusalLog::new("Redis");
        let stale = Refusal::new(Rejection::Stale, "stale_version", "old");
        assert!(!log.is_new(id(1), &stale) && !log.is_new(id(1), &stale));
        log.taken(id(1));
        assert!(!log.is_new(id(1), &stale) && !log.is_new(id(1), &stale));
        assert!(log.is_new(id(1), &stale));
        assert!(!log.is_new(id(1), &stale));
    }
}
