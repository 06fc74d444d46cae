//! Status by stream and by polling: of one session, and of all of the caller's in one request.

use super::{Id, Query};
use crate::{
    model::{ErrorBody, EventId, SessionId, Status, StatusList},
    server::{
        error::Error,
        owner::Owner,
        sessions::{SEGMENT_PAGE, recently},
        state::AppState,
        store::Store,
        stream::{Snapshot, SnapshotPage, StatusBody},
    },
};
use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::hash::{DefaultHasher, Hash, Hasher};
use utoipa::IntoParams;

/// The status of one session, for polling.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/status",
    params(("id" = String, Path, description = "The session's id"),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of the answer before")),
    responses((status = 200, body = Status), (status = 304, description = "Unchanged"), (status = 404, body = ErrorBody)))]
pub(super) async fn one(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Id(id): Id,
    request: HeaderMap,
) -> Result<Response, Error> {
    let status = state.sessions().get(&owner, id).await?.status;
    Ok(unless_known(&request, &format!("\"{}\"", status.version), Json(status)))
}

/// The statuses of the caller's sessions that haven't ended or changed in the last 10 minutes, for polling.
#[utoipa::path(get, path = "/api/v1/status",
    params(("If-None-Match" = Option<String>, Header, description = "The ETag of the answer before")),
    responses((status = 200, body = StatusList), (status = 304, description = "Unchanged")))]
pub(super) async fn all(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    request: HeaderMap,
) -> Result<Response, Error> {
    let statuses = state.sessions().statuses(&owner).await?;
    // The hash stays within this answer and its repetition, so it need not be stable between versions.
    let mut hasher = DefaultHasher::new();
    for status in &statuses {
        (status.session_id, status.version).hash(&mut hasher);
    }
    Ok(unless_known(&request, &format!("\"{:016x}\"", hasher.finish()), Json(StatusList { statuses })))
}

fn unless_known(request: &HeaderMap, etag: &str, answer: impl IntoResponse) -> Response {
    let known = request.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|tags| {
        tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag || tag.trim() == "*")
    });
    let kind = if known { "304" } else { "200" };
    metrics::counter!("hark_polls_total", "answer" => kind).increment(1);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(etag) {
        headers.insert(header::ETAG, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if known { (StatusCode::NOT_MODIFIED, headers).into_response() } else { (headers, answer).into_response() }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamQuery {
    /// As the header `Last-Event-ID`, for clients that can't set it. The header goes first.
    last_event_id: Option<String>,
}

/// The status and segments of one session, as server-sent events: `status`, `segment`, `heartbeat`, `bye`.
///
/// Begins with what the client hasn't seen and ends after the terminal status. A client that has already seen that
/// gets 204, which stops an EventSource for good.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/status/stream",
    params(("id" = String, Path, description = "The session's id"), StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event seen")),
    responses((status = 200, content_type = "text/event-stream", description = "The events"),
        (status = 204, description = "The session has ended and the client knows it"),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn stream_one(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Id(id): Id,
    Query(query): Query<StreamQuery>,
    request: HeaderMap,
) -> Result<Response, Error> {
    let status = state.sessions().get(&owner, id).await?.status;
    let seen = last_event_id(&request, query)?;
    if let Some(seen) = seen
        && status.state.is_terminal()
        && seen.version >= status.version
        && seen.segments >= status.segments
    {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let seen = seen.unwrap_or_default();
    let subscription = state.hub.watch_session(id);
    let source = OneSession { store: state.store.clone(), id };
    Ok(events(Body::new(StatusBody::of_session(subscription, source, id, seen.version, seen.segments))))
}

/// The statuses and new segments of all sessions of the caller, as server-sent events.
///
/// Begins with the status of every session that hasn't ended or changed in the last 10 minutes. Compare `segments`
/// with what you have, and fetch what is missing by range.
#[utoipa::path(get, path = "/api/v1/status/stream",
    responses((status = 200, content_type = "text/event-stream", description = "The events")))]
pub(super) async fn stream_all(State(state): State<AppState>, Extension(owner): Extension<Owner>) -> Response {
    let subscription = state.hub.watch_owner(owner.clone());
    let source = AllSessions { store: state.store.clone(), owner };
    events(Body::new(StatusBody::of_owner(subscription, source)))
}

fn last_event_id(request: &HeaderMap, query: StreamQuery) -> Result<Option<EventId>, Error> {
    let header = request.get("last-event-id").map(|v| v.to_str().unwrap_or("?").to_owned());
    header
        .or(query.last_event_id)
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().map_err(|e| Error::BadRequest(format!("{e}"))))
        .transpose()
}

fn events(body: Body) -> Response {
    metrics::counter!("hark_streams_opened_total").increment(1);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, no-transform")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

struct OneSession {
    store: Store,
    id: SessionId,
}

impl Snapshot for OneSession {
    fn read(&self, from: u32) -> impl Future<Output = Result<SnapshotPage, sqlx::Error>> + Send + 'static {
        let (store, id) = (self.store.clone(), self.id);
        async move {
            // The status first: what it counts is then certainly among the segments read after it.
            let status = store.any(id).await?.map(|(session, _)| session.status);
            let segments = store.segments(id, from, SEGMENT_PAGE).await?;
            let more = segments.len() == SEGMENT_PAGE as usize;
            Ok(SnapshotPage { segments, statuses: status.into_iter().collect(), more })
        }
    }
}

struct AllSessions {
    store: Store,
    owner: Owner,
}

impl Snapshot for AllSessions {
    fn read(&self, _: u32) -> impl Future<Output = Result<SnapshotPage, sqlx::Error>> + Send + 'static {
        let (store, owner) = (self.store.clone(), self.owner.clone());
        async move {
            let statuses = store.statuses(&owner, recently()).await?;
            Ok(SnapshotPage { statuses, ..SnapshotPage::default() })
        }
    }
}
