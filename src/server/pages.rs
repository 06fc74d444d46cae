//! What the bodies of server functions need: the caller, and errors mapped to what a page may see.

use super::{
    error::Error,
    owner::{Owner, SET_COOKIE, take_notice},
    state::AppState,
};
use crate::{api::upload::UploadInfo, model::ApiError};
use axum::{
    Extension,
    http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts},
};
use leptos::{
    prelude::{expect_context, use_context},
    server::ServerActionError,
    server_fn::error::ServerFnUrlError,
};
use leptos_axum::ResponseOptions;

/// Who calls, and the node that answers.
pub struct Caller {
    pub state: AppState,
    pub owner: Owner,
}

/// Finds the caller, runs `work`, and gives a failure the HTTP status it should have.
///
/// # Errors
/// What `work` failed with, as a page may see it.
pub async fn answer<T>(work: impl AsyncFnOnce(Caller) -> Result<T, Error>) -> Result<T, ApiError> {
    let state = expect_context::<AppState>();
    let result = match leptos_axum::extract::<Extension<Owner>>().await {
        Ok(Extension(owner)) => work(Caller { state, owner }).await,
        Err(error) => Err(Error::Internal(format!("a page was rendered without its owner: {error}"))),
    };
    result.map_err(|error| {
        // A form sent without JavaScript is led back to its page, which shows the error; that answer is a redirect.
        if !is_form() {
            set_status(error.status_code());
            if let Some(seconds) = error.retry_after() {
                set_header(header::RETRY_AFTER, &seconds.to_string());
            }
        }
        error.public()
    })
}

fn is_form() -> bool {
    use_context::<Parts>().is_some_and(|request| {
        let accept = request.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        request.method == Method::POST && accept.contains("text/html")
    })
}

/// The form sent without JavaScript whose failure stands in the address of the page that is being rendered.
#[must_use]
pub fn failed_form() -> Option<(String, ApiError)> {
    let failed = use_context::<ServerActionError>()?;
    Some((failed.path().to_owned(), ServerFnUrlError::decode_err(failed.err())))
}

/// Sets the HTTP status of the page that is being rendered.
pub fn set_status(status: StatusCode) {
    if let Some(response) = use_context::<ResponseOptions>() {
        response.set_status(status);
    }
}

/// What the upload page shows, and takes the notice that an earlier form left.
pub async fn upload_info(caller: &Caller) -> UploadInfo {
    let headers = leptos_axum::extract::<HeaderMap>().await.unwrap_or_default();
    let notice = take_notice(&headers, caller.state.cookie_key.clone()).map(|(text, removal)| {
        if let (Some(response), Ok(value)) = (use_context::<ResponseOptions>(), removal.parse()) {
            response.append_header(SET_COOKIE, value);
        }
        text
    });
    UploadInfo {
        engines: caller.state.engines.list(),
        max_upload_bytes: caller.state.limits.max_upload_bytes,
        max_duration: caller.state.limits.max_duration,
        notice,
    }
}

/// Sets a header of the page that is being rendered.
pub fn set_header(name: HeaderName, value: &str) {
    if let (Some(response), Ok(value)) = (use_context::<ResponseOptions>(), value.parse()) {
        response.insert_header(name, value);
    }
}
