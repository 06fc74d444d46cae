//! The data of the pages about sessions, uploads and identity, and the addresses of those pages and of their forms. Built by the
//! server, returned by the server functions and shown by the pages.

use super::{Channels, EngineInfo, ModelInfo, Session, Timestamp};
use serde::{Deserialize, Serialize};

/// The page that makes links and recovery keys, which open the sessions in another browser.
pub const IDENTITY_PAGE: &str = "/identity";
/// The page that a link opens.
pub const OPEN_PAGE: &str = "/identity/open";
/// The page of speech models.
pub const MODELS_PAGE: &str = "/models";
/// The name in the query of a session's page with which the form for its title is open.
pub const RENAME: &str = "rename";
/// The address of the upload form: the JSON API, which reads it as a stream.
pub const UPLOAD_PATH: &str = "/api/v1/sessions";

/// The addresses of the files that the app consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppFiles {
    pub style: String,
    pub script: String,
    pub wasm: String,
}

/// A session as the page of sessions lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListedSession {
    pub session: Session,
    /// The first words of its text; empty without a text.
    pub beginning: String,
}

/// What the page of sessions shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionList {
    /// The address of the page that it was loaded for.
    pub address: String,
    /// On the first page, the sessions that run or wait, which stand on top of the others.
    pub active: Vec<ListedSession>,
    pub sessions: Vec<ListedSession>,
    /// Pass it as `cursor` for the next page; none on the last.
    pub next_cursor: Option<String>,
    /// The languages of the caller's sessions, by name.
    pub languages: Vec<LanguageInfo>,
    /// What a search has found in texts, as HTML.
    pub found: String,
    /// How many lines that is.
    #[serde(default)]
    pub found_lines: usize,
    /// Whether more of them may fit than were looked for.
    #[serde(default)]
    pub found_more: bool,
}

/// A language by tag and by its English name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanguageInfo {
    /// A BCP 47 tag without a region.
    pub tag: String,
    pub name: String,
}

/// The limits and engines that the upload page shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UploadInfo {
    pub engines: Vec<EngineInfo>,
    /// The languages that at least one of these engines may know.
    pub languages: Vec<LanguageInfo>,
    /// How channels are heard if the upload doesn't say it.
    pub channels: Channels,
    /// The types and endings of files that can be read, for the `accept` of an input.
    pub accept: String,
    /// The largest file accepted, in bytes.
    pub max_upload_bytes: u64,
    /// The largest part of an upload, in bytes.
    pub part_bytes: u64,
    /// The longest recording accepted, in seconds.
    pub max_duration: f64,
    /// Whether the browser doesn't send the cookie back. Without it nobody could find an upload again.
    pub cookies_blocked: bool,
    /// A sentence on how long and how much is kept, if that is limited.
    pub kept: Option<String>,
}

/// The data of the page of models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct ModelsInfo {
    pub models: Vec<ModelInfo>,
    /// The name of the file that is used, if it is none of these models.
    pub own_file: Option<String>,
    /// How far a model is that the server fetches by itself, as a sentence.
    pub fetching: Option<String>,
    /// Whether visitors may download and remove models.
    #[serde(default)]
    pub may_change: bool,
}

impl ModelsInfo {
    /// Whether a model is on its way.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let runs = |model: &ModelInfo| model.download.as_ref().is_some_and(|download| !download.failed);
        self.fetching.is_some() || self.models.iter().any(runs)
    }
}

/// A link or a recovery key, as its maker sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkInfo {
    pub url: String,
    /// The QR code: the number of squares on a side, and the dark squares as an SVG path.
    pub qr_size: u32,
    pub qr_path: String,
    /// None for a recovery key.
    pub expires_at: Option<Timestamp>,
}

/// The data of the identity page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IdentityInfo {
    pub sessions: u64,
    /// The link made in this browser, while it still works.
    pub link: Option<LinkInfo>,
    /// When the recovery key was made, if there is one.
    pub recovery_made_at: Option<Timestamp>,
    /// The recovery key, only right after it was made.
    pub recovery: Option<LinkInfo>,
    /// A token that the form for leaving sends back: it proves that the form comes from this page.
    pub leave_token: String,
}

/// The data of the page that a link opens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenInfo {
    /// How many sessions this browser has already.
    pub own_sessions: u64,
    /// Whether there is a recovery key for them.
    pub own_recovery: bool,
    /// What the key opens, if there is a key and it is valid.
    pub opens: Option<Opens>,
    /// Whether there is a key that opens nothing.
    pub invalid: bool,
}

/// What a key opens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opens {
    pub key: String,
    pub sessions: u64,
    /// Whether they are the sessions that this browser has already.
    pub same: bool,
}
