//! Whisper's models, for polling and as a status stream of this node.

use super::{
    Query, etag, page,
    status::{CompressionQuery, Connection, StreamQuery, events, last_event_id},
};
use crate::{
    model::{ErrorBody, page::ModelsInfo},
    server::{
        error::Error,
        owner::Owner,
        state::AppState,
        stream::{Bye, StatusStream},
    },
};
use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// The models that there are, which of them are on this node, and how far a download is.
#[utoipa::path(get, path = "/api/v1/models",
    params(("If-None-Match" = Option<String>, Header, description = "The ETag of the answer before")),
    responses((status = 200, body = ModelsInfo), (status = 304, description = "Unchanged")))]
pub(super) async fn list(State(state): State<AppState>, request: HeaderMap) -> Result<Response, Error> {
    let (version, frame) = publish(&state).await?;
    let tag = format!("\"{version}\"");
    let mut response = if etag::is_known(&request, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], frame).into_response()
    };
    if let Ok(value) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The models as server-sent events: `models` with what `GET /api/v1/models` answers, `heartbeat`, `bye`.
///
/// Begins with what the client hasn't seen, and ends when no download is under way. A client that has already seen that
/// gets 204, which stops an EventSource for good. When there are too many streams, the only event is a `bye` with the
/// reason `limit`; when streams are off, one with the reason `polling`.
#[utoipa::path(get, path = "/api/v1/models/stream",
    params(StreamQuery, CompressionQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event seen")),
    responses((status = 200, content_type = "text/event-stream", description = "The events"),
        (status = 204, description = "No download is under way and the client knows it"),
        (status = 400, body = ErrorBody)))]
pub(super) async fn stream(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Query(query): Query<StreamQuery>,
    Query(compression): Query<CompressionQuery>,
    (version, direct, peer, address, requested, from): Connection,
    request: HeaderMap,
) -> Result<Response, Error> {
    if let Some(refusal) = page::refusal(&state, from.as_deref()) {
        return Ok(events(refusal, requested, compression, &request, direct.is_some(), version));
    }
    let (newest, _) = publish(&state).await?;
    let seen = last_event_id(&request, query)?.unwrap_or_default().version;
    if seen >= newest && !state.hub.models_are_running() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let standing = state.sessions.stream_standing(&owner, address.map(|Extension(address)| address)).await;
    let stream = state.hub.admit(&owner, standing).map_or_else(
        |_| StatusStream::refused(Bye::Limit),
        |permit| StatusStream::of_models(&state.hub, permit, seen, peer.map(|Extension(peer)| peer)),
    );
    // Once more, because a change that came before the stream watched was published to nobody.
    publish(&state).await?;
    Ok(events(stream, requested, compression, &request, direct.is_some(), version))
}

/// Reads the folder of models and gives what is there to the hub, which knows whether it is new. Returns its version and
/// its JSON.
async fn publish(state: &AppState) -> Result<(u64, bytes::Bytes), Error> {
    Ok(state.hub.publish_models(&state.sessions.models().await?))
}
