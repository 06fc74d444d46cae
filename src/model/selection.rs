//! What of a recording is transcribed, as its owner chooses: which audio track, and whether its channels are mixed or heard
//! apart.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// How the channels of a recording are heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub enum Channels {
    /// Their mix, as one.
    #[default]
    Mix,
    /// Two channels with different sound apart, each as a speaker of its own.
    Split,
}

impl Channels {
    /// Every choice.
    pub const ALL: [Channels; 2] = [Self::Mix, Self::Split];

    /// The name used in forms, settings and the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mix => "mix",
            Self::Split => "split",
        }
    }

    /// The choice in the words of the pages.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Mix => "Mix them",
            Self::Split => "Two speakers, one on each channel",
        }
    }
}

impl fmt::Display for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error for a name that isn't in [`Channels::ALL`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "The channels can't be '{0}'. Choose 'mix', which hears them as one, or 'split', which hears two speakers on two \
     channels apart."
)]
pub struct UnknownChannels(pub String);

impl FromStr for Channels {
    type Err = UnknownChannels;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|choice| choice.as_str() == name);
        found.ok_or_else(|| UnknownChannels(name.chars().take(40).collect()))
    }
}

/// The audio track that is heard, chosen among several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "TrackName", into = "String")]
pub enum Track {
    /// The track of this number, from 1, in the order of the file.
    Number(u16),
    /// All tracks, mixed.
    Mix,
}

impl Track {
    /// The choice in the words of the pages.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            Self::Number(number) => format!("Track {number}"),
            Self::Mix => "All tracks, mixed".to_owned(),
        }
    }

    /// Why a recording with so many audio tracks doesn't have this one, and which it has; none if it has, or if the number
    /// of its tracks isn't known, which is 0.
    #[must_use]
    pub fn missing(self, tracks: u16) -> Option<String> {
        match self {
            Self::Number(number) if tracks > 0 && number > tracks => Some(no_such_track(number, tracks)),
            _ => None,
        }
    }
}

/// The message about an audio track that a recording doesn't have.
#[must_use]
pub fn no_such_track(wanted: u16, tracks: u16) -> String {
    match tracks {
        1 => format!("There is no audio track {wanted}: the recording has only one. Leave the choice out."),
        _ => format!(
            "There is no audio track {wanted}: the recording has {tracks}. Choose a number from 1 to {tracks}, or 'mix' for \
             all of them."
        ),
    }
}

impl fmt::Display for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Mix => f.write_str("mix"),
        }
    }
}

/// The error for a text that names no track.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The track can't be '{0}'. Choose its number, from 1, or 'mix' for all tracks.")]
pub struct UnknownTrack(pub String);

impl FromStr for Track {
    type Err = UnknownTrack;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "mix" => Ok(Self::Mix),
            number => match number.parse() {
                Ok(number @ 1..) => Ok(Self::Number(number)),
                _ => Err(UnknownTrack(text.chars().take(40).collect())),
            },
        }
    }
}

/// A track as it may come in JSON: also as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum TrackName {
    Text(String),
    Number(i64),
}

impl TryFrom<TrackName> for Track {
    type Error = UnknownTrack;

    fn try_from(name: TrackName) -> Result<Self, Self::Error> {
        match name {
            TrackName::Text(text) => text.parse(),
            TrackName::Number(number) => number.to_string().parse(),
        }
    }
}

impl From<Track> for String {
    fn from(track: Track) -> Self {
        track.to_string()
    }
}

/// Another choice of what of a recording is transcribed. What is left out stays as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct AnotherChoice {
    /// The number of an audio track, from 1, or `mix` for all of them.
    #[cfg_attr(feature = "ssr", schema(value_type = Option<String>))]
    pub track: Option<Track>,
    /// `mix`, or `split`, which transcribes two speakers on two channels apart.
    pub channels: Option<Channels>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_are_numbers_or_the_mix() {
        assert_eq!((" 2".parse(), "mix".parse()), (Ok(Track::Number(2)), Ok(Track::Mix)));
        for text in ["", "0", "-1", "1.5", "all", "70000"] {
            let error = text.parse::<Track>().unwrap_err().to_string();
            assert!(error.contains(&format!("'{text}'")) && error.contains("from 1"), "{error}");
        }
        for (json, track) in [("\"mix\"", Track::Mix), ("\"3\"", Track::Number(3)), ("3", Track::Number(3))] {
            assert_eq!(serde_json::from_str::<Track>(json).unwrap(), track);
        }
        assert_eq!(serde_json::to_string(&Track::Number(3)).unwrap(), "\"3\"");
        assert!(serde_json::from_str::<Track>("0").is_err());
    }

    #[test]
    fn a_track_that_is_missing_is_told_with_those_there_are() {
        assert_eq!(
            (Track::Number(2).missing(2), Track::Number(9).missing(0), Track::Mix.missing(1)),
            (None, None, None)
        );
        assert!(Track::Number(3).missing(2).unwrap().contains("from 1 to 2"));
        assert!(Track::Number(2).missing(1).unwrap().contains("only one"));
    }

    #[test]
    fn channels_are_found_by_name() {
        for choice in Channels::ALL {
            assert_eq!(choice.as_str().parse(), Ok(choice));
        }
        let unknown = "left".parse::<Channels>().unwrap_err().to_string();
        assert!(unknown.contains("'left'") && unknown.contains("'split'"), "{unknown}");
    }
}
