//! What administrators see of the sessions of everybody, and do to them. Each action is what the owner or an operator could do,
//! by the same use cases, and is logged with who did it. Called by `http::admin`.

use super::{
    admin::Administrator,
    error::Error,
    sessions::Sessions,
    store::{ANY_IDLE_SECS, MAX_PAGE, OverseenSession, OversightFilter, PAGE, Resolution, STALLED_SECS},
};
use crate::model::{AdminAction, AdminOutcome, AdminSession, AdminSessionPage, EngineId, SessionId, State, Timestamp};

/// The most sessions that one request changes.
pub const MAX_AT_ONCE: usize = 200;
/// What the owner of a session reads that an administrator has ended.
const FAILED: &str = "An administrator ended this session. What was transcribed is kept; Retry goes on from there.";

/// Which sessions an administrator asks for, as it was sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OversightQuery {
    /// States, and `stalled` or `long_running`, with commas between. All that run, wait or failed if empty.
    pub state: String,
    /// The least and the greatest age in seconds, counted from when the session was created.
    pub min_age_secs: Option<f64>,
    pub max_age_secs: Option<f64>,
    pub node: Option<String>,
    pub cursor: Option<String>,
    pub limit: Option<u32>,
}

impl OversightQuery {
    fn filter(&self, now: Timestamp) -> Result<OversightFilter, Error> {
        let ago = |seconds: Option<f64>| seconds.filter(|seconds| seconds.is_finite()).map(|s| now.plus_seconds(-s));
        // PostgreSQL's texts can't have NUL.
        let node = self.node.as_deref().map(|node| node.replace('\0', "").trim().to_owned());
        let mut filter = OversightFilter {
            created_before: ago(self.min_age_secs),
            created_after: ago(self.max_age_secs),
            node: node.filter(|node| !node.is_empty()),
            ..OversightFilter::default()
        };
        for name in self.state.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "stalled" => filter.stalled = true,
                "long_running" => filter.long_running = true,
                name => filter.states.push(name.parse().map_err(|_| {
                    Error::BadRequest(format!(
                        "There is no state '{name}'; there are queued, processing, completed, failed, cancelled, stalled and \
                         long_running."
                    ))
                })?),
            }
        }
        if filter.states.is_empty() && !filter.stalled && !filter.long_running {
            filter.states = vec![State::Queued, State::Processing, State::Failed];
        }
        Ok(filter)
    }
}

/// Lists sessions of all owners, newest first.
///
/// # Errors
/// If the query can't be read, or the store fails.
pub async fn list(sessions: &Sessions, query: &OversightQuery) -> Result<AdminSessionPage, Error> {
    let store = &sessions.store;
    let now = store.now().await?;
    let filter = query.filter(now)?;
    let before = query.cursor.as_deref().filter(|cursor| !cursor.is_empty()).map(str::parse).transpose();
    let before =
        before.map_err(|_| Error::BadRequest("The cursor must be the next_cursor of an earlier page.".to_owned()))?;
    let limit = query.limit.unwrap_or(PAGE).min(MAX_PAGE);
    let mut found = store.overseen(&filter, before, limit + 1, now, STALLED_SECS).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| more).map(|last| last.session.id.to_string());
    Ok(AdminSessionPage { sessions: found.into_iter().map(|found| shown(found, now)).collect(), next_cursor })
}

fn shown(found: OverseenSession, now: Timestamp) -> AdminSession {
    let OverseenSession { session, owner, worker, stalled, long_running } = found;
    AdminSession {
        owner: owner.pseudonym(),
        // A worker is named after its node and its process.
        node: worker.map(|worker| worker.rsplit_once('-').map_or(worker.clone(), |(node, _)| node.to_owned())),
        stalled,
        long_running,
        unchanged_secs: now.seconds_since(session.status.timestamp).max(0.0),
        actions: AdminAction::ALL.into_iter().filter(|action| action.suits(&session)).collect(),
        session,
    }
}

/// Does the same to several sessions, whoever owns them, and says what became of each.
///
/// # Errors
/// If there are none or too many. What fails for a single session is its outcome.
pub async fn act(
    sessions: &Sessions,
    administrator: &Administrator,
    action: AdminAction,
    ids: &[SessionId],
) -> Result<Vec<AdminOutcome>, Error> {
    if ids.is_empty() {
        return Err(Error::BadRequest("Choose at least one session.".to_owned()));
    }
    if ids.len() > MAX_AT_ONCE {
        return Err(Error::BadRequest(format!(
            "{} sessions are too many for one request; send {MAX_AT_ONCE} at the most.",
            ids.len()
        )));
    }
    let name = administrator.name();
    let mut outcomes = Vec::with_capacity(ids.len());
    for &id in ids {
        let error = match act_on(sessions, action, id).await {
            Ok(()) => {
                tracing::info!(administrator = %name, session_id = %id, %action, "administrator {name}: session {id} was {}", action.done());
                None
            }
            Err(error) => {
                tracing::info!(administrator = %name, session_id = %id, %action, %error, "administrator {name}: session {id} could not be {}", action.done());
                Some(error.public())
            }
        };
        outcomes.push(AdminOutcome { id, done: error.is_none(), error });
    }
    Ok(outcomes)
}

async fn act_on(sessions: &Sessions, action: AdminAction, id: SessionId) -> Result<(), Error> {
    let store = &sessions.store;
    let (session, owner) = store.find(id).await?.ok_or(Error::NotFound)?;
    let state = session.status.state;
    let refused = |needed: &str| {
        let message = format!("The session is {state}; only {needed} can be {}.", action.done());
        Err(Error::Conflict("state", message))
    };
    match action {
        AdminAction::Retry if !matches!(state, State::Failed | State::Cancelled) => {
            refused("one that failed or was cancelled")
        }
        AdminAction::Retry => sessions.retry(&owner, None, id).await.map(drop),
        AdminAction::Requeue | AdminAction::Fail if state != State::Processing => {
            refused("one that is being processed")
        }
        AdminAction::Requeue if session.engine == EngineId::External => {
            let message = "A worker outside Hark reports on this session, and has to start it again itself.";
            Err(Error::Conflict("outside", message.to_owned()))
        }
        AdminAction::Requeue => take(sessions, id, session.status.attempt, Resolution::Requeue).await,
        AdminAction::Fail => {
            let _paused = sessions.outside.pause_reports(id).await?;
            take(sessions, id, session.status.attempt, Resolution::Fail(FAILED.to_owned())).await
        }
        AdminAction::Cancel if state.is_terminal() => refused("one that waits or runs"),
        AdminAction::Cancel => sessions.cancel(&owner, id).await.map(drop),
        AdminAction::Delete => sessions.delete(&owner, id).await,
    }
}

/// Takes a session from its worker, whether or not it hangs.
async fn take(sessions: &Sessions, id: SessionId, attempt: u32, resolution: Resolution) -> Result<(), Error> {
    let now = sessions.store.now().await?;
    match sessions.store.take_from_worker(id, attempt, &resolution, now, ANY_IDLE_SECS).await? {
        Some(event) => {
            sessions.bus.publish(&event);
            Ok(())
        }
        None => {
            Err(Error::Conflict("changed", "The session moved on in the same moment; look at it again.".to_owned()))
        }
    }
}
