//! The arms of the comparison between streams and polling, and the families of browsers that failures are counted by.
//! The server assigns a browser to an arm; reports are counted by it.

use serde::{Deserialize, Serialize};

/// What a browser is assigned to. A browser whose streams fail polls too, but stays in the arm of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// Live updates, with polling where they don't get through.
    Stream,
    /// Polling only: the control group, and browsers that have no streams yet.
    Polling,
}

impl Arm {
    pub const ALL: [Self; 2] = [Self::Stream, Self::Polling];

    /// The name on the wire and as a label of metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Polling => "polling",
        }
    }
}

/// A family of browsers with the same engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Browser {
    /// Chrome, Edge, Opera and others.
    Chromium,
    Firefox,
    /// Safari, and every browser on iOS.
    Safari,
    Other,
}

impl Browser {
    pub const ALL: [Self; 4] = [Self::Chromium, Self::Firefox, Self::Safari, Self::Other];

    /// The name on the wire and as a label of metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chromium => "chromium",
            Self::Firefox => "firefox",
            Self::Safari => "safari",
            Self::Other => "other",
        }
    }

    /// The family that a `User-Agent` names. Chrome names Safari too, and browsers on iOS name themselves but use its engine.
    #[must_use]
    pub fn of(user_agent: &str) -> Self {
        let has = |word: &str| user_agent.contains(word);
        if has("Chrome/") || has("Chromium/") {
            Self::Chromium
        } else if has("Firefox/") {
            Self::Firefox
        } else if has("AppleWebKit/") {
            Self::Safari
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_belongs_to_the_family_of_its_engine() {
        const CHROME: &str =
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
        const EDGE: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0";
        const HEADLESS: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/142.0.0.0 Safari/537.36";
        const FIREFOX: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0";
        const SAFARI: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15";
        const CHROME_IOS: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/142.0.0.0 Mobile/15E148 Safari/604.1";
        const FIREFOX_IOS: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/145.0 Mobile/15E148 Safari/604.1";
        for (agents, family) in [
            (&[CHROME, EDGE, HEADLESS][..], Browser::Chromium),
            (&[FIREFOX], Browser::Firefox),
            (&[SAFARI, CHROME_IOS, FIREFOX_IOS], Browser::Safari),
            (&["curl/8.5.0", ""], Browser::Other),
        ] {
            assert!(agents.iter().all(|agent| Browser::of(agent) == family), "{family:?}");
        }
    }
}
