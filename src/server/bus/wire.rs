//! The messages between nodes over Redis, and those that workers in any language may publish there. Pure: bytes in,
//! changes out.
//!
//! - `transcription:status:{session_id}`: a status or a segment, as in streams and polls. Nodes sign theirs; for the
//!   sessions of outside workers unsigned ones are accepted.
//! - `transcription:nodes`: a [`NodeNotice`] about sessions that appear, end, are renamed or deleted, for nodes that
//!   haven't subscribed to them; and about pages that a node saw. Signed.

use super::signature::Signer;
use crate::{
    model::{SegmentEvent, SessionId, State, Status},
    server::{
        event::{Change, Event},
        sightings::Sighting,
    },
};
use serde::{Deserialize, Serialize};

/// The prefix of the name of a session's channel.
const STATUS_PREFIX: &str = "transcription:status:";
/// The channel that every node subscribes to.
pub(super) const NODES: &str = "transcription:nodes";
/// The largest message accepted, in bytes: the same as over HTTP.
pub(super) const MAX_MESSAGE: usize = 256 * 1024;

/// A message to every node, whatever it has subscribed to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub(super) enum NodeNotice {
    /// A session was queued, or has ended.
    Changed { session_id: SessionId, owner: String, status: State },
    /// A session was given another title. Nodes of earlier releases ignore this.
    Renamed { session_id: SessionId, owner: String, title: String },
    /// A session was deleted.
    Deleted { session_id: SessionId, owner: String },
    /// An owner's streams must end.
    LoggedOut { owner: String },
    /// Changes may have been lost: compare with the store.
    Compare,
    /// A page opened a stream, polled or reported.
    Page(Sighting),
}

/// Why a message is ignored. Used as label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It isn't JSON, or has impossible values.
    Malformed,
    /// It is larger than messages may be.
    Oversized,
    /// It is older than what is known, a duplicate, or leaves a gap in the segments.
    Stale,
    /// It is about a session that this node hasn't subscribed to, or about another than its channel's.
    Foreign,
    /// Only a node may publish it, and it isn't signed with a key of this node.
    Unsigned,
}

impl Rejection {
    /// The name used as a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Oversized => "oversized",
            Self::Stale => "stale",
            Self::Foreign => "foreign",
            Self::Unsigned => "unsigned",
        }
    }
}

/// Why a report of an outside worker is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub rejection: Rejection,
    /// The code of the error that the worker would get over HTTP.
    pub code: &'static str,
    /// For whoever wrote the worker. Empty if there is nothing to say.
    pub reason: String,
}

impl Refusal {
    pub fn new(rejection: Rejection, code: &'static str, reason: impl Into<String>) -> Self {
        Self { rejection, code, reason: reason.into() }
    }
}

/// A message about a session of an outside worker, to be checked like a report over HTTP.
#[derive(Clone, Debug)]
pub struct OutsideMessage {
    pub id: SessionId,
    pub payload: Vec<u8>,
}

/// The state that a worker means by this name: however it is capitalised, and with the names `pending` and `canceled` of
/// other systems.
#[must_use]
pub fn state_named(name: &str) -> Option<State> {
    match name.trim().to_ascii_lowercase().as_str() {
        "pending" => Some(State::Queued),
        "canceled" => Some(State::Cancelled),
        name => name.parse().ok(),
    }
}

/// The channel of a session.
pub(super) fn channel(id: SessionId) -> String {
    format!("{STATUS_PREFIX}{id}")
}

/// The session of a channel.
pub(super) fn session_of(channel: &str) -> Option<SessionId> {
    channel.strip_prefix(STATUS_PREFIX)?.parse().ok()
}

/// The messages that announce a change, each with its channel. `notify_all`: whether nodes without a subscription to
/// the session must learn of it.
pub(super) fn messages(event: &Event, notify_all: bool, signer: &Signer) -> Vec<(String, Vec<u8>)> {
    let sign = |(channel, json): (String, Vec<u8>)| {
        let signed = signer.sign(&channel, json);
        (channel, signed)
    };
    unsigned_messages(event, notify_all).into_iter().map(sign).collect()
}

fn unsigned_messages(event: &Event, notify_all: bool) -> Vec<(String, Vec<u8>)> {
    let owner = || event.owner.as_str().to_owned();
    let mut messages = Vec::with_capacity(2);
    match &event.change {
        Change::Status(status) => {
            messages.push((channel(status.session_id), json(status)));
            if notify_all && status.state != State::Processing {
                let notice =
                    NodeNotice::Changed { session_id: status.session_id, owner: owner(), status: status.state };
                messages.push((NODES.to_owned(), json(&notice)));
            }
        }
        Change::Segment(segment, status) => {
            let channel = channel(segment.session_id);
            messages.push((channel.clone(), json(segment)));
            messages.extend(status.as_ref().map(|status| (channel, json(status))));
        }
        Change::Renamed(id, title) => {
            let title = title.as_str().to_owned();
            messages.push((NODES.to_owned(), json(&NodeNotice::Renamed { session_id: *id, owner: owner(), title })));
        }
        Change::Deleted(id) => {
            messages.push((NODES.to_owned(), json(&NodeNotice::Deleted { session_id: *id, owner: owner() })));
        }
    }
    messages
}

/// The signed message of a notice, with its channel.
pub(super) fn notice(notice: &NodeNotice, signer: &Signer) -> (String, Vec<u8>) {
    (NODES.to_owned(), signer.sign(NODES, json(notice)))
}

/// Parses a node's message on the channel of nodes.
///
/// # Errors
/// Why it must be ignored.
pub(super) fn parse_notice(payload: &[u8], signer: &Signer) -> Result<NodeNotice, Rejection> {
    if !signer.verifies(NODES, payload) {
        return Err(Rejection::Unsigned);
    }
    serde_json::from_slice(payload).map_err(|_| Rejection::Malformed)
}

/// Parses a node's message on the channel of a session of Hark's own workers.
///
/// # Errors
/// Why it must be ignored.
pub(super) fn parse(id: SessionId, payload: &[u8], signer: &Signer) -> Result<Change, Rejection> {
    if !signer.verifies(&channel(id), payload) {
        return Err(Rejection::Unsigned);
    }
    let payload: Payload = serde_json::from_slice(payload).map_err(|_| Rejection::Malformed)?;
    match payload {
        Payload::Segment(segment) if segment.session_id != id => Err(Rejection::Foreign),
        Payload::Status(status) if status.session_id != id => Err(Rejection::Foreign),
        Payload::Segment(segment) if 0.0 <= segment.start && segment.start <= segment.end => {
            Ok(Change::Segment(segment, None))
        }
        Payload::Status(status) if is_possible(&status) => Ok(Change::Status(*status)),
        Payload::Segment(_) | Payload::Status(_) => Err(Rejection::Malformed),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Payload {
    Status(Box<Status>),
    Segment(SegmentEvent),
}

fn is_possible(status: &Status) -> bool {
    let completed = status.state == State::Completed;
    let progress = match status.progress {
        Some(p) => (0.0..=100.0).contains(&p) && (p == 100.0) == completed,
        None => !completed,
    };
    let seconds = |s: f64| s.is_finite() && s >= 0.0;
    progress
        && status.version <= Status::MAX_VERSION
        && seconds(status.duration_processed)
        && status.duration_total.is_none_or(seconds)
        && status.processing_speed.is_none_or(|speed| speed.is_finite() && speed > 0.0)
        && (status.error.is_none() || status.state == State::Failed)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("the wire's types have string keys and always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Segment, Stage, Timestamp, Title},
        server::owner::Owner,
    };
    use serde_json::{Value, json};
    use uuid::Uuid;

    fn signer() -> Signer {
        Signer::new([&b"the nodes' key"[..]])
    }

    fn id() -> SessionId {
        SessionId(Uuid::from_u128(7))
    }

    fn status() -> Status {
        Status { version: 4, ..Status::new(id(), State::Processing, Some(Stage::Transcribing), Timestamp(0)) }
    }

    fn with(change: Value) -> Vec<u8> {
        let mut value = serde_json::to_value(status()).unwrap();
        value.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::to_vec(&value).unwrap()
    }

    #[test]
    fn published_messages_can_be_parsed() {
        let owner = Owner::from_store("me".to_owned());
        let line = Segment { speaker: Some(2), ..Segment::new(3, 1.0, 2.0, "a\u{2028}b") };
        let sent = messages(&Event::segment(owner.clone(), &line, status()), true, &signer());
        assert_eq!(sent.iter().map(|(c, _)| session_of(c)).collect::<Vec<_>>(), [Some(id()), Some(id())]);
        assert!(
            matches!(parse(id(), &sent[0].1, &signer()), Ok(Change::Segment(segment, None)) if segment.text == "a\u{2028}b" && segment.speaker == Some(2))
        );
        assert!(matches!(parse(id(), &sent[1].1, &signer()), Ok(Change::Status(read)) if read == status()));
        let queued =
            messages(&Event::status(owner.clone(), Status { state: State::Queued, ..status() }), true, &signer());
        let notice = parse_notice(&queued[1].1, &signer());
        assert_eq!(notice, Ok(NodeNotice::Changed { session_id: id(), owner: "me".to_owned(), status: State::Queued }));
        let others = Signer::new([&b"another cluster's"[..]]);
        assert_eq!(parse_notice(&queued[1].1, &others), Err(Rejection::Unsigned));
        assert!(matches!(parse(id(), &queued[0].1, &others), Err(Rejection::Unsigned)));
        assert!(matches!(parse(id(), &json(&status()), &signer()), Err(Rejection::Unsigned)));
        let title = Title::new("Another").unwrap();
        let renamed = messages(&Event::renamed(owner.clone(), id(), title), true, &signer());
        assert!(
            matches!(parse_notice(&renamed[0].1, &signer()), Ok(NodeNotice::Renamed { title, .. }) if title == "Another")
        );
        let quiet = messages(&Event::status(owner, Status { state: State::Queued, ..status() }), false, &signer());
        assert_eq!(quiet.len(), 1);
    }

    #[test]
    fn impossible_values_are_rejected() {
        let rejected = |payload: &[u8]| parse(id(), &signer().sign(&channel(id()), payload.to_vec()), &signer()).err();
        assert_eq!(rejected(br#"{"a"}"#), Some(Rejection::Malformed));
        assert_eq!(rejected(br#"{"a":1}"#), Some(Rejection::Malformed));
        assert_eq!(rejected(&with(json!({"session_id": Uuid::nil()}))), Some(Rejection::Foreign));
        for change in [
            json!({"progress": 101.0}),
            json!({"progress": -1}),
            json!({"progress": 100.0}),
            json!({"status": "completed"}),
            json!({"status": "done"}),
            json!({"version": 1u64 << 60}),
            json!({"version": -1}),
            json!({"duration_total": -2.0}),
            json!({"processing_speed": 0.0}),
            json!({"error": {"code": "a", "message": "b"}}),
        ] {
            assert_eq!(rejected(&with(change.clone())), Some(Rejection::Malformed), "{change}");
        }
        assert_eq!(rejected(&with(json!({"progress": 12.5, "node": "unknown fields do no harm"}))), None);
    }

    #[test]
    fn channels_name_their_session() {
        assert_eq!(session_of(&channel(id())), Some(id()));
        assert_eq!(session_of("transcription:status:everyone"), None);
        assert_eq!(session_of(NODES), None);
    }
}
