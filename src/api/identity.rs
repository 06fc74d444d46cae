//! Server functions of the identity pages: the link for another device, the recovery key, opening and leaving. Their forms
//! are plain HTML, and a new key goes to the next page in a cookie that only Hark can read.

use crate::model::ApiError;
pub use crate::model::page::{IDENTITY_PAGE, IdentityInfo, LinkInfo, OPEN_PAGE, OpenInfo, Opens};
use leptos::{prelude::*, server_fn::codec::GetUrl};

/// The data of the identity page.
///
/// # Errors
/// If the store fails.
#[server(input = GetUrl)]
pub async fn load_identity() -> Result<IdentityInfo, ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::identity_info(&c).await).await
}

/// The data of the page that a link with this key opens. Changes nothing.
///
/// # Errors
/// If the store fails. A key that opens nothing isn't an error.
#[server(input = GetUrl)]
pub async fn load_open(key: Option<String>) -> Result<OpenInfo, ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::open_info(&c, key.as_deref()).await).await
}

/// Makes a link to the caller's sessions and redirects to the page that shows it.
///
/// # Errors
/// `no_sessions` if there are none.
#[server]
pub async fn make_link() -> Result<(), ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::make_link(&c).await).await
}

/// Makes a recovery key, which replaces an earlier one, and redirects to the page that shows it, once.
///
/// # Errors
/// `no_sessions` if there are none.
#[server]
pub async fn make_recovery_key() -> Result<(), ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::make_recovery_key(&c).await).await
}

/// Revokes the recovery key.
///
/// # Errors
/// If the store fails.
#[server]
pub async fn revoke_recovery_key() -> Result<(), ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::revoke_recovery_key(&c).await).await
}

/// Opens the sessions of a link or recovery key in the caller's browser, which forgets its own sessions, and redirects to
/// the list.
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
/// `not_confirmed` unless `sure` is given and `token` comes from the page that explains the consequences.
#[server]
pub async fn leave_identity(token: String, #[server(default)] sure: Option<String>) -> Result<(), ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::leave_identity(&c, &token, sure.is_some()).await).await
}
