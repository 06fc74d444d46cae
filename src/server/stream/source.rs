//! The store as streams read it. While the database is away they wait for it: a stream that is open stays so.

use super::{Source, SourceError, SourceFuture};
use crate::{
    model::{Segment, SessionId, Status, Timestamp},
    server::{
        owner::Owner,
        store::{self, SEGMENT_PAGE, Store, recent_cutoff},
    },
};

use std::time::Duration;
use tokio::time;

/// The pause between two attempts to read from a database that is away. So that those who wait don't all come at once when
/// it is back, each waits a little longer than that, at random.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Reads, again and again while the database is away. Dropped with its stream.
async fn read<T, F>(read: impl Fn() -> F) -> Result<T, SourceError>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    loop {
        match read().await {
            Err(error) if store::is_away(&error) => {
                tracing::debug!(%error, "a status stream waits for the database");
                time::sleep(RETRY_PAUSE.mul_f64(1.0 + rand::random::<f64>())).await;
            }
            done => return Ok(done?),
        }
    }
}

impl Source for Store {
    fn session(&self, id: SessionId) -> SourceFuture<Option<(Owner, Status)>> {
        let store = self.clone();
        Box::pin(async move {
            let found = read(|| store.find(id)).await?;
            Ok(found.map(|(session, owner)| (owner, session.status)))
        })
    }

    fn segments(&self, id: SessionId, from: u32) -> SourceFuture<Vec<Segment>> {
        let store = self.clone();
        Box::pin(async move { read(|| store.segments(id, from, SEGMENT_PAGE)).await })
    }

    fn statuses(&self, owner: &Owner) -> SourceFuture<Vec<Status>> {
        let (store, owner) = (self.clone(), owner.clone());
        Box::pin(async move { read(|| store.statuses(&owner, recent_cutoff())).await })
    }

    fn is_signed_in(&self, sign_in: &str) -> SourceFuture<bool> {
        let (store, sign_in) = (self.clone(), sign_in.to_owned());
        Box::pin(async move { read(|| store.is_signed_in(&sign_in, Timestamp::now())).await })
    }
}
