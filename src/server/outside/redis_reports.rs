//! Processes the reports that outside workers publish over Redis. The bus puts them into its inbox, and they are
//! checked by the same rules as those over HTTP. Run by `node`.

use super::{
    MAX_TRIES, Outside, lenient,
    live::BATCH,
    pending::{Pending, PendingReports},
    report::{self, NewSegment},
};
use crate::{
    model::{SessionId, Status, Timestamp},
    server::{
        bus::{self, Inbox, OutsideMessage, Refusal, Rejection},
        event::Event,
        owner::Owner,
        store,
    },
};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::time;
use tokio_util::sync::CancellationToken;

/// How often pending reports are stored.
const STORE_INTERVAL: Duration = Duration::from_secs(1);

/// Takes in the reports that outside workers publish over Redis: publishes each to this node's watchers at once, and
/// stores it. Other subscribed nodes do the same, and the store takes each version and each segment once. Runs until
/// `stop`.
pub async fn listen(outside: Arc<Outside>, inbox: Arc<Inbox>, stop: CancellationToken) {
    let pending = PendingReports::default();
    let process = async {
        loop {
            let message = inbox.take().await;
            match outside.process(&message, &pending).await {
                Ok(true) => {
                    bus::count(Ok(()));
                    inbox.refusals.taken(message.id);
                }
                Ok(false) => {}
                Err(refusal) => {
                    bus::count(Err(refusal.rejection));
                    inbox.refusals.refused(message.id, &refusal);
                }
            }
            // Lets storing and `stop` run, however much comes.
            tokio::task::consume_budget().await;
        }
    };
    // Runs concurrently, so that watchers don't wait for the database.
    let store = async {
        let mut interval = time::interval(STORE_INTERVAL);
        interval.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = pending.wait_urgent() => store_pending(&outside, &pending, false).await,
                _ = interval.tick() => store_pending(&outside, &pending, true).await,
            }
        }
    };
    stop.run_until_cancelled(async { tokio::join!(process, store) }).await;
    store_pending(&outside, &pending, true).await;
}

/// Stores pending reports: all, or only the urgent ones. What can't be stored is kept for the next time.
async fn store_pending(outside: &Outside, pending: &PendingReports, all: bool) {
    let until = outside.lease_until(Timestamp::now());
    let (urgent, progress): (Vec<Pending>, Vec<Pending>) =
        pending.due(all).into_iter().partition(|report| report.urgent);
    let stored = async {
        for Pending { status, .. } in urgent {
            let ends = status.state.is_terminal();
            let stored = outside.store.report(&status, until).await?;
            if ends && (stored || outside.store_end(&status, until).await?) {
                outside.bus.count_ended(&status);
            }
            pending.mark_stored(&status);
        }
        let progress: Vec<Status> = progress.into_iter().map(|report| report.status).collect();
        for batch in progress.chunks(BATCH) {
            outside.store.report_steps(batch, until).await?;
            batch.iter().for_each(|status| pending.mark_stored(status));
        }
        Ok::<(), sqlx::Error>(())
    };
    if let Err(error) = stored.await
        && !store::is_away(&error)
    {
        tracing::error!(%error, "reports of outside workers over Redis could not be stored; trying again");
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
    /// Processes a message. True if it was new.
    async fn process(&self, message: &OutsideMessage, pending: &PendingReports) -> Result<bool, Refusal> {
        let id = message.id;
        let head: Head = report::read(&message.payload)?;
        let (owner, mut known) = match self.bus.newest(id) {
            Some(known) => known,
            None => self.stored(id).await?,
        };
        if let Some(newer) = pending.newest(id).filter(|newer| newer.version > known.version) {
            known = Status { segments: known.segments, ..newer };
        }
        if head.index.is_some() {
            return self.take_segment(owner, &known, report::read(&message.payload)?).await;
        }
        let reported = report::read_report(&message.payload)?;
        // Published already, by this node or by one that has stored it.
        let same_end = known.state.is_terminal() && reported.status == Some(known.state);
        let new_end = reported.ends() && !known.state.is_terminal();
        let same_version = reported.version == Some(known.version);
        if same_end || (same_version && !new_end) {
            return Ok(false);
        }
        let now = Timestamp::now();
        let mut status = report::status_after(&known, reported, now)?;
        // The message may come from another node of Hark, and all nodes must show the same.
        status.timestamp = head.timestamp.unwrap_or(now);
        status.attempt = head.attempt.and_then(|attempt| attempt.try_into().ok()).unwrap_or(status.attempt);
        self.bus.tell_watchers_here(&Event::status(owner, status.clone()));
        let changes = status.changes(&known);
        pending.put(status, changes);
        Ok(true)
    }

    async fn take_segment(&self, owner: Owner, known: &Status, segment: NewSegment) -> Result<bool, Refusal> {
        let id = known.session_id;
        let segment = report::check_segment(segment)?;
        if segment.index < known.segments {
            return Ok(false);
        }
        report::check_not_ended(known)?;
        let until = self.lease_until(Timestamp::now());
        let added = self.store.report_segments(id, segment.index, std::slice::from_ref(&segment), until).await;
        match added {
            Ok(true) => {}
            // Another node stored it first, or it leaves a gap.
            Ok(false) if self.stored(id).await?.1.segments > segment.index => {}
            Ok(false) => {
                let why = format!("Segment {} isn't the next one; those before it are missing.", segment.index);
                return Err(Refusal::new(Rejection::Stale, "segment_hole", why));
            }
            Err(error) => {
                tracing::error!(session_id = %id, %error, "a segment of session {id} could not be stored and was dropped");
                return Ok(false); // not published, because it could get lost
            }
        }
        self.bus.tell_watchers_here(&Event::bare_segment(owner, id, &segment));
        Ok(true)
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
            let end = Status { version: session.status.version + 1, ..end.clone() };
            if self.store.report(&end, until).await? {
                self.bus.tell_watchers_here(&Event::status(owner, end));
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn stored(&self, id: SessionId) -> Result<(Owner, Status), Refusal> {
        match self.store.find(id).await {
            Ok(Some((session, owner))) => Ok((owner, session.status)),
            Ok(None) => Err(Refusal::new(Rejection::Foreign, "not_found", "There is no such session.")),
            Err(error) => {
                tracing::error!(session_id = %id, %error, "session {id} could not be read, so a report on it was dropped");
                Err(Refusal::new(Rejection::Foreign, "unread", ""))
            }
        }
    }
}
