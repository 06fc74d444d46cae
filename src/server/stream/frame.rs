//! One server-sent event as bytes, made once and cloned to every stream.
//! Format: WHATWG HTML, 9.2.6 "Interpreting an event stream".

use crate::model::{
    Deleted, EventId, Heartbeat, Renamed, SegmentEvent, SessionId, Status, Timestamp, Title, dashboard::Dashboard,
    page::ModelsInfo,
};
use bytes::Bytes;
use serde::Serialize;

/// Why the server ends or refuses a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bye {
    /// The node is stopping.
    Shutdown,
    /// The stream's lifetime is over; another node may serve the next one.
    Lifetime,
    /// There are too many streams; the client should poll instead.
    Limit,
    /// Nothing has happened for too long.
    Idle,
    /// The owner logged out.
    Logout,
    /// The browser is assigned to polling, or streams are switched off.
    Polling,
}

impl Bye {
    /// The reason as a `bye` event gives it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Lifetime => "lifetime",
            Self::Limit => "limit",
            Self::Idle => "idle",
            Self::Logout => "logout",
            Self::Polling => "polling",
        }
    }
}

/// The kind of a frame, which is the name of its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No event, only how long to wait before a reconnect.
    Retry,
    Status,
    Segment,
    Heartbeat,
    Bye,
    Models,
    Overview,
    Renamed,
    Deleted,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 9] = [
        Self::Retry,
        Self::Status,
        Self::Segment,
        Self::Heartbeat,
        Self::Bye,
        Self::Models,
        Self::Overview,
        Self::Renamed,
        Self::Deleted,
    ];

    /// The event's name; the label of metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Status => "status",
            Self::Segment => "segment",
            Self::Heartbeat => "heartbeat",
            Self::Bye => "bye",
            Self::Models => "models",
            Self::Overview => "overview",
            Self::Renamed => "renamed",
            Self::Deleted => "deleted",
        }
    }
}

/// The whole text of an event: `id:`, `event:` and `data:` lines and the empty line that ends it. A clone shares the
/// bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    text: Bytes,
    /// The offset at which the data begins; it ends before the two final line breaks.
    data: u32,
    kind: Kind,
}

impl Frame {
    /// A `status` event.
    #[must_use]
    pub fn status(status: &Status) -> Self {
        Self::event(Some(status.event_id()), Kind::Status, status)
    }

    /// A `segment` event. `version` is that of the status before the segment: a client that has seen this event but
    /// not the status that follows must still be given that status when it comes back.
    #[must_use]
    pub fn segment(segment: &SegmentEvent, version: u64) -> Self {
        Self::event(Some(EventId { version, segments: segment.index + 1 }), Kind::Segment, segment)
    }

    /// A `models` event.
    #[must_use]
    pub fn models(info: &ModelsInfo, version: u64) -> Self {
        Self::event(Some(EventId { version, segments: 0 }), Kind::Models, info)
    }

    /// An `overview` event of the dashboard. It has no id: a client that comes back gets the newest one.
    #[must_use]
    pub fn overview(dashboard: &Dashboard) -> Self {
        Self::event(None, Kind::Overview, dashboard)
    }

    /// A `renamed` event. It has no id, because it says nothing of a version.
    #[must_use]
    pub fn renamed(session_id: SessionId, title: &Title) -> Self {
        Self::event(None, Kind::Renamed, &Renamed { session_id, title: title.as_str().to_owned() })
    }

    /// A `deleted` event, without an id too.
    #[must_use]
    pub fn deleted(session_id: SessionId) -> Self {
        Self::event(None, Kind::Deleted, &Deleted { session_id })
    }

    /// A `heartbeat` event with the server's time, and within how many seconds the next event comes. It has no id, so it
    /// changes nothing about a reconnect.
    #[must_use]
    pub fn heartbeat(timestamp: Timestamp, within_secs: u32) -> Self {
        Self::event(None, Kind::Heartbeat, &Heartbeat { timestamp, within_secs: Some(within_secs) })
    }

    /// A `bye` event, before the server closes on purpose. `retry_ms`: how long the client should wait.
    #[must_use]
    pub fn bye(reason: Bye, retry_ms: u32) -> Self {
        let head = format!("retry: {retry_ms}\nevent: bye\ndata: ");
        let data = head.len() as u32;
        Self { text: format!("{head}{{\"reason\":\"{}\"}}\n\n", reason.as_str()).into(), data, kind: Kind::Bye }
    }

    /// The first bytes of a stream: how long the client should wait before it reconnects, in milliseconds.
    #[must_use]
    pub fn retry(ms: u32) -> Self {
        let text = Bytes::from(format!("retry: {ms}\n\n"));
        Self { data: text.len() as u32 - 2, text, kind: Kind::Retry }
    }

    fn event(id: Option<EventId>, kind: Kind, data: &impl Serialize) -> Self {
        let name = kind.as_str();
        let mut text = match id {
            Some(id) => format!("id: {id}\nevent: {name}\ndata: "),
            None => format!("event: {name}\ndata: "),
        }
        .into_bytes();
        let start = text.len() as u32;
        // JSON escapes every line break inside strings, so the data is always one line.
        serde_json::to_writer(&mut text, data).expect("the wire's types have string keys and always serialise");
        text.extend_from_slice(b"\n\n");
        text.shrink_to_fit(); // a frame lives as long as its session is watched
        Self { text: text.into(), data: start, kind }
    }

    /// The same event under another id.
    #[must_use]
    pub fn counting(&self, id: EventId) -> Self {
        let head = format!("id: {id}\nevent: {}\ndata: ", self.kind.as_str());
        let data = head.len() as u32;
        let text = [head.as_bytes(), &self.text[self.data as usize..]].concat();
        Self { text: text.into(), data, kind: self.kind }
    }

    /// The event as it is sent.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// The event's data alone: the JSON that polling answers with.
    #[must_use]
    pub fn json(&self) -> Bytes {
        self.text.slice(self.data as usize..self.text.len() - 2)
    }

    /// What it holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(frame: &Frame) -> &str {
        std::str::from_utf8(frame.text()).unwrap()
    }

    #[test]
    fn a_segment_is_three_lines_whatever_its_text() {
        let segment = SegmentEvent {
            session_id: SessionId(uuid::Uuid::nil()),
            index: 4,
            start: 1.0,
            end: 2.5,
            text: "a\nb\r\nc\u{2028}d\u{2029}\u{85}😀\0".to_owned(),
            unsure: Vec::new(),
            speaker: None,
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
    fn changing_the_id_of_a_frame_keeps_its_data() {
        let frame = Frame::heartbeat(Timestamp(0), 4).counting(EventId { version: 3, segments: 12 });
        let same =
            "id: 3.12\nevent: heartbeat\ndata: {\"timestamp\":\"1970-01-01T00:00:00.000Z\",\"within_secs\":4}\n\n";
        assert_eq!(text(&frame), same);
        assert_eq!(frame.json(), Frame::heartbeat(Timestamp(0), 4).json());
    }

    #[test]
    fn events_without_id_leave_the_last_event_id_alone() {
        assert_eq!(
            text(&Frame::heartbeat(Timestamp(0), 16)),
            "event: heartbeat\ndata: {\"timestamp\":\"1970-01-01T00:00:00.000Z\",\"within_secs\":16}\n\n"
        );
        assert_eq!(
            text(&Frame::bye(Bye::Shutdown, 300)),
            "retry: 300\nevent: bye\ndata: {\"reason\":\"shutdown\"}\n\n"
        );
        assert_eq!(text(&Frame::retry(500)), "retry: 500\n\n");
        assert_eq!(Frame::retry(500).json(), "");
        assert_eq!(Frame::bye(Bye::Lifetime, 300).json(), "{\"reason\":\"lifetime\"}");
    }
}
