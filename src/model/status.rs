//! The status of a session. It is a state and not a log: a watcher needs only the newest version.

use super::{EventId, Remark, SessionId, Timestamp};
use arrayvec::ArrayString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{borrow::Cow, fmt, str::FromStr};

/// The state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub enum State {
    Queued,
    Processing,
    Completed,
    Failed,
    Cancelled,
}

impl State {
    /// Every state.
    pub const ALL: [State; 5] = [Self::Queued, Self::Processing, Self::Completed, Self::Failed, Self::Cancelled];

    /// Whether the session has ended: only a retry or a deletion changes it from here.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The name used on the wire and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|s| s.as_str() == name).ok_or_else(|| format!("unknown state '{name}'"))
    }
}

/// What is being done to a session while it is processed, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    Receiving,
    Decoding,
    LoadingModel,
    Transcribing,
    Saving,
    /// A stage that only a worker outside Hark has, under the worker's name for it.
    Own(StageName),
}

/// The worker's name for a stage of its own: at most [`Stage::MAX_NAME`] bytes, without control characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageName(ArrayString<{ Stage::MAX_NAME }>);

impl Stage {
    /// Every stage of Hark's own workers, in order.
    pub const ALL: [Stage; 5] = [Self::Receiving, Self::Decoding, Self::LoadingModel, Self::Transcribing, Self::Saving];

    /// The longest name of a worker's own stage, in bytes: a few words. A longer one is cut.
    pub const MAX_NAME: usize = 64;

    /// The name used on the wire and in the database.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Receiving => "receiving",
            Self::Decoding => "decoding",
            Self::LoadingModel => "loading_model",
            Self::Transcribing => "transcribing",
            Self::Saving => "saving",
            Self::Own(name) => &name.0,
        }
    }

    /// The name shown to people.
    #[must_use]
    pub fn label(&self) -> &str {
        match self {
            Self::Receiving => "Received",
            Self::Decoding => "Decoding",
            Self::LoadingModel => "Loading model",
            Self::Transcribing => "Transcribing",
            Self::Saving => "Saving",
            Self::Own(name) => &name.0,
        }
    }

    /// Whether only a worker outside Hark has this stage.
    #[must_use]
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }
}

impl FromStr for Stage {
    type Err = &'static str;

    /// Any name that isn't blank. Hark's own stages are recognised however they are written: `Loading-Model`.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut own = ArrayString::new();
        for char in name.chars().filter(|char| !char.is_control()).skip_while(|char| char.is_whitespace()) {
            if own.try_push(char).is_err() {
                break;
            }
        }
        own.truncate(own.trim_end().len());
        let same =
            |known: char, given: char| known == given.to_ascii_lowercase() || known == '_' && "- ".contains(given);
        let is = |stage: &Stage| {
            let known = stage.as_str();
            known.len() == own.len() && known.chars().zip(own.chars()).all(|(known, given)| same(known, given))
        };
        if let Some(stage) = Self::ALL.into_iter().find(is) {
            return Ok(stage);
        }
        if own.is_empty() { Err("a stage has a name") } else { Ok(Self::Own(StageName(own))) }
    }
}

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Stage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(feature = "ssr")]
impl utoipa::PartialSchema for Stage {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some(
                "What is being done to a session while it is processed: `receiving`, `decoding`, `loading_model`, \
                 `transcribing`, `saving`, in this order; or a stage that only a worker outside Hark has, under the \
                 worker's name for it, of at most 64 bytes.",
            ))
            .into()
    }
}

#[cfg(feature = "ssr")]
impl utoipa::ToSchema for Stage {}

/// Why a session failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Failure {
    /// Stable, in `snake_case`.
    pub code: String,
    /// What was wrong and what to do.
    pub message: String,
}

impl Failure {
    /// The codes of failures whose reason is in the recording: another attempt would end in the same way.
    const FINAL: [&str; 9] = [
        "closed_format",
        "empty_file",
        "ffmpeg",
        "no_audio_track",
        "no_samples",
        "protected",
        "too_long",
        "truncated",
        "unreadable",
    ];

    /// Whether another attempt may end differently.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        !Self::FINAL.contains(&self.code.as_str())
    }
}

/// The status payload: the same in SSE, polling and server-rendered pages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Status {
    pub session_id: SessionId,
    /// Grows with every change, also across a worker's crash.
    pub version: u64,
    #[serde(rename = "status")]
    pub state: State,
    /// What is being done; null while queued.
    pub stage: Option<Stage>,
    /// 0 to 100; never falls within an attempt; 100 only in `completed`; null if unknown.
    pub progress: Option<f64>,
    /// A sentence for people.
    pub message: String,
    /// When this version was made, by the server's clock.
    pub timestamp: Timestamp,
    /// Seconds of audio transcribed so far.
    pub duration_processed: f64,
    /// Seconds of audio in all, once known.
    pub duration_total: Option<f64>,
    /// When the transcript is expected, once the speed has settled.
    pub estimated_completion: Option<Timestamp>,
    /// Seconds of audio per second of wall clock, smoothed.
    pub processing_speed: Option<f64>,
    /// How many segments there are, together with those of a transcript that was replaced: the index of the next one.
    pub segments: u32,
    /// The index of the first segment: not 0 only if the transcript has replaced another one. Left out if it is 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first_segment: u32,
    /// How many sessions will be started before this one; only while queued.
    pub queue_position: Option<u32>,
    /// The number of this attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// Why it failed; only in `failed`.
    pub error: Option<Failure>,
    /// What a reader of the transcript should know besides. Left out if there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<Remark>,
}

impl Status {
    /// The largest version: the largest integer that JSON in a browser represents exactly (ECMA-262,
    /// `Number.MAX_SAFE_INTEGER`).
    pub const MAX_VERSION: u64 = (1 << 53) - 1;
    /// The largest version that a worker may send. The room above it is for what Hark adds by itself: 2^32 with the end of a
    /// session, and after each crash.
    pub const MAX_REPORTED_VERSION: u64 = (1 << 53) - (1 << 40);

    /// Whether the session has ended without a transcript of all its sound, and another attempt may change that.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self.state {
            State::Cancelled => true,
            State::Failed => self.error.as_ref().is_none_or(Failure::may_retry),
            _ => false,
        }
    }

    /// The first status of a session of which nothing else is known.
    #[must_use]
    pub fn new(session_id: SessionId, state: State, stage: Option<Stage>, timestamp: Timestamp) -> Self {
        Self {
            session_id,
            version: 1,
            state,
            stage,
            progress: None,
            message: String::new(),
            timestamp,
            duration_processed: 0.0,
            duration_total: None,
            estimated_completion: None,
            processing_speed: None,
            segments: 0,
            first_segment: 0,
            queue_position: None,
            attempt: 1,
            error: None,
            remarks: Vec::new(),
        }
    }

    /// How many segments the transcript has.
    #[must_use]
    pub fn lines(&self) -> u32 {
        self.segments.saturating_sub(self.first_segment)
    }

    /// The event id for this status and all segments up to it.
    #[must_use]
    pub fn event_id(&self) -> EventId {
        EventId { version: self.version, segments: self.segments }
    }

    /// Whether state or stage differ from `before`, so that this isn't just a tick of progress.
    #[must_use]
    pub fn changes(&self, before: &Self) -> bool {
        self.state != before.state || self.stage != before.stage
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The statuses that `GET /api/v1/status` answers with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct StatusList {
    pub statuses: Vec<Status>,
    /// Sessions that were given another title within the last minute. Left out if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renamed: Vec<Renamed>,
    /// Sessions that were deleted within the last minute. Left out if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<Deleted>,
}

/// The data of a `renamed` event: a session has another title.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Renamed {
    pub session_id: SessionId,
    pub title: String,
}

/// The data of a `deleted` event: a session is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Deleted {
    pub session_id: SessionId,
}

/// The data of a `heartbeat` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Heartbeat {
    /// The server's time.
    pub timestamp: Timestamp,
    /// The next event comes within so many seconds. Shorter while a session that the stream covers is processing, so that a
    /// dead connection is noticed soon. Earlier servers don't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_secs: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(name: &str) -> Stage {
        name.parse().unwrap()
    }

    #[test]
    fn stages_of_outside_workers_keep_their_names() {
        assert_eq!(read("transcribing"), Stage::Transcribing);
        assert_eq!(["Loading-Model", "loading model", "LOADING_MODEL"].map(read), [Stage::LoadingModel; 3]);
        let own = read(" Diarizing\n speakers ");
        assert_eq!((own.as_str(), own.label(), own.is_own()), ("Diarizing speakers", "Diarizing speakers", true));
        assert_eq!(serde_json::to_string(&own).unwrap(), "\"Diarizing speakers\"");
        assert_eq!(serde_json::from_str::<Stage>("\"Diarizing speakers\"").unwrap(), own);
        for blank in ["", "  ", "\0\n"] {
            assert!(blank.parse::<Stage>().is_err(), "{blank:?}");
        }
    }

    proptest! {
        #[test]
        fn a_stage_is_read_as_it_was_written(name in ".{0,80}") {
            if let Ok(stage) = name.parse::<Stage>() {
                prop_assert!(stage.as_str().len() <= Stage::MAX_NAME);
                prop_assert!(!stage.as_str().chars().any(char::is_control));
                prop_assert_eq!(stage.as_str().parse(), Ok(stage));
            }
        }
    }
}
