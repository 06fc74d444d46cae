//! Sessions as administrators see them: of all owners, with the worker that has one and whether it hangs. Built by
//! `server::oversight`, shown by `dashboard`.

use super::{Session, SessionId, State};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What an administrator can do to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub enum AdminAction {
    /// Queue a failed or cancelled session again; it continues after its last segment.
    Retry,
    /// Take a running session from its worker and put it back into the queue; it continues after its last segment.
    Requeue,
    /// Take a running session from its worker and let it fail. Its owner can retry it.
    Fail,
    /// Stop a session that waits or runs.
    Cancel,
    /// Remove a session with its recording and text for good.
    Delete,
}

impl AdminAction {
    /// Every action.
    pub const ALL: [Self; 5] = [Self::Retry, Self::Requeue, Self::Fail, Self::Cancel, Self::Delete];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Requeue => "requeue",
            Self::Fail => "fail",
            Self::Cancel => "cancel",
            Self::Delete => "delete",
        }
    }

    /// What was done, for a sentence: `3 sessions were put back into the queue`.
    #[must_use]
    pub fn done(self) -> &'static str {
        match self {
            Self::Retry => "queued again",
            Self::Requeue => "put back into the queue",
            Self::Fail => "ended as failed",
            Self::Cancel => "cancelled",
            Self::Delete => "deleted",
        }
    }

    /// Whether this can be done to a session.
    #[must_use]
    pub fn suits(self, session: &Session) -> bool {
        let state = session.status.state;
        match self {
            Self::Retry => session.may_retry(&session.status),
            Self::Requeue => state == State::Processing && session.is_own(),
            Self::Fail => state == State::Processing,
            Self::Cancel => !state.is_terminal(),
            Self::Delete => true,
        }
    }
}

impl fmt::Display for AdminAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AdminAction {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|action| action.as_str() == name);
        found.ok_or_else(|| {
            format!("There is no action '{name}'; there are {}.", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// A session with what only administrators see of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct AdminSession {
    #[serde(flatten)]
    pub session: Session,
    /// Its owner, as the log names it.
    pub owner: String,
    /// The node that works on it.
    pub node: Option<String>,
    /// Whether it is being processed and nothing has changed for a minute, or its worker's lease has run out.
    pub stalled: bool,
    /// Whether its attempt has taken more than ten minutes and three times the recording's length.
    pub long_running: bool,
    /// How long nothing has changed, in seconds.
    pub unchanged_secs: f64,
    /// What can be done to it.
    pub actions: Vec<AdminAction>,
}

/// A page of sessions, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct AdminSessionPage {
    pub sessions: Vec<AdminSession>,
    /// The cursor of the next page; none if this is the last one.
    pub next_cursor: Option<String>,
}

/// What became of one session of an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct AdminOutcome {
    pub id: SessionId,
    /// Whether it was done.
    pub done: bool,
    /// Why not.
    pub error: Option<super::ApiError>,
}
