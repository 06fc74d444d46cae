//! What the pages about an identity know and do: the link to another device, the recovery key, opening and leaving. The
//! forms are plain, so that a key goes from one page to the next in a cookie that only Hark can read.

use crate::model::{ApiError, Timestamp};
use leptos::{prelude::*, server_fn::codec::GetUrl};
use serde::{Deserialize, Serialize};

/// The page on which one takes one's sessions along.
pub const IDENTITY_PAGE: &str = "/identity";
/// The page that a link leads to.
pub const OPEN_PAGE: &str = "/identity/open";

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

/// What the page about one's identity shows.
///
/// # Errors
/// If the store fails.
#[server(input = GetUrl)]
pub async fn load_identity() -> Result<IdentityInfo, ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::identity_info(&c).await).await
}

/// What the page shows that a link with this key leads to. Changes nothing.
///
/// # Errors
/// If the store fails. A key that opens nothing is no error.
#[server(input = GetUrl)]
pub async fn load_open(key: Option<String>) -> Result<OpenInfo, ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::open_info(&c, key.as_deref()).await).await
}

/// Makes a link to the caller's sessions and leads to the page that shows it.
///
/// # Errors
/// `no_sessions` if there are none.
#[server]
pub async fn make_link() -> Result<(), ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::make_link(&c).await).await
}

/// Makes a recovery key, in place of one there was, and leads to the page that shows it, once.
///
/// # Errors
/// `no_sessions` if there are none.
#[server]
pub async fn make_recovery_key() -> Result<(), ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::make_recovery_key(&c).await).await
}

/// Makes the recovery key useless.
///
/// # Errors
/// If the store fails.
#[server]
pub async fn revoke_recovery_key() -> Result<(), ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::revoke_recovery_key(&c).await).await
}

/// Opens the sessions of a link or recovery key in the caller's browser, which forgets its own, and leads to them.
///
/// # Errors
/// `invalid_key` if it opens nothing.
#[server]
pub async fn open_identity(key: String) -> Result<(), ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::open_identity(&c, &key).await).await
}

/// Makes the caller's browser forget its sessions.
///
/// # Errors
/// `not_confirmed` unless `sure` is given and `token` comes from the page that says what it means.
#[server]
pub async fn leave_identity(token: String, #[server(default)] sure: Option<String>) -> Result<(), ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::leave_identity(&c, &token, sure.is_some()).await).await
}
