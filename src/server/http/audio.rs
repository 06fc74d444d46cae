//! `/api/v1/sessions/{id}/audio`: the recording, whole or a range, so that a player can seek.

use super::{
    Id,
    disposition::disposition,
    etag,
    range::{self, RequestedRange},
};
use crate::{
    model::ErrorBody,
    server::{error::Error, owner::Owner, state::AppState},
};
use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// The recording as it was uploaded. Takes `Range`.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/audio", params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, description = "The recording"), (status = 206, description = "The range asked for"),
        (status = 304, description = "Unchanged"), (status = 404, body = ErrorBody), (status = 416, body = ErrorBody)))]
pub(super) async fn get(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Id(id): Id,
    request: HeaderMap,
) -> Result<Response, Error> {
    let session = state.sessions.get(&owner, id).await?;
    let size = session.media.bytes;
    // A recording never changes, so its id serves as ETag.
    let etag = format!("\"{id}\"");
    let sent = |name: header::HeaderName| request.get(name).and_then(|v| v.to_str().ok());
    let mut headers = HeaderMap::new();
    let mut set = |name: header::HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::ETAG, &etag);
    set(header::CACHE_CONTROL, "private, max-age=31536000, immutable");
    if etag::is_known(&request, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    set(header::CONTENT_TYPE, content_type(&session.media.format));
    set(header::ACCEPT_RANGES, "bytes");
    headers.insert(header::CONTENT_DISPOSITION, disposition("inline", &session.media.file_name));
    let mut set = |name: header::HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    // If `If-Range` names another version, the whole file is sent, or the client would mix parts of two (RFC 9110,
    // 13.1.5).
    let valid = sent(header::IF_RANGE).is_none_or(|tag| tag == etag);
    let (status, part) = match range::parse(sent(header::RANGE).filter(|_| valid), size) {
        RequestedRange::Whole => (StatusCode::OK, None),
        RequestedRange::Unsatisfiable => return Err(Error::RangeNotSatisfiable(size)),
        RequestedRange::Part(part) => {
            set(header::CONTENT_RANGE, format!("bytes {}-{}/{size}", part.start, part.end - 1));
            (StatusCode::PARTIAL_CONTENT, Some(part))
        }
    };
    set(header::CONTENT_LENGTH, part.as_ref().map_or(size, |p| p.end - p.start).to_string());
    let bytes = state.sessions.media.read(id, part).await?;
    Ok((status, headers, Body::from_stream(bytes)).into_response())
}

/// The media type of a container format, as browsers know it. Never a type that a browser would execute.
fn content_type(format: &str) -> &'static str {
    match format {
        "wav" => "audio/wav",
        "aiff" => "audio/aiff",
        "mp3" => "audio/mpeg",
        "m4a" | "mp4" | "isomp4" => "audio/mp4",
        "aac" | "adts" => "audio/aac",
        "flac" => "audio/flac",
        "ogg" | "opus" => "audio/ogg",
        "webm" => "audio/webm",
        "mkv" => "video/x-matroska",
        _ => "application/octet-stream",
    }
}
