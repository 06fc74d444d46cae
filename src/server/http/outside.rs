//! Routes on which workers outside Hark publish sessions without a file, statuses and segments. They need a bearer
//! token (RFC 6750), and are off unless the operator has set one.

pub(super) mod batch;

use super::Id;
use crate::{
    model::{ErrorBody, Session},
    server::{
        body::{Fault, LimitedBody},
        error::Error,
        outside::{self, Announcement, NewSegment, Report},
        owner::Owner,
        state::AppState,
    },
};
use axum::{
    Json, Router,
    body::{Bytes, to_bytes},
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{HeaderMap, header, request::Parts},
    routing::{post, put},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

/// The largest body that an outside worker may send, in bytes.
pub(super) const MAX_BODY: u64 = 256 * 1024;

/// The routes that only workers use. `sessions` calls [`create`], because its route also takes uploads.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/v1/sessions/{id}/status", put(report))
        .route("/api/v1/sessions/{id}/segments", post(segments))
        .route("/api/v1/status/batch", post(batch::report_batch))
}

/// Proof that the caller has the worker token.
pub(super) struct Worker;

impl Worker {
    fn check(headers: &HeaderMap, state: &AppState) -> Result<Self, Error> {
        let Some(token) = &state.settings.worker_token else { return Err(Error::WorkersOff) };
        let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| {
            let (scheme, token) = v.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        match given {
            // Compared in constant time, so that the time doesn't tell where the two differ.
            Some(given) if given.as_bytes().ct_eq(token.as_bytes()).into() => Ok(Self),
            _ => Err(Error::Unauthorised),
        }
    }
}

impl FromRequestParts<AppState> for Worker {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Error> {
        Self::check(&parts.headers, state)
    }
}

/// The bytes of a message, whatever its content type.
pub(super) struct Message(Bytes);

impl FromRequest<AppState> for Message {
    type Rejection = Error;

    async fn from_request(request: Request, _: &AppState) -> Result<Self, Error> {
        // `guard` limits the body and answers if it is too large or too slow.
        let broke_off = |_| Error::BadRequest("The message broke off; send it again.".to_owned());
        to_bytes(request.into_body(), usize::MAX).await.map(Self).map_err(broke_off)
    }
}

/// Whether a request to make a session comes from an outside worker: JSON instead of a form.
#[must_use]
pub fn is_announcement(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Makes a session without a file, for an outside worker.
pub(super) async fn create(state: &AppState, owner: &Owner, request: Request) -> Result<Session, Error> {
    Worker::check(request.headers(), state)?;
    // `guard` sets no limit on this route, because it also takes recordings.
    let secs = state.settings.http.body_secs;
    let (parts, body) = request.into_parts();
    let (body, faults) = LimitedBody::new(body, MAX_BODY, Duration::from_secs(secs.into()));
    let request = Request::from_parts(parts, axum::body::Body::new(body));
    let read = Message::from_request(request, state).await;
    let Message(message) = read.map_err(|error| match faults.get() {
        Some(Fault::TooLarge) => Error::MessageTooLarge { limit: MAX_BODY },
        Some(Fault::TooSlow) => Error::RequestTooSlow { secs },
        _ => error,
    })?;
    let new: Announcement = outside::read(&message)?;
    state.outside.announce(owner, new).await
}

#[derive(Serialize, ToSchema)]
struct Reported {
    /// The version the status got.
    version: u64,
}

/// Publishes the status of a session that an outside worker made.
#[utoipa::path(put, path = "/api/v1/sessions/{id}/status", params(("id" = String, Path, description = "The session's id")),
    request_body = Report, security(("worker_token" = [])),
    responses((status = 200, body = Reported), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn report(
    _: Worker,
    State(state): State<AppState>,
    Id(id): Id,
    Message(message): Message,
) -> Result<Json<Reported>, Error> {
    let reported = async { state.outside.report(id, outside::read_report(&message)?).await };
    let version = reported.await.inspect_err(|error| state.outside.log_refused(id, error))?;
    Ok(Json(Reported { version }))
}

// Only described here: `outside::read_segments` reads them, with errors that name the field.
/// One segment, several, or several in an object.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a description")]
enum NewSegments {
    One(NewSegment),
    Several(Vec<NewSegment>),
    Listed { segments: Vec<NewSegment> },
}

#[derive(Serialize, ToSchema)]
struct Counted {
    /// How many segments the session has now.
    segments: u32,
}

/// Adds segments to a session that an outside worker made, in order and without gaps.
#[utoipa::path(post, path = "/api/v1/sessions/{id}/segments", params(("id" = String, Path, description = "The session's id")),
    request_body = NewSegments, security(("worker_token" = [])),
    responses((status = 200, body = Counted), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn segments(
    _: Worker,
    State(state): State<AppState>,
    Id(id): Id,
    Message(message): Message,
) -> Result<Json<Counted>, Error> {
    let reported = async { state.outside.report_segments(id, outside::read_segments(&message)?).await };
    let segments = reported.await.inspect_err(|error| state.outside.log_refused(id, error))?;
    Ok(Json(Counted { segments }))
}
