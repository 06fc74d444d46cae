//! `/api/v1/sessions`: create, list, get, rename, cancel, retry and delete; and `/api/v1/engines`.

use super::{
    Id, Query, Whole, created,
    identity::cookies::Identity,
    outside,
    upload::{self, UploadForm},
};
use crate::{
    model::{AnotherChoice, EngineInfo, ErrorBody, Filter, Session, SessionPage},
    server::{
        address::ClientAddress, error::Error, outside::Announcement, owner::Owner, state::AppState, store::MAX_PAGE,
    },
};
use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Request, State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only sessions whose title holds this.
    q: Option<String>,
    /// Only sessions in this state: `active` (queued or processing), `completed`, `failed` or `cancelled`.
    state: Option<String>,
    /// Only sessions in this language, requested or found: a tag, whose region doesn't count.
    language: Option<String>,
    /// Only sessions created on this day in UTC (`2026-11-23`) or at this time (RFC 3339), or later.
    since: Option<String>,
    /// Only sessions created on this day or at this time, or earlier.
    until: Option<String>,
    /// `newest` (if left out), `oldest`, `longest` or `title`.
    order: Option<String>,
    /// The `next_cursor` of the page before, in the same order.
    cursor: Option<String>,
    /// How many; 50 if left out.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Option<Whole<1, MAX_PAGE>>,
}

impl ListQuery {
    fn filter(&self) -> Result<Filter, Error> {
        let (filter, invalid) = Filter::read(|name| match name {
            "q" => self.q.clone(),
            "state" => self.state.clone(),
            "language" => self.language.clone(),
            "since" => self.since.clone(),
            "until" => self.until.clone(),
            _ => self.order.clone(),
        });
        invalid.map_or(Ok(filter), |invalid| Err(Error::BadRequest(invalid.to_string())))
    }
}

/// The caller's sessions, newest first unless another order is asked for.
#[utoipa::path(get, path = "/api/v1/sessions", params(ListQuery), responses(
    (status = 200, body = SessionPage), (status = 400, body = ErrorBody)))]
pub(super) async fn list(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Query(query): Query<ListQuery>,
) -> Result<Json<SessionPage>, Error> {
    let page = state
        .sessions
        .list(&owner, &query.filter()?, query.cursor.as_deref(), query.limit.map(|Whole(limit)| limit))
        .await?;
    Ok(Json(page))
}

/// Receives a recording and queues it. With the worker token and JSON in place of a form, makes a session that a
/// worker outside Hark reports on.
#[utoipa::path(post, path = "/api/v1/sessions", request_body(content(
    (UploadForm = "multipart/form-data"), (Announcement = "application/json"))),
    responses(
        (status = 201, body = Session, headers(("Location" = String, description = "The session's address"))),
        (status = 303, description = "Answer to a browser's form: the session's page"),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 408, body = ErrorBody), (status = 413, body = ErrorBody), (status = 422, body = ErrorBody),
        (status = 429, body = ErrorBody, headers(("Retry-After" = u32, description = "Seconds after which to try again"))),
        (status = 503, body = ErrorBody), (status = 507, body = ErrorBody)))]
pub(super) async fn create(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Extension(identity): Extension<Identity>,
    address: Option<Extension<ClientAddress>>,
    request: Request,
) -> Response {
    if outside::is_announcement(request.headers()) {
        return outside::create(&state, &owner, request).await.map(created).into_response();
    }
    upload::create(&state, &owner, identity, address.map(|Extension(address)| address), request).await
}

/// One session.
#[utoipa::path(get, path = "/api/v1/sessions/{id}", params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, body = Session), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Id(id): Id,
) -> Result<Json<Session>, Error> {
    Ok(Json(state.sessions.get(&owner, id).await?))
}

/// Removes a session with its recording and segments; a running one is cancelled first.
#[utoipa::path(delete, path = "/api/v1/sessions/{id}", params(("id" = String, Path, description = "The session's id")),
    responses((status = 204), (status = 404, body = ErrorBody)))]
pub(super) async fn delete(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Id(id): Id,
) -> Result<StatusCode, Error> {
    state.sessions.delete(&owner, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
pub(super) struct Rename {
    /// 1 to 200 characters.
    title: String,
}

/// Gives a session another title.
#[utoipa::path(patch, path = "/api/v1/sessions/{id}", params(("id" = String, Path, description = "The session's id")),
    request_body = Rename,
    responses((status = 200, body = Session), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 422, body = ErrorBody)))]
pub(super) async fn rename(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Id(id): Id,
    change: Result<Json<Rename>, JsonRejection>,
) -> Result<Json<Session>, Error> {
    let Json(change) = change.map_err(|e| Error::BadRequest(format!("Send the title as JSON: {}", e.body_text())))?;
    Ok(Json(state.sessions.rename(&owner, id, &change.title).await?))
}

/// Stops a session. One that has ended stays as it is.
#[utoipa::path(post, path = "/api/v1/sessions/{id}/cancel",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, body = Session), (status = 404, body = ErrorBody)))]
pub(super) async fn cancel(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Id(id): Id,
) -> Result<Json<Session>, Error> {
    Ok(Json(state.sessions.cancel(&owner, id).await?))
}

/// Queues a failed or cancelled session again; it continues after its last segment. Any other stays as it is.
///
/// With another choice of the track or the channels in the body, any session is transcribed anew, and the transcript that is
/// there is deleted.
#[utoipa::path(post, path = "/api/v1/sessions/{id}/retry",
    params(("id" = String, Path, description = "The session's id")),
    request_body = Option<AnotherChoice>,
    responses((status = 200, body = Session), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody),
        (status = 429, body = ErrorBody, headers(("Retry-After" = u32, description = "Seconds after which to try again")))))]
pub(super) async fn retry(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    address: Option<Extension<ClientAddress>>,
    Id(id): Id,
    body: Bytes,
) -> Result<Json<Session>, Error> {
    let address = address.map(|Extension(address)| address);
    let choice = if body.is_empty() { AnotherChoice::default() } else { another_choice(&body)? };
    Ok(Json(if choice.track.is_none() && choice.channels.is_none() {
        state.sessions.retry(&owner, address, id).await?
    } else {
        state.sessions.transcribe_again(&owner, address, id, &choice).await?
    }))
}

fn another_choice(body: &[u8]) -> Result<AnotherChoice, Error> {
    let wrong = |error| {
        Error::BadRequest(format!(
            "Send no body, or the track and the channels as JSON, such as {{\"track\":\"2\"}}: {error}"
        ))
    };
    serde_json::from_slice(body).map_err(wrong)
}

/// The speech engines, with the reason for each that isn't available.
#[utoipa::path(get, path = "/api/v1/engines", responses((status = 200, body = Vec<EngineInfo>)))]
pub(super) async fn engines(State(state): State<AppState>) -> Json<Vec<EngineInfo>> {
    Json(state.sessions.engine_list())
}
