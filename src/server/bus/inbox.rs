//! What outside workers publish over Redis and nobody has looked at yet: of each session the newest status, and the segments
//! in order. Filled by `redis`, emptied by `outside::listen`. However much comes at once, no session's last word is lost.

use super::{Foreign, Rejection};
use crate::model::SessionId;
use serde::{Deserialize, de::IgnoredAny};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Bytes of messages that may wait, of all sessions, before segments are turned away: more than any workers say while a
/// database is restarted. Statuses, of which each session has one or a few, may take as much again.
const SEGMENT_BYTES: usize = 32 * 1024 * 1024;
const ALL_BYTES: usize = 2 * SEGMENT_BYTES;

/// The part of a message that tells what it may replace.
#[derive(Deserialize)]
struct Head {
    session_id: SessionId,
    index: Option<IgnoredAny>,
    version: Option<u64>,
}

/// What is published about one session and hasn't been looked at: the segments in order, and between them the newest status.
#[derive(Debug, Default)]
pub(super) struct Said {
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
            // Without a version nobody could tell which of two messages is newer.
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

impl Said {
    /// Takes a message in. A status replaces the one before it, unless a segment came between.
    ///
    /// # Errors
    /// If it can be neither a status nor a segment, is about another session, or is older than the status that waits.
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

    /// The messages in their order.
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
    /// The sessions that have messages, each once: one that says much takes its turn like the others.
    turns: VecDeque<SessionId>,
    messages: HashMap<SessionId, Said>,
    bytes: usize,
}

impl Inbox {
    /// Takes a message in, as [`Said::put`] does. False if too much waits.
    ///
    /// # Errors
    /// As there.
    pub(super) fn put(&self, id: SessionId, payload: &[u8]) -> Result<bool, Rejection> {
        let message = Message::read(id, payload)?;
        let mut waiting = self.lock();
        let waiting = &mut *waiting;
        let limit = if matches!(message, Message::Segment(_)) { SEGMENT_BYTES } else { ALL_BYTES };
        if waiting.bytes + payload.len() > limit {
            return Ok(false);
        }
        let said = waiting.messages.entry(id).or_default();
        let before = said.bytes();
        if said.messages.is_empty() {
            waiting.turns.push_back(id);
        }
        said.push(message)?;
        waiting.bytes = waiting.bytes - before + said.bytes();
        self.arrived.notify_one();
        Ok(true)
    }

    /// The next message, once there is one. For one taker.
    pub async fn take(&self) -> Foreign {
        loop {
            let arrived = self.arrived.notified();
            if let Some(message) = self.next() {
                return message;
            }
            arrived.await;
        }
    }

    fn next(&self) -> Option<Foreign> {
        let mut waiting = self.lock();
        let id = waiting.turns.pop_front()?;
        let said = waiting.messages.get_mut(&id)?;
        let message = said.pop()?;
        if said.messages.is_empty() {
            waiting.messages.remove(&id);
        } else {
            waiting.turns.push_back(id);
        }
        waiting.bytes -= message.payload().len();
        Some(Foreign { id, payload: message.into_payload() })
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
        let told: Vec<String> = all(&inbox).into_iter().map(|(_, text)| text).collect();
        let wanted = [status(9_999), segment(0), segment(1), segment(2), status(10_002)];
        assert_eq!(told, wanted.map(|m| String::from_utf8(m).unwrap()));
        assert_eq!(inbox.lock().bytes, 0);
        assert!(inbox.lock().messages.is_empty());
    }

    #[test]
    fn sessions_take_turns_and_bytes_have_a_bound() {
        let inbox = Inbox::default();
        let mut large = segment(0);
        large.resize(256 * 1024, b' ');
        for _ in 0..SEGMENT_BYTES / large.len() {
            assert_eq!(inbox.put(id(1), &large), Ok(true));
        }
        assert_eq!(inbox.put(id(1), &segment(1)), Ok(false));
        inbox.put(id(2), &status_of(2, 1)).unwrap();
        let ids: Vec<SessionId> = all(&inbox).into_iter().take(3).map(|(id, _)| id).collect();
        assert_eq!(ids, [id(1), id(2), id(1)]);
    }

    #[test]
    fn what_is_neither_is_refused_at_once() {
        let inbox = Inbox::default();
        let own = |field: &str| format!(r#"{{"session_id":"{}"{field}}}"#, id(1));
        for payload in ["", "nonsense", "[]", "{}", &own(""), &own(r#","version":-1"#), &own(r#","version":"1""#)] {
            assert_eq!(inbox.put(id(1), payload.as_bytes()), Err(Rejection::Malformed), "{payload}");
        }
        assert_eq!(inbox.put(id(1), &status_of(2, 9)), Err(Rejection::Foreign));
        assert!(inbox.next().is_none());
    }
}
