//! `/api/v1/identity`: links for another browser, recovery keys, opening them; and `/api/v1/logout`. The routes take
//! JSON only, which a form of another site can't send, so a foreign button can't make anybody lose their sessions.

pub mod cookies;

use super::site::site;
use crate::{
    model::{ErrorBody, Timestamp, page::OPEN_PAGE},
    server::{error::Error, identity::LinkKey, keys::set_cookie, owner::Owner, state::AppState},
};
use axum::{
    Extension, Json,
    extract::{OriginalUri, State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A key that opens the caller's sessions in another browser.
#[derive(Serialize, ToSchema)]
pub(super) struct Link {
    /// The key alone, for `POST /api/v1/identity/open`.
    key: String,
    /// The page that opens them.
    url: String,
    /// When it stops working, used or not; null for a recovery key.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// The address of the page that opens a key. `site` is the scheme and host that the browser used.
#[must_use]
pub fn link(site: &str, key: &LinkKey) -> String {
    format!("{site}{OPEN_PAGE}?key={}", key.reveal())
}

/// Makes a link that opens the caller's sessions once, within ten minutes. An earlier one stops working.
#[utoipa::path(post, path = "/api/v1/identity/link",
    responses((status = 201, body = Link), (status = 409, body = ErrorBody)))]
pub(super) async fn make_link(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<Link>), Error> {
    let made = state.identities.make_link(&owner).await?;
    let url = link(&site(&uri, &headers), &made.key);
    let link = Link { key: made.key.reveal().to_owned(), url, expires_at: Some(made.expires_at) };
    Ok((StatusCode::CREATED, Json(link)))
}

/// Makes a key that opens the caller's sessions until it is replaced or removed. An earlier one stops working.
#[utoipa::path(put, path = "/api/v1/identity/recovery-key",
    responses((status = 200, body = Link), (status = 409, body = ErrorBody)))]
pub(super) async fn make_recovery_key(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Json<Link>, Error> {
    let key = state.identities.make_recovery_key(&owner).await?;
    let url = link(&site(&uri, &headers), &key);
    Ok(Json(Link { key: key.reveal().to_owned(), url, expires_at: None }))
}

/// Revokes the recovery key.
#[utoipa::path(delete, path = "/api/v1/identity/recovery-key", responses((status = 204)))]
pub(super) async fn revoke_recovery_key(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
) -> Result<StatusCode, Error> {
    state.identities.revoke_recovery_key(&owner).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
pub(super) struct Open {
    /// The key of a link, or a recovery key.
    key: String,
}

/// Opens the sessions of a key in the caller's browser: the answer sets the cookie.
#[utoipa::path(post, path = "/api/v1/identity/open", request_body = Open,
    responses((status = 204), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(super) async fn open(
    State(state): State<AppState>,
    Extension(before): Extension<Owner>,
    headers: HeaderMap,
    open: Result<Json<Open>, JsonRejection>,
) -> Result<Response, Error> {
    let Json(open) = open.map_err(|e| Error::BadRequest(format!("Send the key as JSON: {}", e.body_text())))?;
    let owner = state.identities.open(&before, &open.key).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    for cookie in cookies::switch_cookies(&state.cookie_keys, &headers, &owner) {
        set_cookie(response.headers_mut(), &cookie);
    }
    Ok(response)
}

#[derive(Deserialize, ToSchema)]
pub(super) struct Logout {
    /// Must be true: without the cookie or a recovery key nobody sees the sessions again.
    confirm: bool,
}

/// Logs the caller out: ends its status streams and removes its cookie. Its sessions stay, for whoever has the cookie
/// elsewhere or a recovery key.
#[utoipa::path(post, path = "/api/v1/logout", request_body = Logout,
    responses((status = 204), (status = 400, body = ErrorBody)))]
pub(super) async fn logout(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    headers: HeaderMap,
    logout: Result<Json<Logout>, JsonRejection>,
) -> Result<Response, Error> {
    match logout {
        Ok(Json(Logout { confirm: true })) => {}
        Ok(_) => return Err(Error::NotConfirmed),
        Err(e) => return Err(Error::BadRequest(format!("Send {{\"confirm\":true}} as JSON: {}", e.body_text()))),
    }
    state.identities.leave(&owner);
    let mut response = StatusCode::NO_CONTENT.into_response();
    for cookie in cookies::removal_cookies(&state.cookie_keys, &headers) {
        set_cookie(response.headers_mut(), &cookie);
    }
    Ok(response)
}
