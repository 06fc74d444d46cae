//! What of a recording is transcribed, as its uploader chooses: whether its channels are mixed or heard apart.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_found_by_name() {
        for choice in Channels::ALL {
            assert_eq!(choice.as_str().parse(), Ok(choice));
        }
        let unknown = "left".parse::<Channels>().unwrap_err().to_string();
        assert!(unknown.contains("'left'") && unknown.contains("'split'"), "{unknown}");
    }
}
