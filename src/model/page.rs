//! What the pages about uploads and identity are told, and where their forms stand and lead. Made by the server, read by
//! the server functions and the pages.

use super::{EngineInfo, Timestamp};
use serde::{Deserialize, Serialize};

/// The page on which one takes one's sessions along.
pub const IDENTITY_PAGE: &str = "/identity";
/// The page that a link leads to.
pub const OPEN_PAGE: &str = "/identity/open";
/// Where the form of an upload is sent: to the JSON API, as a stream.
pub const UPLOAD_PATH: &str = "/api/v1/sessions";

/// The limits and engines that the upload page shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UploadInfo {
    pub engines: Vec<EngineInfo>,
    /// The largest file accepted, in bytes.
    pub max_upload_bytes: u64,
    /// The longest recording accepted, in seconds.
    pub max_duration: f64,
    /// Whether the browser doesn't send the cookie back, without which an upload can't be found again.
    pub cookies_blocked: bool,
    /// How long and how much is kept, in a sentence, if that is limited.
    pub kept: Option<String>,
}

/// A link, for the one who made it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkInfo {
    pub url: String,
    /// How many squares its QR code has to a side, and where the dark ones are, as an SVG path.
    pub qr_size: u32,
    pub qr_path: String,
    /// None if it is a recovery key.
    pub expires_at: Option<Timestamp>,
}

/// What the page about one's identity shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IdentityInfo {
    pub sessions: u64,
    /// The link that was made here and still works.
    pub link: Option<LinkInfo>,
    /// When the recovery key was made, if there is one.
    pub recovery_made_at: Option<Timestamp>,
    /// The recovery key, only just after it was made.
    pub recovery: Option<LinkInfo>,
    /// Proves to the server that this page was seen before one leaves.
    pub leave_token: String,
}

/// What the page that a link leads to shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenInfo {
    /// How many sessions of its own this browser has.
    pub own_sessions: u64,
    /// Whether there is a recovery key for those.
    pub own_recovery: bool,
    /// What the key opens, if one is given and valid.
    pub opens: Option<Opens>,
    /// Whether a key was given that opens nothing.
    pub invalid: bool,
}

/// What a key opens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opens {
    pub key: String,
    pub sessions: u64,
    /// Whether this browser has these sessions already.
    pub same: bool,
}
