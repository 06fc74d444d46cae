//! The speech engines by name, and what the upload page shows of each.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A speech engine by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub enum EngineId {
    /// CMU PocketSphinx: needs no download.
    Pocketsphinx,
    /// OpenAI's Whisper, run locally by whisper.cpp.
    Whisper,
    /// Any server with the OpenAI transcription API.
    Openai,
    /// Any program that speaks Hark's engine protocol.
    Command,
    /// A worker outside Hark, which publishes over HTTP. An upload can't request it.
    External,
}

impl EngineId {
    /// Every engine, in the order in which they are offered.
    pub const ALL: [EngineId; 5] = [Self::Pocketsphinx, Self::Whisper, Self::Openai, Self::Command, Self::External];

    /// The name used in URLs, settings and the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pocketsphinx => "pocketsphinx",
            Self::Whisper => "whisper",
            Self::Openai => "openai",
            Self::Command => "command",
            Self::External => "external",
        }
    }

    /// The name shown to people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Pocketsphinx => "PocketSphinx",
            Self::Whisper => "Whisper",
            Self::Openai => "OpenAI API",
            Self::Command => "Custom command",
            Self::External => "Outside worker",
        }
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error for a name that isn't in [`EngineId::ALL`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no speech engine called '{0}'; the engines are pocketsphinx, whisper, openai and command")]
pub struct UnknownEngine(pub String);

impl FromStr for EngineId {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|id| id.as_str() == name)
            .ok_or_else(|| UnknownEngine(name.chars().take(40).collect()))
    }
}

/// What the upload page and the API show of an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct EngineInfo {
    pub id: EngineId,
    /// The name shown to people.
    pub name: String,
    /// The model it would use, such as `en-us`.
    pub model: String,
    pub available: bool,
    /// Why it can't be used, if it can't.
    pub reason: Option<String>,
    /// The command that makes it usable, if it isn't.
    pub install: Option<String>,
    /// Whether a session that names no engine gets this one.
    pub is_default: bool,
}

/// A model of Whisper's, as its page and `hark model list` show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    pub name: String,
    /// Whether its file is on this server.
    pub installed: bool,
    /// Whether it is the one that the settings name.
    pub in_use: bool,
    /// The size of its file in bytes.
    pub bytes: Option<u64>,
    /// The memory that the engine takes with it, in bytes.
    pub memory_bytes: Option<u64>,
    /// How many languages it knows; 1 is English.
    pub languages: Option<u16>,
    /// The seconds of speech transcribed in a second of one processor, if it was measured.
    pub speed: Option<f32>,
}
