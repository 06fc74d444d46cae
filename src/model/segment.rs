//! Segments, the finished pieces of a transcript. They form a log: numbered from 0, and stored before they are announced.

use super::SessionId;
use serde::{Deserialize, Serialize};

/// One word with its times in the recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Word {
    pub text: String,
    /// Seconds from the start of the recording.
    pub start: f64,
    /// Seconds from the start of the recording; not before `start`.
    pub end: f64,
    /// The engine's confidence, 0 to 1, if it gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
}

/// A finished piece of the transcript.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Segment {
    /// Its position in the transcript, counted from 0 without gaps.
    pub index: u32,
    /// Seconds from the start of the recording.
    pub start: f64,
    /// Seconds from the start of the recording; not before `start`.
    pub end: f64,
    pub text: String,
    /// The engine's confidence, 0 to 1, if it gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// The words with their times, if the engine gives them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
}

/// A segment as a `segment` event announces it: without words, so that events stay small.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct SegmentEvent {
    pub session_id: SessionId,
    pub index: u32,
    /// Seconds from the start of the recording.
    pub start: f64,
    /// Seconds from the start of the recording.
    pub end: f64,
    pub text: String,
}

impl SegmentEvent {
    /// The announcement of a stored segment.
    #[must_use]
    pub fn new(session_id: SessionId, segment: &Segment) -> Self {
        Self { session_id, index: segment.index, start: segment.start, end: segment.end, text: segment.text.clone() }
    }
}

impl From<SegmentEvent> for Segment {
    fn from(event: SegmentEvent) -> Self {
        Self {
            index: event.index,
            start: event.start,
            end: event.end,
            text: event.text,
            confidence: None,
            words: Vec::new(),
        }
    }
}
