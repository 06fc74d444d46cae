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

/// Segments that may wait, of all sessions: more than any workers say while a database is restarted.
const SEGMENTS: usize = 65_536;

/// The part of a message that tells what it may replace.
#[derive(Deserialize)]
struct Head {
    session_id: SessionId,
    index: Option<IgnoredAny>,
    version: Option<u64>,
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
    messages: HashMap<SessionId, VecDeque<Message>>,
    segments: usize,
}

#[derive(Debug)]
enum Message {
    Segment(Vec<u8>),
    Status(u64, Vec<u8>),
}

impl Inbox {
    /// Takes a message in. A status replaces the one before it, unless a segment came between. False if there are too many
    /// segments.
    ///
    /// # Errors
    /// If it can be neither a status nor a segment, is about another session, or is older than the status that waits.
    pub(super) fn put(&self, id: SessionId, payload: &[u8]) -> Result<bool, Rejection> {
        let head: Head = serde_json::from_slice(payload).map_err(|_| Rejection::Malformed)?;
        if head.session_id != id {
            return Err(Rejection::Foreign);
        }
        let message = match (head.index, head.version) {
            (Some(_), _) => Message::Segment(payload.to_vec()),
            // Without a version nobody could tell which of two messages is newer.
            (None, version) => Message::Status(version.ok_or(Rejection::Malformed)?, payload.to_vec()),
        };
        let mut waiting = self.lock();
        let waiting = &mut *waiting;
        if matches!(message, Message::Segment(_)) {
            if waiting.segments >= SEGMENTS {
                return Ok(false);
            }
            waiting.segments += 1;
        }
        let messages = waiting.messages.entry(id).or_default();
        if messages.is_empty() {
            waiting.turns.push_back(id);
        }
        match (messages.back_mut(), &message) {
            (Some(Message::Status(last, _)), Message::Status(new, _)) if new <= last => return Err(Rejection::Stale),
            (Some(last @ Message::Status(..)), Message::Status(..)) => *last = message,
            _ => messages.push_back(message),
        }
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
        let messages = waiting.messages.get_mut(&id)?;
        let message = messages.pop_front()?;
        if messages.is_empty() {
            waiting.messages.remove(&id);
        } else {
            waiting.turns.push_back(id);
        }
        let payload = match message {
            Message::Segment(payload) => {
                waiting.segments -= 1;
                payload
            }
            Message::Status(_, payload) => payload,
        };
        Some(Foreign { id, payload })
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
        assert_eq!(inbox.lock().segments, 0);
        assert!(inbox.lock().messages.is_empty());
    }

    #[test]
    fn sessions_take_turns_and_segments_have_a_bound() {
        let inbox = Inbox::default();
        for index in 0..SEGMENTS as u32 {
            assert_eq!(inbox.put(id(1), &segment(index)), Ok(true));
        }
        assert_eq!(inbox.put(id(1), &segment(SEGMENTS as u32)), Ok(false));
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
