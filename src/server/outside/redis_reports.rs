//! Processes the reports that outside workers publish over Redis. The bus puts them into its inbox, and they are
//! checked by the same rules as those over HTTP. Run by `node`.

use super::{
    MAX_TRIES, Outside, lenient,
    live::BATCH,
    pending::PendingReports,
    report::{self, Floor, NewSegment},
};
use crate::{
    model::{Segment, SessionId, Status, Timestamp},
    server::{
        bus::{self, Inbox, OutsideMessage, Refusal, Rejection},
        event::Event,
        owner::Owner,
        store::{self, OUTSIDE_VERSION_GAP},
    },
};
use serde::Deserialize;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::time;
use tokio_util::sync::CancellationToken;

/// How often pending reports are stored.
const STORE_INTERVAL: Duration = Duration::from_secs(1);

/// Takes in the reports that outside workers publish over Redis: publishes each to this node's watchers at once, and
/// stores it. Other subscribed nodes do the same, and the store takes each version and each segment once. Runs until
/// `stop`.
pub async fn listen(outside: Arc<Outside>, inbox: Arc<Inbox>, stop: CancellationToken) {
    let pending = PendingReports::default();
    let statuses = async {
        loop {
            let message = inbox.take(|id| outside.bus.is_known(id)).await;
            let taken = outside.take_status(&message, &pending).await;
            note(&inbox, message.id, taken);
            // Lets the others and `stop` run, however much comes.
            tokio::task::consume_budget().await;
        }
    };
    // These run concurrently, so that watchers don't wait for the database; only segments do, and what comes after them.
    let segments = async {
        loop {
            outside.take_slow(&inbox, &pending).await;
            inbox.processed();
        }
    };
    let store = async {
        let mut interval = time::interval(STORE_INTERVAL);
        interval.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = pending.wait_urgent() => store_pending(&outside, &pending, false).await,
                _ = interval.tick() => {
                    store_pending(&outside, &pending, true).await;
                    pending.keep_progress(|id| outside.bus.is_known(id));
                }
            }
        }
    };
    stop.run_until_cancelled(async { tokio::join!(statuses, segments, store) }).await;
    store_pending(&outside, &pending, true).await;
}

/// Counts a message: whether it was new, or why it was refused.
fn note(inbox: &Inbox, id: SessionId, taken: Result<bool, Refusal>) {
    match taken {
        Ok(true) => {
            bus::count(Ok(()));
            inbox.refusals.taken(id);
        }
        Ok(false) => {}
        Err(refusal) => {
            bus::count(Err(refusal.rejection));
            inbox.refusals.refused(id, &refusal);
        }
    }
}

/// Stores pending reports: all, or only the urgent ones. What can't be stored is kept for the next time.
async fn store_pending(outside: &Outside, pending: &PendingReports, all: bool) {
    let until = outside.lease_until(Timestamp::now());
    let stored = async {
        // A version that another node has stored isn't stored again.
        let due: Vec<(u64, Status)> =
            pending.due(all).into_iter().map(|status| (status.version.saturating_sub(1), status)).collect();
        for batch in due.chunks(BATCH) {
            let written = outside.store.report_many(batch, until).await?;
            let (written, refused): (Vec<&Status>, Vec<&Status>) =
                batch.iter().map(|(_, status)| status).partition(|status| written.contains_key(&status.session_id));
            for status in written {
                if status.state.is_terminal() {
                    outside.bus.count_ended(status);
                }
                pending.mark_stored(status);
            }
            for status in refused {
                if status.state.is_terminal() && outside.store_end(status, until).await? {
                    outside.bus.count_ended(status);
                }
                pending.mark_stored(status);
            }
        }
        Ok::<(), sqlx::Error>(())
    };
    if let Err(error) = stored.await
        && !store::is_away(&error)
    {
        tracing::error!(%error, "reports of outside workers over Redis could not be stored; trying again");
    }
}

/// Segments of a session that follow each other, and aren't stored yet.
struct Run {
    id: SessionId,
    owner: Owner,
    segments: Vec<Segment>,
}

impl Run {
    fn has(&self, index: u32) -> bool {
        self.segments.iter().any(|segment| segment.index == index)
    }
}

/// The fields of a message that say which kind it is, and those that only a node of Hark sends.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Head {
    index: Option<serde::de::IgnoredAny>,
    #[serde(deserialize_with = "lenient::time")]
    timestamp: Option<Timestamp>,
    #[serde(deserialize_with = "lenient::whole")]
    attempt: Option<u64>,
}

impl Outside {
    /// A session as it is known: by the watchers, by a report that isn't stored yet, or else by the store.
    async fn known(&self, id: SessionId, pending: &PendingReports) -> Result<(Owner, Status), Refusal> {
        let (owner, known) = match self.bus.newest(id) {
            Some(known) => known,
            None => {
                let (owner, stored) = self.stored(id).await?;
                // Another node may have stored what this message says, and the watchers here must get it all the same.
                self.bus.keep(&owner, &stored);
                (owner, stored)
            }
        };
        Ok(match pending.newest(id).filter(|newer| newer.version > known.version) {
            Some(newer) => (owner, Status { segments: known.segments, ..newer }),
            None => (owner, known),
        })
    }

    /// Takes in a status. True if it was new.
    async fn take_status(&self, message: &OutsideMessage, pending: &PendingReports) -> Result<bool, Refusal> {
        let id = message.id;
        let head: Head = report::read(&message.payload)?;
        let (owner, known) = self.known(id, pending).await?;
        let reported = report::read_report(&message.payload)?;
        // Published already, by this node or by one that has stored it.
        let same_end = known.state.is_terminal() && reported.status == Some(known.state);
        let new_end = reported.ends() && !known.state.is_terminal();
        let same_version = reported.version == Some(known.version);
        if same_end || (same_version && !new_end) {
            return Ok(false);
        }
        let now = Timestamp::now();
        // Statuses over Redis are shown before they are stored, and nodes count the versions themselves if the worker names
        // none. So other nodes, or those that have crashed, may have announced higher versions than this one knows. Nothing
        // comes after an end that would be newer, so it is above them all.
        let is_sure = reported.version > Some(known.version) && self.bus.is_announced(id);
        let version = if reported.ends() && !is_sure { known.version + OUTSIDE_VERSION_GAP } else { 0 };
        let mut floor = Floor { version, progress: pending.hidden_progress(id) };
        floor.note(&known);
        let mut status = report::status_after(&known, floor, reported, now)?;
        // The message may come from another node of Hark, and all nodes must show the same.
        status.timestamp = head.timestamp.unwrap_or(now);
        status.attempt = head.attempt.and_then(|attempt| attempt.try_into().ok()).unwrap_or(status.attempt);
        self.bus.tell_watchers_here(&Event::status(owner, status.clone()));
        floor.note(&status);
        pending.note_progress(&status, floor.progress);
        let changes = status.changes(&known);
        pending.put(status, changes);
        Ok(true)
    }

    /// Takes in the messages that must wait for the database: segments of many sessions, which are stored in one
    /// transaction, and statuses of sessions that aren't in memory.
    async fn take_slow(&self, inbox: &Inbox, pending: &PendingReports) {
        let mut runs: Vec<Run> = Vec::new();
        let mut later: Vec<Run> = Vec::new();
        for messages in inbox.take_slow(BATCH).await {
            let mut of_session: Vec<Run> = Vec::new();
            for message in messages {
                let is_segment = report::read(&message.payload).is_ok_and(|head: Head| head.index.is_some());
                if !is_segment {
                    note(inbox, message.id, self.take_status(&message, pending).await);
                    continue;
                }
                match self.check_segment(&message, pending).await {
                    Ok(None) => {}
                    // Sent twice.
                    Ok(Some((_, segment))) if of_session.iter().any(|run| run.has(segment.index)) => {}
                    Ok(Some((owner, segment))) => match of_session.last_mut() {
                        Some(run) if run.segments.last().is_some_and(|last| last.index + 1 == segment.index) => {
                            run.segments.push(segment);
                        }
                        _ => of_session.push(Run { id: message.id, owner, segments: vec![segment] }),
                    },
                    Err(refusal) => note(inbox, message.id, Err(refusal)),
                }
            }
            let mut of_session = of_session.into_iter();
            runs.extend(of_session.next());
            later.extend(of_session);
        }
        if runs.is_empty() {
            return;
        }
        let first: Vec<_> =
            runs.iter().map(|run| (run.id, run.segments.first().map_or(0, |s| s.index), &*run.segments)).collect();
        // If it fails, each session is tried by itself, so that none suffers from another's segments.
        let added = self.add_segments(&first).await.unwrap_or_default();
        for run in runs {
            if added.contains(&run.id) {
                self.tell_segments(inbox, &run.owner, run.id, &run.segments);
            } else {
                self.add_run(inbox, run).await;
            }
        }
        for run in later {
            self.add_run(inbox, run).await;
        }
    }

    /// Checks a message with a segment. None if the segment is known.
    async fn check_segment(
        &self,
        message: &OutsideMessage,
        pending: &PendingReports,
    ) -> Result<Option<(Owner, Segment)>, Refusal> {
        let new: NewSegment = report::read(&message.payload)?;
        let (owner, known) = self.known(message.id, pending).await?;
        let segment = report::check_segment(new)?;
        if segment.index < known.segments {
            return Ok(None);
        }
        report::check_not_ended(&known)?;
        Ok(Some((owner, segment)))
    }

    /// Adds segments to the store, as [`store::Store::report_segments_many`] does. As long as the database is away or full
    /// they wait, and with them what comes after them.
    async fn add_segments(&self, sessions: &[(SessionId, u32, &[Segment])]) -> Result<HashSet<SessionId>, sqlx::Error> {
        loop {
            let until = self.lease_until(Timestamp::now());
            match self.store.report_segments_many(sessions, until).await {
                Err(error) if may_pass(&error) => time::sleep(STORE_INTERVAL).await,
                done => return done,
            }
        }
    }

    /// Adds segments of which another node may have stored some already, or that leave a gap.
    async fn add_run(&self, inbox: &Inbox, run: Run) {
        let Run { id, owner, mut segments } = run;
        let refuse = |segments: &[Segment], refusal: Refusal| {
            segments.iter().for_each(|_| note(inbox, id, Err(refusal.clone())));
        };
        let error = loop {
            let stored = match self.store.find(id).await {
                Ok(Some((session, _))) => session.status,
                Ok(None) => return refuse(&segments, not_found()),
                Err(error) if may_pass(&error) => {
                    time::sleep(STORE_INTERVAL).await;
                    continue;
                }
                Err(error) => break error,
            };
            let left = segments.split_off(segments.partition_point(|segment| segment.index < stored.segments));
            self.tell_segments(inbox, &owner, id, &segments);
            segments = left;
            let Some(first) = segments.first() else { return };
            if let Err(error) = report::check_not_ended(&stored) {
                return refuse(&segments, error.into());
            }
            if first.index > stored.segments {
                let why = format!("Segment {} isn't the next one; those before it are missing.", first.index);
                return refuse(&segments, Refusal::new(Rejection::Stale, "segment_hole", why));
            }
            match self.add_segments(&[(id, first.index, &segments)]).await {
                Ok(added) if added.is_empty() => {} // changed meanwhile
                Ok(_) => return self.tell_segments(inbox, &owner, id, &segments),
                Err(error) => break error,
            }
        };
        // Not published, because they could get lost.
        tracing::error!(session_id = %id, %error, segments = segments.len(), "segments of session {id} could not be stored and were dropped");
    }

    fn tell_segments(&self, inbox: &Inbox, owner: &Owner, id: SessionId, segments: &[Segment]) {
        for segment in segments {
            self.bus.tell_watchers_here(&Event::bare_segment(owner.clone(), id, segment));
            note(inbox, id, Ok(true));
        }
    }

    /// Stores an end that the store refused because another node has stored progress of the same or a higher version:
    /// nodes count the versions themselves if the worker sends none. Nothing comes after an end, so it counts anyway.
    /// False if the session has ended already or is gone.
    async fn store_end(&self, end: &Status, until: Timestamp) -> Result<bool, sqlx::Error> {
        for _ in 0..MAX_TRIES {
            let Some((session, owner)) = self.store.find(end.session_id).await? else { return Ok(false) };
            if session.status.state.is_terminal() {
                return Ok(false);
            }
            let end = Status { version: end.version.max(session.status.version + 1), ..end.clone() };
            let written = self.store.report_many(&[(session.status.version, end.clone())], until).await?;
            if !written.is_empty() {
                self.bus.tell_watchers_here(&Event::status(owner, end));
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn stored(&self, id: SessionId) -> Result<(Owner, Status), Refusal> {
        match self.store.find(id).await {
            Ok(Some((session, owner))) => Ok((owner, session.status)),
            Ok(None) => Err(not_found()),
            Err(error) => {
                tracing::error!(session_id = %id, %error, "session {id} could not be read, so a report on it was dropped");
                Err(Refusal::new(Rejection::Foreign, "unread", ""))
            }
        }
    }
}

fn not_found() -> Refusal {
    Refusal::new(Rejection::Foreign, "not_found", "There is no such session.")
}

/// Whether the same may work soon, because nothing is wrong but the database's state.
fn may_pass(error: &sqlx::Error) -> bool {
    store::is_away(error) || store::is_transient(error) || store::is_full(error)
}
