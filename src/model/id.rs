//! Identifiers: of a session, and of an event in a status stream.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// A session's id: UUID version 7 (RFC 9562), so that ids sort by creation time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct SessionId(pub Uuid);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SessionId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// The `id:` line of a server-sent event: the version of the status and the number of segments sent so far, written
/// `<version>.<segments>`. A browser sends it back as `Last-Event-ID` when it reconnects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventId {
    pub version: u64,
    pub segments: u32,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.version, self.segments)
    }
}

/// A last event id that isn't of the form `<version>.<segments>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the last event id must be '<version>.<segments>', two whole numbers with a dot between, such as 17.4")]
pub struct InvalidEventId;

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `u64::from_str` accepts a leading plus sign, which an event id never has.
        if !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(InvalidEventId);
        }
        let (version, segments) = text.split_once('.').ok_or(InvalidEventId)?;
        Ok(Self {
            version: version.parse().map_err(|_| InvalidEventId)?,
            segments: segments.parse().map_err(|_| InvalidEventId)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_survive_a_round_trip() {
        let id = EventId { version: 17, segments: 4 };
        assert_eq!(id.to_string(), "17.4");
        assert_eq!("17.4".parse(), Ok(id));
    }

    #[test]
    fn malformed_event_ids_are_refused() {
        for text in ["", ".", "1", "1.", ".1", "+1.2", "1.-2", "1.2.3", "a.b", "1 .2", "99999999999999999999999.1"] {
            assert_eq!(text.parse::<EventId>(), Err(InvalidEventId), "{text}");
        }
    }
}
