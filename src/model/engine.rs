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
    /// The model it would use, such as `en-us`; of several workers with different ones, all of them, with commas between.
    pub model: String,
    pub available: bool,
    /// Why it can't be used, if it can't.
    pub reason: Option<String>,
    /// The command that makes it usable, if it isn't.
    pub install: Option<String>,
    /// Whether a session that names no engine gets this one.
    pub is_default: bool,
    /// The languages that it knows with this model, or with any of several, as BCP 47 tags without regions; none if it doesn't
    /// say.
    #[serde(default)]
    pub languages: Option<Vec<String>>,
}

impl EngineInfo {
    /// Whether the engine knows a language, by its tag without a region. One that doesn't say may know it.
    #[must_use]
    pub fn knows(&self, language: &str) -> bool {
        self.languages.as_ref().is_none_or(|languages| languages.iter().any(|known| known == language))
    }

    /// Why this engine can't transcribe a language, and what among `engines` could; none if it knows the language.
    #[must_use]
    pub fn unknown_language(&self, engines: &[Self], language: &str, name: &str) -> Option<String> {
        let known = self.languages.as_ref().filter(|_| !self.knows(language))?;
        let which = match known.as_slice() {
            [only] if only == "en" => {
                format!("{} with its model '{}' knows only English, not {name}.", self.name, self.model)
            }
            _ => format!("{} with its model '{}' doesn't know {name}.", self.name, self.model),
        };
        let other = engines.iter().find(|other| other.available && other.id != self.id && other.knows(language));
        let advice = match other {
            Some(other) => format!("Choose the engine {}.", other.name),
            // Whisper's models have it only since large-v3.
            None if language == "yue" => "Whisper knows it with the model 'large-v3'.".to_owned(),
            None => "Whisper knows it with a model for many languages, such as 'base'.".to_owned(),
        };
        Some(format!("{which} {advice}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(id: EngineId, model: &str, available: bool, languages: Option<&[&str]>) -> EngineInfo {
        EngineInfo {
            id,
            name: id.label().to_owned(),
            model: model.to_owned(),
            available,
            reason: None,
            install: None,
            is_default: false,
            languages: languages.map(|tags| tags.iter().map(|tag| (*tag).to_owned()).collect()),
        }
    }

    #[test]
    fn a_language_that_an_engine_does_not_know_comes_with_advice() {
        let pocketsphinx = engine(EngineId::Pocketsphinx, "en-us", true, Some(&["en"]));
        let whisper = |available| engine(EngineId::Whisper, "base", available, Some(&["en", "de"]));
        let english = engine(EngineId::Whisper, "base.en", true, Some(&["en"]));
        let any = engine(EngineId::Openai, "whisper-1", true, None);
        let said = |chosen: &EngineInfo, others: &[EngineInfo], tag, name| chosen.unknown_language(others, tag, name);
        assert_eq!(said(&pocketsphinx, &[whisper(true)], "en", "English"), None);
        assert_eq!(said(&any, &[], "de", "German"), None);
        assert_eq!(
            said(&pocketsphinx, &[pocketsphinx.clone(), whisper(true)], "de", "German").unwrap(),
            "PocketSphinx with its model 'en-us' knows only English, not German. Choose the engine Whisper."
        );
        assert_eq!(
            said(&english, &[pocketsphinx.clone(), english.clone()], "de", "German").unwrap(),
            "Whisper with its model 'base.en' knows only English, not German. Whisper knows it with a model for many \
             languages, such as 'base'."
        );
        assert_eq!(
            said(&whisper(true), &[whisper(true)], "yue", "Cantonese").unwrap(),
            "Whisper with its model 'base' doesn't know Cantonese. Whisper knows it with the model 'large-v3'."
        );
        // An engine that can't be used is no advice.
        assert!(
            said(&pocketsphinx, &[whisper(false), any], "de", "German").unwrap().ends_with("the engine OpenAI API.")
        );
    }
}

/// How far the download of a model is that a visitor has asked for, or why it failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct ModelDownload {
    /// For people: `is being fetched: 12 MB of 148 MB`, or what went wrong.
    pub message: String,
    /// 0 to 100, if it is known.
    pub percent: Option<f64>,
    /// Whether it has ended without the model.
    pub failed: bool,
}

/// A model of Whisper's, as its page and `hark model list` show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
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
    /// Its download, if a visitor has asked for one.
    #[serde(default)]
    pub download: Option<ModelDownload>,
}
