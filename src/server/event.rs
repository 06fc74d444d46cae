//! Events: a change of a session with its owner. `store` returns one from every call that changes a status, `bus`
//! carries it, and `stream` sends it.

use super::owner::Owner;
use crate::model::{Segment, SegmentEvent, SessionId, Status, Title};

/// A change of a session, as the store returns it.
#[derive(Clone, Debug)]
pub struct Event {
    pub owner: Owner,
    pub change: Change,
}

/// What changed.
#[derive(Clone, Debug)]
pub enum Change {
    /// A newer status.
    Status(Status),
    /// A new segment, and the status that counts it unless that is announced on its own.
    Segment(SegmentEvent, Option<Status>),
    /// The session was given another title. Its status stays as it is, so its version does too.
    Renamed(SessionId, Title),
    /// The session was deleted.
    Deleted(SessionId),
}

impl Event {
    /// A status of a session of `owner`.
    #[must_use]
    pub fn status(owner: Owner, status: Status) -> Self {
        Self { owner, change: Change::Status(status) }
    }

    /// A segment of a session of `owner`, and the status that counts it.
    #[must_use]
    pub fn segment(owner: Owner, segment: &Segment, status: Status) -> Self {
        let announced = SegmentEvent::new(status.session_id, segment);
        Self { owner, change: Change::Segment(announced, Some(status)) }
    }

    /// A segment without a status, from a worker that reports statuses separately.
    #[must_use]
    pub fn bare_segment(owner: Owner, id: SessionId, segment: &Segment) -> Self {
        Self { owner, change: Change::Segment(SegmentEvent::new(id, segment), None) }
    }

    /// A new title of a session of `owner`.
    #[must_use]
    pub fn renamed(owner: Owner, id: SessionId, title: Title) -> Self {
        Self { owner, change: Change::Renamed(id, title) }
    }

    /// The deletion of a session of `owner`.
    #[must_use]
    pub fn deleted(owner: Owner, id: SessionId) -> Self {
        Self { owner, change: Change::Deleted(id) }
    }

    /// The status it carries, if any.
    #[must_use]
    pub fn new_status(&self) -> Option<&Status> {
        match &self.change {
            Change::Status(status) | Change::Segment(_, Some(status)) => Some(status),
            Change::Segment(_, None) | Change::Renamed(..) | Change::Deleted(_) => None,
        }
    }
}
