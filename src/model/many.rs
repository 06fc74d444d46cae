//! What an owner does to several sessions with one request, and what became of each.

use super::{ApiError, Session, SessionId, State, Status};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// An action on several sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManyAction {
    Retry,
    Cancel,
    Delete,
}

impl ManyAction {
    /// Every action.
    pub const ALL: [Self; 3] = [Self::Retry, Self::Cancel, Self::Delete];

    /// The most sessions that one request changes.
    pub const MAX_SESSIONS: usize = 200;

    /// The name in a form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Delete => "delete",
        }
    }

    /// What a session is after it.
    #[must_use]
    pub fn done(self) -> &'static str {
        match self {
            Self::Retry => "queued again",
            Self::Cancel => "cancelled",
            Self::Delete => "deleted",
        }
    }

    /// Whether it changes this session.
    #[must_use]
    pub fn suits(self, session: &Session) -> bool {
        match self {
            Self::Retry => session.may_retry(&session.status),
            Self::Cancel => !session.status.state.is_terminal(),
            Self::Delete => true,
        }
    }
}

impl FromStr for ManyAction {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|action| action.as_str() == name);
        found.ok_or_else(|| {
            format!("There is no action '{name}'; there are {}.", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// Whether a session has a text to be downloaded.
#[must_use]
pub fn has_text(status: &Status) -> bool {
    status.state == State::Completed || status.lines() > 0
}

/// What became of one of several sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub id: SessionId,
    /// The session as it is now, if it was changed; none if it was deleted.
    pub session: Option<Session>,
    /// Why nothing was done.
    pub error: Option<ApiError>,
}

/// What is said of those that failed, with their titles; none if none did. `of`: how many there were.
#[must_use]
pub fn failures(action: ManyAction, of: usize, failed: &[(Option<String>, &ApiError)]) -> Option<String> {
    let (first, others) = failed.split_first()?;
    let named = |(title, error): &(Option<String>, &ApiError)| match title {
        Some(title) => format!("“{title}”: {}", error.message),
        None => error.message.clone(),
    };
    let mut text = match of {
        1 => String::new(),
        of => format!("{} of {of} could not be {}. ", failed.len(), action.done()),
    };
    text += &named(first);
    for failure in others {
        text.push(' ');
        text += &named(failure);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EngineId, session::tests::session};

    #[test]
    fn actions_suit_states() {
        let suits_one_of = |engine, state| {
            let session = session(engine, state);
            ManyAction::ALL
                .into_iter()
                .filter(|action| action.suits(&session))
                .map(ManyAction::as_str)
                .collect::<Vec<_>>()
        };
        let suits = |state| suits_one_of(EngineId::Whisper, state);
        assert_eq!(suits(State::Queued), ["cancel", "delete"]);
        assert_eq!(suits(State::Processing), ["cancel", "delete"]);
        assert_eq!(suits(State::Completed), ["delete"]);
        assert_eq!(suits(State::Failed), ["retry", "delete"]);
        assert_eq!(suits(State::Cancelled), ["retry", "delete"]);
        // Only its worker can start it again.
        assert_eq!(suits_one_of(EngineId::External, State::Failed), ["delete"]);
        assert_eq!(suits_one_of(EngineId::External, State::Processing), ["cancel", "delete"]);
        assert!("x".parse::<ManyAction>().is_err_and(|error| error.contains("retry, cancel, delete")));
    }

    #[test]
    fn each_failure_is_told() {
        let error = ApiError::new("queue_full", "Too many wait.");
        let told = |of, failed: &[(Option<String>, &ApiError)]| failures(ManyAction::Retry, of, failed);
        assert_eq!(told(3, &[]), None);
        assert_eq!(told(1, &[(Some("a".into()), &error)]).as_deref(), Some("“a”: Too many wait."));
        assert_eq!(
            told(3, &[(Some("a".into()), &error), (None, &error)]).as_deref(),
            Some("2 of 3 could not be queued again. “a”: Too many wait. Too many wait.")
        );
    }
}
