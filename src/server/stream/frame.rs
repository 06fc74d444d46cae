//! One server-sent event as bytes, made once and cloned to every stream.
//! Format: WHATWG HTML, 9.2.6 "Interpreting an event stream".

use super::Bye;
use crate::model::{EventId, Heartbeat, SegmentEvent, Status, Timestamp};
use bytes::Bytes;
use serde::Serialize;

/// The whole text of an event, `id:`, `event:` and `data:` lines and the empty line that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(pub Bytes);

impl Frame {
    /// A `status` event.
    #[must_use]
    pub fn status(status: &Status) -> Self {
        Self::event(Some(status.event_id()), "status", status)
    }

    /// A `segment` event. `version` is that of the status before the segment: a client that has seen this event but
    /// not the status that follows must still be given that status when it comes back.
    #[must_use]
    pub fn segment(segment: &SegmentEvent, version: u64) -> Self {
        Self::event(Some(EventId { version, segments: segment.index + 1 }), "segment", segment)
    }

    /// A `heartbeat` event with the server's time. It has no id, so it changes nothing about a reconnect.
    #[must_use]
    pub fn heartbeat(timestamp: Timestamp) -> Self {
        Self::event(None, "heartbeat", &Heartbeat { timestamp })
    }

    /// A `bye` event, before the server closes on purpose. `retry_ms`: how long the client should wait.
    #[must_use]
    pub fn bye(reason: Bye, retry_ms: u32) -> Self {
        Self(format!("retry: {retry_ms}\nevent: bye\ndata: {{\"reason\":\"{}\"}}\n\n", reason.as_str()).into())
    }

    /// The first bytes of a stream: how long the client should wait before it reconnects, in milliseconds.
    #[must_use]
    pub fn retry(ms: u32) -> Self {
        Self(format!("retry: {ms}\n\n").into())
    }

    fn event(id: Option<EventId>, name: &str, data: &impl Serialize) -> Self {
        // JSON escapes every line break inside strings, so the data is always one line.
        let json = serde_json::to_string(data).expect("the wire's types have string keys and always serialise");
        Self(match id {
            Some(id) => format!("id: {id}\nevent: {name}\ndata: {json}\n\n").into(),
            None => format!("event: {name}\ndata: {json}\n\n").into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SessionId;

    fn text(frame: &Frame) -> &str {
        std::str::from_utf8(&frame.0).unwrap()
    }

    #[test]
    fn a_segment_is_three_lines_whatever_its_text() {
        let segment = SegmentEvent {
            session_id: SessionId(uuid::Uuid::nil()),
            index: 4,
            start: 1.0,
            end: 2.5,
            text: "a\nb\r\nc\u{2028}d\u{2029}\u{85}😀\0".to_owned(),
        };
        let frame = Frame::segment(&segment, 7);
        let lines: Vec<&str> = text(&frame).split(['\n', '\r']).collect();
        assert_eq!(lines[0], "id: 7.5");
        assert_eq!(lines[1], "event: segment");
        let json = lines[2].strip_prefix("data: ").unwrap();
        assert_eq!(serde_json::from_str::<SegmentEvent>(json).unwrap(), segment);
        assert_eq!(&lines[3..], ["", ""]);
    }

    #[test]
    fn events_without_id_leave_the_last_event_id_alone() {
        assert_eq!(
            text(&Frame::heartbeat(Timestamp(0))),
            "event: heartbeat\ndata: {\"timestamp\":\"1970-01-01T00:00:00.000Z\"}\n\n"
        );
        assert_eq!(
            text(&Frame::bye(Bye::Shutdown, 300)),
            "retry: 300\nevent: bye\ndata: {\"reason\":\"shutdown\"}\n\n"
        );
        assert_eq!(text(&Frame::retry(500)), "retry: 500\n\n");
    }
}
