//! A session: one transcription, with its recording, its status and its segments.

use super::{Channels, EngineId, Segment, SessionId, StageLog, Status, Timestamp, Track};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A session's title: 1 to [`Title::MAX_CHARS`] characters, trimmed, without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "ssr", schema(value_type = String, max_length = 200))]
pub struct Title(String);

/// Why a text can't be a title.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TitleError {
    #[error("the title is empty; give it at least one character")]
    Empty,
    #[error("the title is too long: {0} characters, at most {max}; shorten it", max = Title::MAX_CHARS)]
    TooLong(usize),
}

impl Title {
    /// Long enough for any file name (255 bytes), short enough for a list.
    pub const MAX_CHARS: usize = 200;

    /// A title as a person typed it: control characters become spaces, and surrounding white space is dropped.
    ///
    /// # Errors
    /// If nothing is left, or more than [`Title::MAX_CHARS`].
    pub fn new(text: &str) -> Result<Self, TitleError> {
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let clean = clean.trim();
        match clean.chars().count() {
            0 => Err(TitleError::Empty),
            n if n > Self::MAX_CHARS => Err(TitleError::TooLong(n)),
            _ => Ok(Self(clean.to_owned())),
        }
    }

    /// A title made from a file's name: too long a name is cut and not refused.
    #[must_use]
    pub fn from_file_name(name: &str) -> Self {
        // Old Windows browsers send a path. Elsewhere a backslash may be part of a name.
        let is_windows_path = name.starts_with("\\\\") || name.get(1..3) == Some(":\\");
        let base = name.rsplit(|c| c == '/' || (is_windows_path && c == '\\')).next().unwrap_or(name);
        let cut: String = base.chars().take(Self::MAX_CHARS).collect();
        Self::new(&cut).unwrap_or_else(|_| Self("Untitled recording".to_owned()))
    }

    /// The title's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Title {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Title {
    type Error = TitleError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<Title> for String {
    fn from(title: Title) -> Self {
        title.0
    }
}

/// The uploaded recording. If an outside worker reports on the session, Hark doesn't have its recording, and all
/// fields are empty or 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Media {
    /// The name it was uploaded under.
    pub file_name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The container format, such as `wav` or `mp3`.
    pub format: String,
    /// The codec, such as `pcm_s16le` or `opus`.
    pub codec: String,
    /// Samples per second and channel, in the recording itself.
    pub sample_rate: u32,
    pub channels: u16,
    /// How many audio tracks it has; 0 if that isn't known.
    #[serde(default)]
    pub tracks: u16,
}

/// A language that an engine has found in a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct DetectedLanguage {
    /// A BCP 47 tag.
    pub language: String,
    /// Its English name; null for a language that Hark has no name for.
    #[serde(default)]
    pub name: Option<String>,
    /// How sure the engine is, 0 to 1, if it says so.
    pub probability: Option<f32>,
}

impl DetectedLanguage {
    /// The language and how sure the engine is, for people: `German (97%)`.
    #[must_use]
    pub fn label(&self) -> String {
        let name = self.name.as_ref().unwrap_or(&self.language);
        match self.probability {
            Some(probability) => format!("{name} ({:.0}%)", probability * 100.0),
            None => name.clone(),
        }
    }
}

/// A session without its segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Session {
    pub id: SessionId,
    pub title: Title,
    pub created_at: Timestamp,
    /// When the first attempt began.
    pub started_at: Option<Timestamp>,
    /// When it reached a terminal status.
    pub finished_at: Option<Timestamp>,
    /// The requested engine; once the session has started, the engine that transcribes it.
    pub engine: EngineId,
    /// The engine's model, once the engine has reported it.
    pub model: Option<String>,
    /// The requested language (BCP 47), if any.
    pub language: Option<String>,
    /// The language that the engine has found, if it searched for one.
    #[serde(default)]
    pub detected_language: Option<DetectedLanguage>,
    /// Names and terms that were given to help the engine, with commas between, if any.
    #[serde(default)]
    pub vocabulary: Option<String>,
    /// How the recording's channels are heard.
    #[serde(default)]
    pub channels: Channels,
    /// The audio track that was chosen, `mix` for all of them; null if the choice was left to Hark.
    #[serde(default)]
    #[cfg_attr(feature = "ssr", schema(value_type = Option<String>))]
    pub track: Option<Track>,
    pub media: Media,
    pub status: Status,
}

impl Session {
    /// Whether Hark's own workers transcribe it, and not a worker outside Hark.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.engine != EngineId::External
    }

    /// Whether it can be queued again. `now`: its newest status, which may be newer than that of the session as it was loaded.
    #[must_use]
    pub fn may_retry(&self, now: &Status) -> bool {
        // Only an outside worker can start its own session again.
        self.is_own() && now.may_retry()
    }
}

/// One page of the caller's sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct SessionPage {
    /// Newest first.
    pub sessions: Vec<Session>,
    /// Pass it as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// A session and its segments so far, as in the session page and the JSON download.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Transcript {
    pub session: Session,
    pub segments: Vec<Segment>,
}

/// The data of the session page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionDetail {
    /// Its segments are without words and confidence, which the page doesn't show.
    pub transcript: Transcript,
    /// The requested language in words, if any.
    pub language_name: Option<String>,
    /// The loudest sample of equal parts of the recording, 0 to 255; empty until it has been decoded.
    pub waveform: Vec<u8>,
    pub stages: StageLog,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::{Failure, State};
    use uuid::Uuid;

    /// A session of this engine in this state.
    pub(crate) fn session(engine: EngineId, state: State) -> Session {
        let id = SessionId(Uuid::nil());
        let mut status = Status::new(id, state, None, Timestamp(0));
        if state == State::Failed {
            status.error = Some(Failure { code: "engine_crashed".into(), message: String::new() });
        }
        Session {
            id,
            title: Title::from_file_name("talk.wav"),
            created_at: Timestamp(0),
            started_at: None,
            finished_at: None,
            engine,
            model: None,
            language: None,
            detected_language: None,
            vocabulary: None,
            channels: Channels::Mix,
            track: None,
            media: Media::default(),
            status,
        }
    }

    #[test]
    fn only_harks_own_sessions_are_queued_again_and_by_their_newest_status() {
        for (engine, may) in [(EngineId::Whisper, true), (EngineId::External, false)] {
            let failed = session(engine, State::Failed);
            assert_eq!(failed.may_retry(&failed.status), may);
            // It was queued again since it was loaded.
            assert!(!failed.may_retry(&session(engine, State::Queued).status));
            assert_eq!(session(engine, State::Processing).may_retry(&failed.status), may);
        }
    }

    #[test]
    fn titles_are_trimmed_and_bounded() {
        assert_eq!(Title::new("  a\tb \n").map(String::from), Ok("a b".to_owned()));
        assert_eq!(Title::new(" \n"), Err(TitleError::Empty));
        assert_eq!(Title::new(&"é".repeat(201)), Err(TitleError::TooLong(201)));
        assert!(Title::new(&"é".repeat(200)).is_ok());
    }

    #[test]
    fn a_language_is_named_in_words_if_it_has_a_name() {
        let label = |language: &str, name: Option<&str>, probability| {
            DetectedLanguage { language: language.to_owned(), name: name.map(str::to_owned), probability }.label()
        };
        assert_eq!(label("de", Some("German"), Some(0.966)), "German (97%)");
        assert_eq!(label("de", Some("German"), None), "German");
        assert_eq!(label("tlh", None, Some(0.5)), "tlh (50%)");
    }

    #[test]
    fn any_file_name_gives_a_title() {
        assert_eq!(Title::from_file_name("C:\\x\\talk.wav").as_str(), "talk.wav");
        assert_eq!(Title::from_file_name("\\\\server\\talk.wav").as_str(), "talk.wav");
        assert_eq!(Title::from_file_name("AC\\DC.mp3").as_str(), "AC\\DC.mp3");
        assert_eq!(Title::from_file_name("../../etc/talk.mp3").as_str(), "talk.mp3");
        assert_eq!(Title::from_file_name("").as_str(), "Untitled recording");
        assert_eq!(Title::from_file_name(&"x".repeat(500)).as_str().len(), 200);
    }
}
