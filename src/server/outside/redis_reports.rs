//! Processes the reports that outside workers publish over Redis. The bus puts them into its inbox, and they are
//! checked by the same rules as those over HTTP. Run by `node`.

use super::{
    Outside,
    live::BATCH,
    pending::{Pending, PendingReports},
    report::{self, NewSegment, Report},
};
use crate::{
    model::{SessionId, Status, Timestamp},
    server::{
        bus::{self, Inbox, OutsideMessage, Rejection},
        event::Event,
        owner::Owner,
        store, telemetry,
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
                Ok(true) => bus::count(Ok(())),
                Ok(false) => {}
                Err(rejection) => bus::count(Err(rejection)),
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
            if outside.store.report(&status, until).await? && status.state.is_terminal() {
                telemetry::count_ended(status.state);
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
#[derive(Deserialize)]
struct Head {
    index: Option<u32>,
    timestamp: Option<Timestamp>,
    attempt: Option<u32>,
}

impl Outside {
    /// Processes a message. True if it was new.
    async fn process(&self, message: &OutsideMessage, pending: &PendingReports) -> Result<bool, Rejection> {
        fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Rejection> {
            serde_json::from_slice(payload).map_err(|_| Rejection::Malformed)
        }
        let id = message.id;
        let head: Head = read(&message.payload)?;
        let (owner, mut known) = match self.bus.newest(id) {
            Some(known) => known,
            None => self.stored(id).await?,
        };
        if let Some(newer) = pending.newest(id).filter(|newer| newer.version > known.version) {
            known = Status { segments: known.segments, ..newer };
        }
        if head.index.is_some() {
            return self.take_segment(owner, &known, read(&message.payload)?).await;
        }
        let reported: Report = read(&message.payload)?;
        let version = reported.version.ok_or(Rejection::Malformed)?;
        if version == known.version {
            return Ok(false); // published already, by this node or by one that has stored it
        }
        let now = Timestamp::now();
        let mut status = report::status_after(&known, reported, now)?;
        // The message may come from another node of Hark, and all nodes must show the same.
        status.timestamp = head.timestamp.unwrap_or(now);
        status.attempt = head.attempt.unwrap_or(status.attempt);
        self.bus.tell_watchers_here(&Event::status(owner, status.clone()));
        let changes = status.changes(&known);
        pending.put(status, changes);
        Ok(true)
    }

    async fn take_segment(&self, owner: Owner, known: &Status, segment: NewSegment) -> Result<bool, Rejection> {
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
            Ok(false) => return Err(Rejection::Stale),
            Err(error) => {
                tracing::error!(session_id = %id, %error, "a segment of session {id} could not be stored and was dropped");
                return Ok(false); // not published, because it could get lost
            }
        }
        self.bus.tell_watchers_here(&Event::bare_segment(owner, id, &segment));
        Ok(true)
    }

    async fn stored(&self, id: SessionId) -> Result<(Owner, Status), Rejection> {
        match self.store.find(id).await {
            Ok(Some((session, owner))) => Ok((owner, session.status)),
            Ok(None) => Err(Rejection::Foreign),
            Err(error) => {
                tracing::error!(session_id = %id, %error, "session {id} could not be read, so a report on it was dropped");
                Err(Rejection::Foreign)
            }
        }
    }
}
