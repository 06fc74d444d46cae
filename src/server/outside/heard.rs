//! What outside workers publish over Redis: the bus hears it, and it is checked by the same rule as what comes over HTTP.
//! Run by `server`.

use super::{
    Outside,
    live::BATCH,
    pending::{Pending, PendingReports},
    report::{self, NewSegment, Report},
};
use crate::{
    model::{SessionId, Status, Timestamp},
    server::{
        bus::{self, Foreign, Inbox, Rejection},
        event::Event,
        owner::Owner,
        telemetry,
    },
};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::time;
use tokio_util::sync::CancellationToken;

/// How often what was heard is stored.
const STORE_HEARD: Duration = Duration::from_secs(1);

/// Takes in what outside workers publish over Redis: shows it to this node's watchers at once, and stores it. Other nodes
/// that listen do the same, and the store takes each version and each segment once. Runs until `stop`.
pub async fn listen(outside: Arc<Outside>, heard: Arc<Inbox>, stop: CancellationToken) {
    let pending = PendingReports::default();
    let take = async {
        loop {
            let message = heard.take().await;
            match outside.take_heard(&message, &pending).await {
                Ok(true) => bus::count(Ok(())),
                Ok(false) => {}
                Err(rejection) => bus::count(Err(rejection)),
            }
            // However much comes, storing and `stop` get their turn.
            tokio::task::consume_budget().await;
        }
    };
    // Beside it, so that nobody who watches waits for the database.
    let store = async {
        let mut looks = time::interval(STORE_HEARD);
        looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = pending.urged() => store_heard(&outside, &pending, false).await,
                _ = looks.tick() => store_heard(&outside, &pending, true).await,
            }
        }
    };
    stop.run_until_cancelled(async { tokio::join!(take, store) }).await;
    store_heard(&outside, &pending, true).await;
}

/// Stores what was heard: all of it, or only what mustn't wait. What can't be stored stays for the next time.
async fn store_heard(outside: &Outside, pending: &PendingReports, all: bool) {
    let until = outside.silence(Timestamp::now());
    let (changes, steps): (Vec<Pending>, Vec<Pending>) = pending.due(all).into_iter().partition(|w| w.urgent);
    let stored = async {
        for Pending { status, .. } in changes {
            if outside.store.report(&status, until).await? && status.state.is_terminal() {
                telemetry::count_ended(status.state);
            }
            pending.done(&status);
        }
        let steps: Vec<Status> = steps.into_iter().map(|step| step.status).collect();
        for batch in steps.chunks(BATCH) {
            outside.store.report_steps(batch, until).await?;
            batch.iter().for_each(|status| pending.done(status));
        }
        Ok::<(), sqlx::Error>(())
    };
    if let Err(error) = stored.await {
        tracing::error!(%error, "what outside workers published could not be stored; trying again");
    }
}

/// The part of a message that tells which kind it is.
#[derive(Deserialize)]
struct Head {
    index: Option<u32>,
    timestamp: Option<Timestamp>,
    attempt: Option<u32>,
}

impl Outside {
    /// Whether it was news. Rejects what can't be.
    async fn take_heard(&self, message: &Foreign, pending: &PendingReports) -> Result<bool, Rejection> {
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
            return Ok(false); // what this node, or one that stored it before, has shown already
        }
        let now = Timestamp::now();
        let mut status = report::status_after(&known, reported, now)?;
        // Also what another node of Hark says of it comes this way, and must look alike on all.
        status.timestamp = head.timestamp.unwrap_or(now);
        status.attempt = head.attempt.unwrap_or(status.attempt);
        self.bus.tell_watchers_here(&Event::status(owner, status.clone()));
        let changes = status.changes(&known);
        pending.put(status, changes);
        Ok(true)
    }

    async fn take_segment(&self, owner: Owner, known: &Status, segment: NewSegment) -> Result<bool, Rejection> {
        let id = known.session_id;
        let segment = report::segment(segment)?;
        if segment.index < known.segments {
            return Ok(false);
        }
        report::not_ended(known)?;
        let until = self.silence(Timestamp::now());
        let added = self.store.report_segments(id, segment.index, std::slice::from_ref(&segment), until).await;
        match added {
            Ok(true) => {}
            // Another node was faster, or it leaves a hole.
            Ok(false) if self.stored(id).await?.1.segments > segment.index => {}
            Ok(false) => return Err(Rejection::Stale),
            Err(error) => {
                tracing::error!(session_id = %id, %error, "a segment of session {id} could not be stored");
                return Ok(false); // nothing is shown that could get lost
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
                tracing::error!(session_id = %id, %error, "session {id} could not be read");
                Err(Rejection::Foreign)
            }
        }
    }
}
