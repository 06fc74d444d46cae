//! Messages that outside workers published over Redis and that weren't processed yet: of each session the newest
//! status, and the segments in order. Filled by `redis`, emptied by `outside::listen`: statuses at once, and beside that
//! what has to wait for the database, so that no other session waits for it. However much comes at once, no session's
//! last status is lost.

use super::{
    OutsideMessage, Refusal, RefusalLog, Rejection,
    wire::{MAX_MESSAGE, state_named},
};
use crate::model::{SessionId, State};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Bytes of messages that may wait, of all sessions, before segments are dropped: more than workers publish while a
/// database restarts. Statuses, of which each session has one or a few, may take as much again. Segments that were taken
/// out and wait for the database don't count, so together it may be half as much more.
const MAX_BYTES_WITH_SEGMENTS: usize = 32 * 1024 * 1024;
const MAX_BYTES: usize = 2 * MAX_BYTES_WITH_SEGMENTS;
/// The most segments of a session that are taken out at once.
const MAX_RUN: usize = 64;

/// The fields of a message that say which kind it is, and which message it may replace. Of any type: `outside` refuses
/// what can't be so, and says why.
#[derive(Deserialize)]
struct Head {
    session_id: Option<SessionId>,
    index: Option<IgnoredAny>,
    version: Option<Value>,
    status: Option<Value>,
    stage: Option<IgnoredAny>,
    progress: Option<IgnoredAny>,
    message: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
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
    Status {
        /// The newer of two is the one with the higher version; the later one if either has none.
        version: Option<u64>,
        /// Whether it says that the session has ended. No other replaces it.
        ends: bool,
        payload: Vec<u8>,
    },
}

impl Message {
    fn read(id: SessionId, payload: &[u8]) -> Result<Self, Refusal> {
        let malformed = |code, why: String| Refusal::new(Rejection::Malformed, code, why);
        let head: Head = serde_json::from_slice(payload)
            .map_err(|why| malformed("not_json", format!("The message isn't a status or a segment as JSON: {why}.")))?;
        if head.session_id.is_some_and(|named| named != id) {
            let why = "The message names another session than its channel.";
            return Err(Refusal::new(Rejection::Foreign, "foreign", why));
        }
        if head.index.is_some() {
            return Ok(Self::Segment(payload.to_vec()));
        }
        let fields = [&head.stage, &head.progress, &head.message, &head.error];
        if head.version.is_none() && head.status.is_none() && fields.iter().all(|field| field.is_none()) {
            let why = "The message has none of the fields of a status, and no index as a segment has.";
            return Err(malformed("invalid_report", why.to_owned()));
        }
        let state = head.status.as_ref().and_then(Value::as_str).and_then(state_named);
        Ok(Self::Status {
            version: head.version.as_ref().and_then(Value::as_u64),
            ends: state.is_some_and(State::is_terminal),
            payload: payload.to_vec(),
        })
    }

    fn payload(&self) -> &[u8] {
        match self {
            Self::Segment(payload) | Self::Status { payload, .. } => payload,
        }
    }

    fn into_payload(self) -> Vec<u8> {
        match self {
            Self::Segment(payload) | Self::Status { payload, .. } => payload,
        }
    }
}

/// Whether the status that waits is the newer one, and why.
fn stale(waiting: &Message, new: &Message) -> Option<Refusal> {
    let stale = |code, why: String| Some(Refusal::new(Rejection::Stale, code, why));
    match (waiting, new) {
        // Said twice.
        (Message::Status { ends: true, .. }, Message::Status { ends: true, .. }) => stale("ended", String::new()),
        (Message::Status { ends: true, .. }, Message::Status { .. }) => {
            stale("ended", "The session has ended: nothing more can be reported.".to_owned())
        }
        (Message::Status { version: Some(last), .. }, Message::Status { version: Some(new), ends: false, .. })
            if new <= last =>
        {
            stale("stale_version", format!("The version must be above {last}, which waits already; {new} isn't."))
        }
        _ => None,
    }
}

impl SessionMessages {
    /// Adds a message. A status replaces the one before it, unless a segment came between.
    ///
    /// # Errors
    /// If it is neither a status nor a segment, is about another session, or is older than the waiting status.
    pub(super) fn put(&mut self, id: SessionId, payload: &[u8]) -> Result<(), Refusal> {
        self.push(Message::read(id, payload)?)
    }

    fn push(&mut self, message: Message) -> Result<(), Refusal> {
        let size = message.payload().len();
        match self.messages.back_mut() {
            Some(last @ Message::Status { .. }) if matches!(message, Message::Status { .. }) => {
                if let Some(refusal) = stale(last, &message) {
                    return Err(refusal);
                }
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
#[derive(Debug)]
pub struct Inbox {
    waiting: Mutex<Waiting>,
    quick_arrived: Notify,
    slow_arrived: Notify,
    /// Says why messages are refused, also those that were taken out and checked.
    pub refusals: RefusalLog,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            quick_arrived: Notify::default(),
            slow_arrived: Notify::default(),
            refusals: RefusalLog::new("Redis"),
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    /// The sessions that have messages, each once, so that one with many messages doesn't delay the others: those whose
    /// next message is a status, and those whose next message must wait for the database.
    quick: VecDeque<SessionId>,
    slow: VecDeque<SessionId>,
    /// The sessions of which messages were taken out of `slow` and aren't processed yet. They are in neither.
    busy: HashSet<SessionId>,
    sessions: HashMap<SessionId, SessionMessages>,
    bytes: usize,
}

impl Waiting {
    /// Puts a session in the order in which its next message belongs. True if that is `slow`.
    fn enqueue(&mut self, id: SessionId) -> bool {
        let is_slow = match self.sessions.get(&id).and_then(|messages| messages.messages.front()) {
            None => return false,
            Some(message) => matches!(message, Message::Segment(_)),
        };
        if is_slow { &mut self.slow } else { &mut self.quick }.push_back(id);
        is_slow
    }

    /// Takes out the next message of a session.
    fn pop(&mut self, id: SessionId) -> Option<Message> {
        let messages = self.sessions.get_mut(&id)?;
        let message = messages.pop()?;
        if messages.messages.is_empty() {
            self.sessions.remove(&id);
        }
        self.bytes -= message.payload().len();
        Some(message)
    }

    fn is_segment_next(&self, id: SessionId) -> bool {
        let next = self.sessions.get(&id).and_then(|messages| messages.messages.front());
        matches!(next, Some(Message::Segment(_)))
    }
}

impl Inbox {
    /// Adds a message, as [`SessionMessages::put`] does. False if too much waits. What is refused is logged.
    ///
    /// # Errors
    /// As [`SessionMessages::put`].
    pub(super) fn put(&self, id: SessionId, payload: &[u8]) -> Result<bool, Rejection> {
        self.try_put(id, payload).map_err(|refusal| {
            self.refusals.refused(id, &refusal);
            refusal.rejection
        })
    }

    fn try_put(&self, id: SessionId, payload: &[u8]) -> Result<bool, Refusal> {
        let message = Message::read(id, payload)?;
        let mut waiting = self.lock();
        let waiting = &mut *waiting;
        let limit = if matches!(message, Message::Segment(_)) { MAX_BYTES_WITH_SEGMENTS } else { MAX_BYTES };
        if waiting.bytes + payload.len() > limit {
            return Ok(false);
        }
        let messages = waiting.sessions.entry(id).or_default();
        let before = messages.bytes();
        let is_first = messages.messages.is_empty();
        messages.push(message)?;
        waiting.bytes = waiting.bytes - before + messages.bytes();
        if is_first && !waiting.busy.contains(&id) {
            let is_slow = waiting.enqueue(id);
            if is_slow { &self.slow_arrived } else { &self.quick_arrived }.notify_one();
        }
        Ok(true)
    }

    /// Refuses a message that is larger than messages may be.
    pub(super) fn refuse_oversized(&self, id: SessionId, bytes: usize) {
        let why = format!("The message has {bytes} bytes, and at most {MAX_MESSAGE} are accepted.");
        self.refusals.refused(id, &Refusal::new(Rejection::Oversized, "too_large", why));
    }

    /// Waits for the next status of a session that is in memory, as `is_known` says. Others are left for
    /// [`Inbox::take_slow`]. For one consumer.
    pub async fn take(&self, is_known: impl Fn(SessionId) -> bool) -> OutsideMessage {
        loop {
            let arrived = self.quick_arrived.notified();
            if let Some(message) = self.next(&is_known) {
                return message;
            }
            arrived.await;
        }
    }

    fn next(&self, is_known: impl Fn(SessionId) -> bool) -> Option<OutsideMessage> {
        let mut waiting = self.lock();
        loop {
            let id = waiting.quick.pop_front()?;
            if !is_known(id) {
                waiting.slow.push_back(id);
                self.slow_arrived.notify_one();
                continue;
            }
            let message = waiting.pop(id)?;
            if waiting.enqueue(id) {
                self.slow_arrived.notify_one();
            }
            return Some(OutsideMessage { id, payload: message.into_payload() });
        }
    }

    /// Waits for messages that need the database: of at most `max` sessions the segments that come next, or a status of a
    /// session that isn't in memory. What comes after them waits until [`Inbox::processed`]. For one consumer.
    pub async fn take_slow(&self, max: usize) -> Vec<Vec<OutsideMessage>> {
        loop {
            let arrived = self.slow_arrived.notified();
            let taken = self.next_slow(max);
            if !taken.is_empty() {
                return taken;
            }
            arrived.await;
        }
    }

    fn next_slow(&self, max: usize) -> Vec<Vec<OutsideMessage>> {
        let mut waiting = self.lock();
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(id) = waiting.slow.pop_front()
        {
            let most = if waiting.is_segment_next(id) { MAX_RUN } else { 1 };
            let mut messages = Vec::new();
            while messages.len() < most
                && (most == 1 || waiting.is_segment_next(id))
                && let Some(message) = waiting.pop(id)
            {
                messages.push(OutsideMessage { id, payload: message.into_payload() });
            }
            waiting.busy.insert(id);
            taken.push(messages);
        }
        taken
    }

    /// Notes that what [`Inbox::take_slow`] returned was processed.
    pub fn processed(&self) {
        let mut waiting = self.lock();
        for id in std::mem::take(&mut waiting.busy) {
            waiting.enqueue(id);
        }
        self.quick_arrived.notify_one();
        self.slow_arrived.notify_one();
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

    /// Empties an inbox: statuses first, as long as there are any.
    fn all(inbox: &Inbox) -> Vec<(SessionId, String)> {
        let mut all: Vec<OutsideMessage> = Vec::new();
        loop {
            let quick = inbox.next(|_| true);
            let slow = if quick.is_none() { inbox.next_slow(1) } else { Vec::new() };
            if quick.is_none() && slow.is_empty() {
                return all.into_iter().map(|m| (m.id, String::from_utf8(m.payload).unwrap())).collect();
            }
            all.extend(quick.into_iter().chain(slow.into_iter().flatten()));
            inbox.processed();
        }
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
        // Segments don't delay the status of another session.
        assert_eq!(all(&inbox)[0].0, id(2));
        for version in 1..=3 {
            for session in [1, 2] {
                inbox.put(id(session), &status_of(session, version)).unwrap();
            }
            assert_eq!([inbox.next(|_| true), inbox.next(|_| true)].map(|m| m.unwrap().id), [id(1), id(2)]);
        }
    }

    #[test]
    fn what_comes_after_segments_waits_until_they_are_processed() {
        let inbox = Inbox::default();
        let slow =
            || inbox.next_slow(10).into_iter().map(|messages| (messages[0].id, messages.len())).collect::<Vec<_>>();
        for index in 0..MAX_RUN as u32 + 2 {
            inbox.put(id(1), &segment(index)).unwrap();
        }
        inbox.put(id(1), &status(5)).unwrap();
        inbox.put(id(2), &status_of(2, 1)).unwrap();
        assert_eq!(slow(), [(id(1), MAX_RUN)]);
        assert_eq!((slow(), inbox.next(|_| true).unwrap().id), (vec![], id(2)));
        inbox.put(id(1), &status(6)).unwrap();
        assert!(inbox.next(|_| true).is_none(), "the segments aren't stored yet");
        inbox.processed();
        assert!(inbox.next(|_| true).is_none(), "nor are these");
        assert_eq!(slow(), [(id(1), 2)]);
        inbox.processed();
        assert_eq!(inbox.next(|_| true).unwrap().payload, status(6));
        // A session that isn't in memory must be read first.
        inbox.put(id(1), &status(7)).unwrap();
        assert!(inbox.next(|_| false).is_none());
        assert_eq!(slow(), [(id(1), 1)]);
        inbox.put(id(1), &status(8)).unwrap();
        assert!(inbox.next(|_| true).is_none() && slow().is_empty());
        inbox.processed();
        assert_eq!(inbox.next(|_| true).unwrap().payload, status(8));
        assert_eq!(inbox.lock().bytes, 0);
        assert!(inbox.lock().sessions.is_empty());
    }

    #[test]
    fn messages_that_are_neither_status_nor_segment_are_rejected() {
        let inbox = Inbox::default();
        let own = |field: &str| format!(r#"{{"session_id":"{}"{field}}}"#, id(1));
        for payload in ["", "nonsense", "[]", "{}", &own(""), &own(r#","segments":1"#), r#"{"session_id":"a"}"#] {
            assert_eq!(inbox.put(id(1), payload.as_bytes()), Err(Rejection::Malformed), "{payload}");
        }
        assert_eq!(inbox.put(id(1), &status_of(2, 9)), Err(Rejection::Foreign));
        assert!(inbox.next(|_| true).is_none() && inbox.next_slow(1).is_empty());
    }

    #[test]
    fn without_versions_the_later_status_is_the_newer_one_and_an_end_stays() {
        let inbox = Inbox::default();
        // Without the session's id too: the channel has it.
        let messages =
            [r#"{"progress":1}"#, r#"{"version":5}"#, r#"{"progress":2}"#, r#"{"status":"Canceled","version":1}"#];
        for message in messages {
            assert_eq!(inbox.put(id(1), message.as_bytes()), Ok(true), "{message}");
        }
        for late in [r#"{"progress":3}"#, r#"{"version":9}"#, r#"{"status":"failed"}"#] {
            assert_eq!(inbox.put(id(1), late.as_bytes()), Err(Rejection::Stale), "{late}");
        }
        assert_eq!(all(&inbox), [(id(1), messages[3].to_owned())]);
    }
}
