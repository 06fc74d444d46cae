//! `/api/v1/sessions/{id}/audio` and `/playable`: the recording and its copy for browsers, whole or a range, so that a player
//! can seek.

use super::{
    Id, Query,
    disposition::disposition,
    etag,
    range::{self, RequestedRange},
};
use crate::{
    model::{ErrorBody, playback::CopyForm},
    server::{
        address::ClientAddress,
        error::Error,
        media::{MediaError, Pieces},
        owner::Owner,
        state::AppState,
    },
};
use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::ops::Range;
use utoipa::IntoParams;

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
    let file = File {
        // A recording never changes, so its id serves as ETag.
        etag: format!("\"{id}\""),
        cache: "private, max-age=31536000, immutable",
        media_type: content_type(&session.media.format),
        name: &session.media.file_name,
        size: session.media.bytes,
    };
    file.answer(&request, async |range| state.sessions.media.read(id, range).await).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CopyQuery {
    /// `wav` for a WAV file, which every browser plays. If left out, Opus in Ogg where the server can make that.
    #[serde(rename = "as")]
    #[param(rename = "as")]
    form: Option<String>,
}

/// A copy of the recording that browsers can play, made when it is first asked for. Takes `Range`.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/playable",
    params(("id" = String, Path, description = "The session's id"), CopyQuery),
    responses((status = 200, description = "The copy"), (status = 206, description = "The range asked for"),
        (status = 304, description = "Unchanged"), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 416, body = ErrorBody), (status = 422, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
pub(super) async fn playable(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    address: Option<Extension<ClientAddress>>,
    Id(id): Id,
    Query(query): Query<CopyQuery>,
    request: HeaderMap,
) -> Result<Response, Error> {
    let form = match query.form.as_deref() {
        None => CopyForm::Opus,
        Some("wav") => CopyForm::Wav,
        Some(_) => return Err(Error::BadRequest("A copy is made as 'wav', or in the form that fits best.".to_owned())),
    };
    let address = address.map(|Extension(address)| address);
    let (session, copy) = state.sessions.copy(&owner, address, id, form).await?;
    let name = format!("{}.{}", session.media.file_name, copy.name.form.extension());
    let file = File {
        etag: format!("\"{}\"", copy.version),
        // Another track may be chosen.
        cache: "private, no-cache",
        media_type: copy.name.form.media_type(),
        name: &name,
        size: copy.bytes,
    };
    file.answer(&request, async |range| state.sessions.media.read_copy(copy.name, range).await).await
}

/// What an answer says of a file.
struct File<'a> {
    etag: String,
    cache: &'static str,
    media_type: &'static str,
    name: &'a str,
    size: u64,
}

impl File<'_> {
    /// The file, or the range that was asked for, which `read` reads.
    async fn answer(
        &self,
        request: &HeaderMap,
        read: impl AsyncFnOnce(Option<Range<u64>>) -> Result<Pieces, MediaError>,
    ) -> Result<Response, Error> {
        let size = self.size;
        let sent = |name: header::HeaderName| request.get(name).and_then(|v| v.to_str().ok());
        let mut headers = HeaderMap::new();
        let mut set = |name: header::HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set(header::ETAG, &self.etag);
        set(header::CACHE_CONTROL, self.cache);
        if etag::is_known(request, &self.etag) {
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        set(header::CONTENT_TYPE, self.media_type);
        set(header::ACCEPT_RANGES, "bytes");
        headers.insert(header::CONTENT_DISPOSITION, disposition("inline", self.name));
        let mut set = |name: header::HeaderName, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        // If `If-Range` names another version, the whole file is sent, or the client would mix parts of two (RFC 9110,
        // 13.1.5).
        let valid = sent(header::IF_RANGE).is_none_or(|tag| tag == self.etag);
        let (status, part) = match range::parse(sent(header::RANGE).filter(|_| valid), size) {
            RequestedRange::Whole => (StatusCode::OK, None),
            RequestedRange::Unsatisfiable => return Err(Error::RangeNotSatisfiable(size)),
            RequestedRange::Part(part) => {
                set(header::CONTENT_RANGE, format!("bytes {}-{}/{size}", part.start, part.end - 1));
                (StatusCode::PARTIAL_CONTENT, Some(part))
            }
        };
        set(header::CONTENT_LENGTH, part.as_ref().map_or(size, |p| p.end - p.start).to_string());
        let bytes = read(part).await?;
        Ok((status, headers, Body::from_stream(bytes)).into_response())
    }
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
