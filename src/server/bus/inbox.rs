//! Messages that outside workers published over Redis and that weren't processed yet: of each session the newest
//! status, and the segments in order. Filled by `redis`, emptied by `outside::listen`. However much comes at once, no
//! session's last status is lost.

use super::{OutsideMessage, Rejection};
use crate::model::SessionId;
use serde::{Deserialize, de::IgnoredAny};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Bytes of messages that may wait, of all sessions, before segments are dropped: more than workers publish while a
/// database restarts. Statuses, of which each session has one or a few, may take as much again.
const MAX_BYTES_WITH_SEGMENTS: usize = 32 * 1024 * 1024;
const MAX_BYTES: usize = 2 * MAX_BYTES_WITH_SEGMENTS;

/// The fields of a message that say which message it may replace.
#[derive(Deserialize)]
struct Head {
    session_id: SessionId,
    index: Option<IgnoredAny>,
    version: Option<u64>,
}

/// The messages about one session that weren't processed yet: the segments in order, and between them the newest
/// status.
#[derive(Debug, Default)]
pub(super) struct SessionMessages {
    messages: VecDeque<Message>,
    bytes: usize,
}

#[derive(Debug)]
enum Message {
    Segment(Vec<u8>),
    Status(u64, Vec<u8>),
}

impl Message {
    fn read(id: SessionId, payload: &[u8]) -> Result<Self, Rejection> {
        let head: Head = serde_json::from_slice(payload).map_err(|_| Rejection::Malformed)?;
        if head.session_id != id {
            return Err(Rejection::Foreign);
        }
        match (head.index, head.version) {
            (Some(_), _) => Ok(Self::Segment(payload.to_vec())),
            // Without a version it would be unknown which of two messages is newer.
            (None, version) => Ok(Self::Status(version.ok_or(Rejection::Malformed)?, payload.to_vec())),
        }
    }

    fn payload(&self) -> &[u8] {
        match self {
            Self::Segment(payload) | Self::Status(_, payload) => payload,
        }
    }

    fn into_payload(self) -> Vec<u8> {
        match self {
            Self::Segment(payload) | Self::Status(_, payload) => payload,
        }
    }
}

impl SessionMessages {
    /// Adds a message. A status replaces the one before it, unless a segment came between.
    ///
    /// # Errors
    /// If it is neither a status nor a segment, is about another session, or is older than the waiting status.
    pub(super) fn put(&mut self, id: SessionId, payload: &[u8]) -> Result<(), Rejection> {
        self.push(Message::read(id, payload)?)
    }

    fn push(&mut self, message: Message) -> Result<(), Rejection> {
        let size = message.payload().len();
        match (self.messages.back_mut(), &message) {
            (Some(Message::Status(last, _)), Message::Status(new, _)) if new <= last => return Err(Rejection::Stale),
            (Some(last @ Message::Status(..)), Message::Status(..)) => {
                self.bytes -= last.payload().len();
                *last = message;
            }
            _ => self.messages.push_back(message),
        }
        self.bytes += size;
        Ok(())
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.payload().len();
        Some(message)
    }

    /// Bytes of the messages that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The messages, in order.
    pub(super) fn into_payloads(self) -> impl Iterator<Item = Vec<u8>> {
        self.messages.into_iter().map(Message::into_payload)
    }
}

/// Messages of outside workers, session by session.
#[derive(Debug, Default)]
pub struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The sessions that have messages, each once, so that one with many messages doesn't delay the others.
    order: VecDeque<SessionId>,
    sessions: HashMap<SessionId, SessionMessages>,
    bytes: usize,
}

impl Inbox {
    /// Adds a message, as [`SessionMessages::put`] does. False if too much waits.
    ///
    /// # Errors
    /// As [`SessionMessages::put`].
    pub(super) fn put(&self, id: SessionId, payload: &[u8]) -> Result<bool, Rejection> {
        let message = Message::read(id, payload)?;
        let mut waiting = self.lock();
        let waiting = &mut *waiting;
        let limit = if matches!(message, Message::Segment(_)) { MAX_BYTES_WITH_SEGMENTS } else { MAX_BYTES };
        if waiting.bytes + payload.len() > limit {
            return Ok(false);
        }
        let messages = waiting.sessions.entry(id).or_default();
        let before = messages.bytes();
        if messages.messages.is_empty() {
            waiting.order.push_back(id);
        }
        messages.push(message)?;
        waiting.bytes = waiting.bytes - before + messages.bytes();
        self.arrived.notify_one();
        Ok(true)
    }

    /// Waits for the next message. For one consumer.
    pub async fn take(&self) -> OutsideMessage {
        loop {
            let arrived = self.arrived.notified();
            if let Some(message) = self.next() {
                return message;
            }
            arrived.await;
        }
    }

    fn next(&self) -> Option<OutsideMessage> {
        let mut waiting = self.lock();
        let id = waiting.order.pop_front()?;
        let messages = waiting.sessions.get_mut(&id)?;
        let message = messages.pop()?;
        if messages.messages.is_empty() {
            waiting.sessions.remove(&id);
        } else {
            waiting.order.push_back(id);
        }
        waiting.bytes -= message.payload().len();
        Some(OutsideMessage { id, payload: message.into_payload() })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn id(n: u128) -> SessionId {
        SessionId(Uuid::from_u128(n))
    }

    fn status(version: u64) -> Vec<u8> {
        status_of(1, version)
    }

    fn status_of(session: u128, version: u64) -> Vec<u8> {
        format!(r#"{{"session_id":"{}","version":{version}}}"#, id(session)).into_bytes()
    }

    fn segment(index: u32) -> Vec<u8> {
        format!(r#"{{"session_id":"{}","index":{index}}}"#, id(1)).into_bytes()
    }

    fn all(inbox: &Inbox) -> Vec<(SessionId, String)> {
        std::iter::from_fn(|| inbox.next()).map(|m| (m.id, String::from_utf8(m.payload).unwrap())).collect()
    }

    #[test]
    fn the_newest_status_and_every_segment_stay_in_order() {
        let inbox = Inbox::default();
        for version in 1..10_000 {
            assert_eq!(inbox.put(id(1), &status(version)), Ok(true));
        }
        assert_eq!(inbox.put(id(1), &status(9_999)), Err(Rejection::Stale));
        for index in 0..3 {
            assert_eq!(inbox.put(id(1), &segment(index)), Ok(true));
        }
        inbox.put(id(1), &status(10_001)).unwrap();
        inbox.put(id(1), &status(10_002)).unwrap();
        let messages: Vec<String> = all(&inbox).into_iter().map(|(_, text)| text).collect();
        let wanted = [status(9_999), segment(0), segment(1), segment(2), status(10_002)];
        assert_eq!(messages, wanted.map(|m| String::from_utf8(m).unwrap()));
        assert_eq!(inbox.lock().bytes, 0);
        assert!(inbox.lock().sessions.is_empty());
    }

    #[test]
    fn sessions_take_turns_and_bytes_are_limited() {
        let inbox = Inbox::default();
        let mut large = segment(0);
        large.resize(256 * 1024, b' ');
        for _ in 0..MAX_BYTES_WITH_SEGMENTS / large.len() {
            assert_eq!(inbox.put(id(1), &large), Ok(true));
        }
        assert_eq!(inbox.put(id(1), &segment(1)), Ok(false));
        inbox.put(id(2), &status_of(2, 1)).unwrap();
        let ids: Vec<SessionId> = all(&inbox).into_iter().take(3).map(|(id, _)| id).collect();
        assert_eq!(ids, [id(1), id(2), id(1)]);
    }

    #[test]
    fn messages_that_are_neither_status_nor_segment_are_rejected() {
        let inbox = Inbox::default();
        let own = |field: &str| format!(r#"{{"session_id":"{}"{field}}}"#, id(1));
        for payload in ["", "nonsense", "[]", "{}", &own(""), &own(r#","version":-1"#), &own(r#","version":"1""#)] {
            assert_eq!(inbox.put(id(1), payload.as_bytes()), Err(Rejection::Malformed), "{payload}");
        }
        assert_eq!(inbox.put(id(1), &status_of(2, 9)), Err(Rejection::Foreign));
        assert!(inbox.next().is_none());
    }
}
