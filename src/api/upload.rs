//! Server functions of the upload page: its limits and engines, and the bundled sample. The upload itself goes to the JSON
//! API, which reads it as a stream.

use crate::model::ApiError;
pub use crate::model::page::{UPLOAD_PATH, UploadInfo};
use leptos::{prelude::*, server_fn::codec::GetUrl};

/// The limits and engines as they are now.
///
/// # Errors
/// If the request has no caller, which never happens: a middleware identifies each one.
#[server(input = GetUrl)]
pub async fn load_upload_info() -> Result<UploadInfo, ApiError> {
    use crate::server::pages;
    pages::answer(async |c| Ok(pages::upload_info(&c))).await
}

/// Makes a session of the bundled sample and redirects to it.
///
/// # Errors
/// If the queue or the disk is full, as for an upload, and if the browser blocks cookies.
#[server]
pub async fn try_sample() -> Result<(), ApiError> {
    use crate::server::{error::Error, pages};
    let session = pages::answer(async |c| {
        // The page with the button has set the cookie, unless the browser blocks it.
        if !c.identity.known {
            return Err(Error::CookiesBlocked);
        }
        c.state.sessions.create_sample(&c.owner, c.address).await
    })
    .await?;
    leptos_axum::redirect(&format!("/sessions/{}", session.id));
    Ok(())
}
