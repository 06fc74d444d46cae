//! Stores reports on many sessions together: while the database writes some, the next ones are collected and then
//! written in one statement. Called by `outside`.

use crate::{
    model::{Status, Timestamp},
    server::store::{KeptConnection, Store, StoredReport},
};
use std::{collections::HashSet, mem, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time,
};

/// The most statuses in a statement.
const BATCH: usize = 64;
/// How long a report may wait for others on SQLite, and with how many it isn't kept waiting. A transaction for one report
/// costs as much as one for ten, and takes its time from the streams; watchers know the status by then.
const COLLECT_TIME: Duration = Duration::from_millis(4);
const ENOUGH: usize = 16;
/// How long after a report the connection to the database is kept for the next one.
const KEEP_TIME: Duration = Duration::from_millis(100);

/// Where reports wait to be written.
#[derive(Debug)]
pub(super) struct ReportWriter {
    queue: mpsc::UnboundedSender<Waiting>,
}

/// A status that waits, with the version that it follows.
#[derive(Debug)]
struct Waiting {
    after: u64,
    status: Status,
    stored: oneshot::Sender<Result<Option<StoredReport>, sqlx::Error>>,
}

impl ReportWriter {
    /// Starts to write what is put into the queue, until the writer is dropped. Each report extends its session's lease by
    /// `silence_secs`.
    pub(super) fn start(store: Store, silence_secs: u32) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(write_all(store, silence_secs, waiting));
        Self { queue }
    }

    /// Writes a status that follows the version `after`. None if the session has ended, doesn't exist, or has a version
    /// above that. As many wait as there are requests, so the queue needs no limit.
    ///
    /// # Errors
    /// If the database fails.
    pub(super) async fn store(&self, after: u64, status: Status) -> Result<Option<StoredReport>, sqlx::Error> {
        let (stored, answer) = oneshot::channel();
        // Fails only while the node stops.
        let _ = self.queue.send(Waiting { after, status, stored });
        answer.await.unwrap_or(Err(sqlx::Error::PoolClosed))
    }
}

async fn write_all(store: Store, silence_secs: u32, mut queue: mpsc::UnboundedReceiver<Waiting>) {
    let mut waiting = Vec::new();
    let mut kept = KeptConnection::default();
    loop {
        if waiting.is_empty() && time::timeout(KEEP_TIME, queue.recv_many(&mut waiting, BATCH)).await.is_err() {
            drop(mem::take(&mut kept));
            queue.recv_many(&mut waiting, BATCH).await;
        }
        if waiting.is_empty() {
            return;
        }
        if !store.is_shared() && waiting.len() < ENOUGH {
            let more = async { while waiting.len() < ENOUGH && queue.recv_many(&mut waiting, BATCH).await > 0 {} };
            let _ = time::timeout(COLLECT_TIME, more).await;
        }
        let until = Timestamp::now().plus_seconds(f64::from(silence_secs));
        // A statement takes one status of each session. A second one is there only if the first one's client has gone.
        let mut sessions = HashSet::new();
        let (batch, later) = waiting.into_iter().partition(|one: &Waiting| sessions.insert(one.status.session_id));
        waiting = later;
        write(&store, &mut kept, batch, until).await;
    }
}

async fn write(store: &Store, kept: &mut KeptConnection, batch: Vec<Waiting>, until: Timestamp) {
    let statuses: Vec<(u64, Status)> = batch.iter().map(|one| (one.after, one.status.clone())).collect();
    match store.report_many_on(kept, &statuses, until).await {
        Ok(mut written) => {
            for Waiting { status, stored, .. } in batch {
                let _ = stored.send(Ok(written.remove(&status.session_id)));
            }
        }
        Err(error) => match <[Waiting; 1]>::try_from(batch) {
            Ok([only]) => drop(only.stored.send(Err(error))),
            // Each by itself, so that one that the database can't take fails alone.
            Err(batch) => {
                for Waiting { after, status, stored } in batch {
                    let id = status.session_id;
                    let written = store.report_many_on(kept, &[(after, status)], until).await;
                    let _ = stored.send(written.map(|mut written| written.remove(&id)));
                }
            }
        },
    }
}
