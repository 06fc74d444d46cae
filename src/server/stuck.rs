//! `hark sessions stuck`: lists the sessions that make no progress, and takes them from their workers. Works beside
//! running nodes, on the same database; the nodes find the changes in the store. Called by `main`.

use super::{
    manage::{self, DeleteArgs, ListArgs, StoreArgs},
    print,
    store::{Resolution, StuckSession},
};
use crate::model::{
    EngineId, Timestamp, duration,
    text::{count, lapse, percentage},
};
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// The exit code if sessions are stuck and stay so, for monitoring scripts.
const EXIT_STUCK: u8 = 3;

/// `hark sessions`.
#[derive(Subcommand)]
pub enum SessionsArgs {
    /// List the sessions that make no progress: nothing has changed for a while, the worker's lease has run out, or
    /// they have been processed for more than ten minutes and three times their length. With --requeue or --fail also
    /// take them from their workers. Exits with 0 if none is stuck or left stuck, with 3 otherwise.
    Stuck(StuckArgs),
    /// List the sessions of all owners, newest first.
    List(ListArgs),
    /// Delete sessions with their recordings and texts. Those that run are cancelled first. Running nodes find out
    /// within seconds; a page that shows one that had ended does when it is loaded again.
    Delete(DeleteArgs),
}

/// `hark sessions stuck`.
#[derive(Args)]
pub struct StuckArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Put them back into the queue. The next attempt continues after the last segment; this doesn't count as a crash.
    #[arg(long, conflicts_with = "fail")]
    requeue: bool,
    /// Let them fail, with a reason for their owners, who can try them again.
    #[arg(long)]
    fail: bool,
    /// A session counts as stuck when nothing has changed for this long, in seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=604_800))]
    idle_secs: u32,
}

/// Runs a subcommand of `hark sessions`.
pub async fn run(args: SessionsArgs) -> ExitCode {
    let done = match args {
        SessionsArgs::Stuck(args) => stuck(&args).await.map(|left_stuck| if left_stuck { EXIT_STUCK } else { 0 }),
        SessionsArgs::List(args) => manage::list(&args).await.map(|()| 0),
        SessionsArgs::Delete(args) => manage::delete(&args).await.map(|all| u8::from(!all)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            print::error(format_args!("hark: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// Lists stuck sessions, and requeues or fails them if asked to. True if any stays stuck.
async fn stuck(args: &StuckArgs) -> Result<bool, String> {
    let store = args.store.open().await?;
    let idle = f64::from(args.idle_secs);
    let broken = |e: sqlx::Error| format!("the database doesn't answer: {e}");
    let now = store.now().await.map_err(broken)?;
    let found = store.stuck(now, idle).await.map_err(broken)?;
    if found.is_empty() {
        print::line("no session is stuck");
        return Ok(false);
    }
    print::text(table(&found, now));
    if !args.requeue && !args.fail {
        print::line(format_args!(
            "stuck: {}; --requeue puts them back into the queue, --fail ends them",
            count(found.len(), "session")
        ));
        return Ok(true);
    }
    let mut left_stuck = false;
    for session in &found {
        let now = store.now().await.map_err(broken)?;
        let resolution = if args.requeue { Resolution::Requeue } else { Resolution::Fail(reason(session, now)) };
        let done = store.release(session, &resolution, now, idle).await.map_err(broken)?;
        let became = match (done.is_some(), resolution) {
            (true, Resolution::Requeue) => "is back in the queue",
            (true, Resolution::Fail(_)) => "has failed",
            (false, Resolution::Requeue) if session.engine == EngineId::External => {
                left_stuck = true;
                "was left: its worker is outside Hark and has to start it again; --fail would end it"
            }
            (false, _) => "was left: it moved on meanwhile",
        };
        print::line(format_args!("{} {became}", session.id));
    }
    store.close().await;
    Ok(left_stuck)
}

/// The reason that the owner of a failed session reads.
fn reason(session: &StuckSession, now: Timestamp) -> String {
    let why = if session.stalled {
        format!("nothing had changed for {}", duration(now.seconds_since(session.updated_at).max(0.0)))
    } else {
        "it ran for far longer than its recording should take".to_owned()
    };
    format!("An operator ended this session, because {why}. What was transcribed is kept; Retry goes on from there.")
}

/// The sessions as a table.
fn table(sessions: &[StuckSession], now: Timestamp) -> String {
    let heads = ["SESSION", "STATUS", "STAGE", "PROGRESS", "ATTEMPT", "WORKER", "UNCHANGED FOR", "LEASE", "WHY"];
    manage::columns(heads, sessions.iter().map(|session| row(session, now)))
}

fn row(session: &StuckSession, now: Timestamp) -> [String; 9] {
    let none = || "-".to_owned();
    let worker = match (&session.worker, session.engine) {
        (Some(name), _) => name.clone(),
        (None, EngineId::External) => "outside Hark".to_owned(),
        (None, _) => none(),
    };
    let lease = session.lease_until.map(|until| match until.seconds_since(now) {
        left if left >= 0.0 => format!("{} left", lapse(left)),
        over => format!("over for {}", lapse(-over)),
    });
    let why = match (session.stalled, session.long_running) {
        (true, true) => "stalled, too long",
        (true, false) => "stalled",
        (false, _) => "too long",
    };
    [
        session.id.to_string(),
        "processing".to_owned(),
        session.stage.map_or_else(none, |stage| stage.as_str().to_owned()),
        session.progress.map_or_else(none, percentage),
        session.attempt.to_string(),
        worker,
        lapse(now.seconds_since(session.updated_at).max(0.0)),
        lease.unwrap_or_else(none),
        why.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SessionId, Stage};

    fn session() -> StuckSession {
        StuckSession {
            id: SessionId(uuid::Uuid::nil()),
            engine: EngineId::Pocketsphinx,
            stage: Some(Stage::Transcribing),
            progress: Some(43.7),
            attempt: 2,
            worker: Some("host-17".to_owned()),
            updated_at: Timestamp(0),
            lease_until: Some(Timestamp(130_000)),
            stalled: true,
            long_running: false,
        }
    }

    #[test]
    fn the_table_is_aligned() {
        let outside = StuckSession {
            engine: EngineId::External,
            stage: None,
            progress: None,
            attempt: 1,
            worker: None,
            lease_until: None,
            long_running: true,
            ..session()
        };
        let text = table(&[session(), outside], Timestamp(125_000));
        let lines = [
            "SESSION                               STATUS      STAGE         PROGRESS  ATTEMPT  WORKER        UNCHANGED FOR  LEASE       WHY",
            "00000000-0000-0000-0000-000000000000  processing  transcribing  43%       2        host-17       2 min 5 s      5.0 s left  stalled",
            "00000000-0000-0000-0000-000000000000  processing  -             -         1        outside Hark  2 min 5 s      -           stalled, too long",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
        assert!(row(&session(), Timestamp(132_500))[7].contains("over for 2.5 s"));
    }

    #[test]
    fn the_reason_is_for_people() {
        let now = Timestamp(720_000);
        assert_eq!(
            reason(&session(), now),
            "An operator ended this session, because nothing had changed for 12 min. What was transcribed is kept; \
             Retry goes on from there."
        );
        let slow = StuckSession { stalled: false, long_running: true, ..session() };
        assert_eq!(
            reason(&slow, now),
            "An operator ended this session, because it ran for far longer than its recording should take. What was \
             transcribed is kept; Retry goes on from there."
        );
    }
}
