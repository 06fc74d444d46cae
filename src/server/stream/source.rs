//! The store as streams read it.

use super::{Source, SourceFuture};
use crate::{
    model::{Segment, SessionId, Status},
    server::{
        owner::Owner,
        store::{SEGMENT_PAGE, Store, recent_cutoff},
    },
};

impl Source for Store {
    fn session(&self, id: SessionId) -> SourceFuture<Option<(Owner, Status)>> {
        let store = self.clone();
        Box::pin(async move {
            let found = store.find(id).await?;
            Ok(found.map(|(session, owner)| (owner, session.status)))
        })
    }

    fn segments(&self, id: SessionId, from: u32) -> SourceFuture<Vec<Segment>> {
        let store = self.clone();
        Box::pin(async move { Ok(store.segments(id, from, SEGMENT_PAGE).await?) })
    }

    fn statuses(&self, owner: &Owner) -> SourceFuture<Vec<Status>> {
        let (store, owner) = (self.clone(), owner.clone());
        Box::pin(async move { Ok(store.statuses(&owner, recent_cutoff()).await?) })
    }
}
