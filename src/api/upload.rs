//! What the upload page must know before a file is chosen. The upload itself goes to the JSON API, as a stream.

use crate::model::ApiError;
pub use crate::model::page::{UPLOAD_PATH, UploadInfo};
use leptos::{prelude::*, server_fn::codec::GetUrl};

/// The limits and engines as they are now.
///
/// # Errors
/// If the request carries no caller, which can't be.
#[server(input = GetUrl)]
pub async fn load_upload_info() -> Result<UploadInfo, ApiError> {
    use crate::server::pages;
    pages::answer(async |c| Ok(pages::upload_info(&c))).await
}

/// Makes a session of the bundled sample and leads to it.
///
/// # Errors
/// As an upload: when the queue or the disk is full. And if the browser blocks cookies.
#[server]
pub async fn try_sample() -> Result<(), ApiError> {
    use crate::server::{error::Error, pages};
    let session = pages::answer(async |c| {
        // Its page has set the cookie, if the browser lets it.
        if !c.identity.known {
            return Err(Error::CookiesBlocked);
        }
        c.state.sessions.create_sample(&c.owner, c.address).await
    })
    .await?;
    leptos_axum::redirect(&format!("/sessions/{}", session.id));
    Ok(())
}
