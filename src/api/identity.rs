//! What the pages about an identity know and do: the link to another device, the recovery key, opening and leaving. The
//! forms are plain, so that a key goes from one page to the next in a cookie that only Hark can read.

use crate::model::ApiError;
pub use crate::model::page::{IDENTITY_PAGE, IdentityInfo, LinkInfo, OPEN_PAGE, OpenInfo, Opens};
use leptos::{prelude::*, server_fn::codec::GetUrl};

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
