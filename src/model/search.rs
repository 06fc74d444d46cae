//! What a search in the texts of sessions has found.

use super::{SessionId, Timestamp};
use serde::{Deserialize, Serialize};

/// A line that was found, in the parts around the first word that fits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct SearchHit {
    /// The index of the segment.
    pub index: u32,
    /// Seconds from the start of the recording.
    pub start: f64,
    /// The text before what was found; begins with an ellipsis if there is more.
    pub before: String,
    /// What was found.
    pub found: String,
    /// The text after it; ends with an ellipsis if there is more.
    pub after: String,
}

/// A session whose text has what was searched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct FoundSession {
    pub session_id: SessionId,
    pub title: String,
    pub created_at: Timestamp,
    /// The first lines that were found.
    pub hits: Vec<SearchHit>,
    /// Whether more lines of this session fit.
    pub more: bool,
}

/// A page of what was found, newest sessions first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct SearchPage {
    pub sessions: Vec<FoundSession>,
    /// Pass it as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}
