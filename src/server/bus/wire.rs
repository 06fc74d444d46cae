//! What goes over Redis between nodes, and what workers in any language may publish there. Pure: bytes in, changes out.
//!
//! - `transcription:status:{session_id}`: a status or a segment, as streams and polls give them. Nodes sign theirs; for the
//!   sessions of outside workers anybody's are taken.
//! - `transcription:nodes`: [`NodeNotice`] of sessions that appear, end or go, for nodes that don't listen for them yet. Signed.

use super::signature::Signer;
use crate::{
    model::{SegmentEvent, SessionId, State, Status},
    server::event::{Change, Event},
};
use serde::{Deserialize, Serialize};

/// What precedes a session's id in the name of its channel.
const STATUS: &str = "transcription:status:";
/// The channel that every node listens to.
pub(super) const NODES: &str = "transcription:nodes";
/// The largest message taken in, in bytes: the same as over HTTP.
pub(super) const MAX_MESSAGE: usize = 256 * 1024;

/// What every node must hear, whatever it listens for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub(super) enum NodeNotice {
    /// A session was queued, or has ended.
    Changed { session_id: SessionId, owner: String, status: State },
    /// A session was deleted.
    Deleted { session_id: SessionId, owner: String },
    /// An owner's streams must end.
    LoggedOut { owner: String },
    /// Changes may have been lost: compare with the store.
    Compare,
}

/// Why a message is ignored. The label of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It isn't JSON, or says what can't be.
    Malformed,
    /// It is larger than messages may be.
    Oversized,
    /// It is older than what is known, comes twice, or leaves a hole.
    Stale,
    /// It is about no session that this node listens for, or about another than its channel's.
    Foreign,
    /// Only a node may say this, and none with this node's key has signed it.
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

/// A message about a session of an outside worker, to be checked as what comes over HTTP is.
#[derive(Clone, Debug)]
pub struct Foreign {
    pub id: SessionId,
    pub payload: Vec<u8>,
}

/// The channel of a session.
pub(super) fn channel(id: SessionId) -> String {
    format!("{STATUS}{id}")
}

/// The session of a channel.
pub(super) fn session_of(channel: &str) -> Option<SessionId> {
    channel.strip_prefix(STATUS)?.parse().ok()
}

/// The messages that announce a change, each with its channel. `news`: whether nodes that don't listen must hear of it.
pub(super) fn messages(event: &Event, news: bool, signer: &Signer) -> Vec<(String, Vec<u8>)> {
    let sign = |(channel, json): (String, Vec<u8>)| {
        let signed = signer.sign(&channel, json);
        (channel, signed)
    };
    unsigned_messages(event, news).into_iter().map(sign).collect()
}

fn unsigned_messages(event: &Event, news: bool) -> Vec<(String, Vec<u8>)> {
    let owner = || event.owner.as_str().to_owned();
    let mut messages = Vec::with_capacity(2);
    match &event.change {
        Change::Status(status) => {
            messages.push((channel(status.session_id), json(status)));
            if news && status.state != State::Processing {
                let news = NodeNotice::Changed { session_id: status.session_id, owner: owner(), status: status.state };
                messages.push((NODES.to_owned(), json(&news)));
            }
        }
        Change::Segment(segment, status) => {
            let channel = channel(segment.session_id);
            messages.push((channel.clone(), json(segment)));
            messages.extend(status.as_ref().map(|status| (channel, json(status))));
        }
        Change::Deleted(id) => {
            messages.push((NODES.to_owned(), json(&NodeNotice::Deleted { session_id: *id, owner: owner() })));
        }
    }
    messages
}

/// The message of some news.
pub(super) fn notice(notice: &NodeNotice, signer: &Signer) -> (String, Vec<u8>) {
    (NODES.to_owned(), signer.sign(NODES, json(notice)))
}

/// Reads what a node said on the channel of nodes.
///
/// # Errors
/// Why it must be ignored.
pub(super) fn read_notice(payload: &[u8], signer: &Signer) -> Result<NodeNotice, Rejection> {
    if !signer.verifies(NODES, payload) {
        return Err(Rejection::Unsigned);
    }
    serde_json::from_slice(payload).map_err(|_| Rejection::Malformed)
}

/// Reads what a node said on the channel of a session of Hark's own workers.
///
/// # Errors
/// Why it must be ignored.
pub(super) fn read(id: SessionId, payload: &[u8], signer: &Signer) -> Result<Change, Rejection> {
    if !signer.verifies(&channel(id), payload) {
        return Err(Rejection::Unsigned);
    }
    let said: Said = serde_json::from_slice(payload).map_err(|_| Rejection::Malformed)?;
    match said {
        Said::Segment(segment) if segment.session_id != id => Err(Rejection::Foreign),
        Said::Status(status) if status.session_id != id => Err(Rejection::Foreign),
        Said::Segment(segment) if 0.0 <= segment.start && segment.start <= segment.end => {
            Ok(Change::Segment(segment, None))
        }
        Said::Status(status) if can_be(&status) => Ok(Change::Status(status)),
        Said::Segment(_) | Said::Status(_) => Err(Rejection::Malformed),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Status(Status),
    Segment(SegmentEvent),
}

fn can_be(status: &Status) -> bool {
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
        model::{Segment, Stage, Timestamp},
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
    fn what_is_published_is_read_again() {
        let owner = Owner::from_store("me".to_owned());
        let line =
            Segment { index: 3, start: 1.0, end: 2.0, text: "a\u{2028}b".to_owned(), confidence: None, words: vec![] };
        let sent = messages(&Event::segment(owner.clone(), &line, status()), true, &signer());
        assert_eq!(sent.iter().map(|(c, _)| session_of(c)).collect::<Vec<_>>(), [Some(id()), Some(id())]);
        assert!(
            matches!(read(id(), &sent[0].1, &signer()), Ok(Change::Segment(segment, None)) if segment.text == "a\u{2028}b")
        );
        assert!(matches!(read(id(), &sent[1].1, &signer()), Ok(Change::Status(read)) if read == status()));
        let queued =
            messages(&Event::status(owner.clone(), Status { state: State::Queued, ..status() }), true, &signer());
        let news = read_notice(&queued[1].1, &signer());
        assert_eq!(news, Ok(NodeNotice::Changed { session_id: id(), owner: "me".to_owned(), status: State::Queued }));
        let others = Signer::new([&b"another cluster's"[..]]);
        assert_eq!(read_notice(&queued[1].1, &others), Err(Rejection::Unsigned));
        assert!(matches!(read(id(), &queued[0].1, &others), Err(Rejection::Unsigned)));
        assert!(matches!(read(id(), &json(&status()), &signer()), Err(Rejection::Unsigned)));
        let quiet = messages(&Event::status(owner, Status { state: State::Queued, ..status() }), false, &signer());
        assert_eq!(quiet.len(), 1);
    }

    #[test]
    fn what_can_not_be_is_rejected() {
        let rejected = |payload: &[u8]| read(id(), &signer().sign(&channel(id()), payload.to_vec()), &signer()).err();
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
