//! What the upload page must know before a file is chosen. The upload itself goes to the JSON API, as a stream.

use crate::model::{ApiError, EngineInfo};
use leptos::{prelude::*, server_fn::codec::GetUrl};
use serde::{Deserialize, Serialize};

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

/// Where the form of an upload is sent: to the JSON API, as a stream.
pub const UPLOAD_PATH: &str = "/api/v1/sessions";

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
        c.state.sessions().create_sample(&c.owner, c.address).await
    })
    .await?;
    leptos_axum::redirect(&format!("/sessions/{}", session.id));
    Ok(())
}
