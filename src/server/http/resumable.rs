//! `/api/v1/uploads`: recordings that come in parts, by the tus protocol (<https://tus.io/protocols/resumable-upload>). What it
//! says in headers is read and written here; `server::resumable` does the rest.

use crate::{
    model::{
        ErrorBody,
        upload::{AlreadySent, PART_TYPE, PartialUpload, TUS_VERSION, UPLOADS_PATH, UploadId},
    },
    server::{
        address::ClientAddress,
        error::Error,
        owner::Owner,
        resumable::{
            Appended, Begun, Part,
            protocol::{CHECKSUM_ALGORITHMS, Checksum, EXTENSIONS},
        },
        state::AppState,
        store::UploadRow,
        telemetry::traces::Step,
    },
};
use axum::{
    Extension, Json,
    body::{Body, HttpBody},
    extract::{FromRequestParts, Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use std::{
    str::FromStr,
    time::{Duration, Instant, UNIX_EPOCH},
};
use utoipa_axum::{router::OpenApiRouter, routes};

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");
/// The id of the session that an upload has become, or that has the same recording.
const SESSION: HeaderName = HeaderName::from_static("hark-session");

/// The routes of uploads in parts.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(options, create))
        .routes(routes!(get, head, append, terminate))
        .route(&format!("{UPLOADS_PATH}/{{id}}"), post(override_method).options(options))
        .layer(middleware::from_fn(speak_tus))
}

/// Whether a request brings a part, whose size this module limits.
pub(super) fn brings_part(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == PART_TYPE)
}

/// Checks that a request speaks the version of the protocol that is served, and says which that is. `GET` isn't part of it.
async fn speak_tus(request: Request, next: Next) -> Response {
    let method = request.method();
    let version = request.headers().get(TUS_RESUMABLE);
    let asks = *method == Method::GET || *method == Method::OPTIONS;
    let mut response = match version {
        Some(version) if version == TUS_VERSION => next.run(request).await,
        None if asks => next.run(request).await,
        _ if *method == Method::OPTIONS => next.run(request).await,
        _ => Error::WrongTusVersion.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(TUS_RESUMABLE, HeaderValue::from_static(TUS_VERSION));
    headers.insert("tus-version", HeaderValue::from_static(TUS_VERSION));
    response
}

/// What of the tus protocol is served, in headers.
#[utoipa::path(options, path = "/api/v1/uploads", responses((status = 204, headers(
    ("Tus-Version" = String), ("Tus-Extension" = String), ("Tus-Checksum-Algorithm" = String),
    ("Tus-Max-Size" = u64, description = "The largest file accepted, in bytes")))))]
async fn options(State(state): State<AppState>) -> Response {
    let headers = [
        (HeaderName::from_static("tus-extension"), HeaderValue::from_static(EXTENSIONS)),
        (HeaderName::from_static("tus-checksum-algorithm"), HeaderValue::from_static(CHECKSUM_ALGORITHMS)),
        (HeaderName::from_static("tus-max-size"), HeaderValue::from(state.resumable.max_bytes())),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Begins an upload that comes in parts. Its first part may come along, as the body.
#[utoipa::path(post, path = "/api/v1/uploads", params(
    ("Tus-Resumable" = String, Header, description = "`1.0.0`"),
    ("Upload-Length" = u64, Header, description = "The size of the file, in bytes"),
    ("Upload-Metadata" = Option<String>, Header, description = "Names with values in base64, with commas between: `filename`, \
        `title`, `language`, `engine`, `vocabulary`, `channels` and `track` as in a form; `hash`, by which a recording is \
        recognised that was sent before; `again` without a value, to send it all the same")),
    responses(
        (status = 201, headers(
            ("Location" = String, description = "The upload's address"),
            ("Upload-Offset" = u64, description = "With a first part: how many bytes are here"),
            ("Upload-Expires" = String, description = "When it is removed, unless another part comes before"),
            ("Hark-Session" = Option<String>, description = "The id of the session, if the first part was the whole file"))),
        (status = 200, body = AlreadySent, description = "Nothing was begun: the caller has sent this recording before",
            headers(("Hark-Session" = String, description = "The id of its session"))),
        (status = 400, body = ErrorBody), (status = 412, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 422, body = ErrorBody), (status = 429, body = ErrorBody), (status = 503, body = ErrorBody),
        (status = 507, body = ErrorBody)))]
async fn create(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    address: Option<Extension<ClientAddress>>,
    request: Request,
) -> Result<Response, Error> {
    let address = address.map(|Extension(address)| address);
    let (head, body) = request.into_parts();
    let created = begin(&state, &owner, address, &head.headers, body).await;
    created.inspect_err(|error| state.sessions.count_refusal(&owner, error))
}

async fn begin(
    state: &AppState,
    owner: &Owner,
    address: Option<ClientAddress>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let length = number(headers, &UPLOAD_LENGTH)?.ok_or_else(|| {
        Error::BadRequest("Send the size of the file as Upload-Length, in bytes; it can't be told later.".to_owned())
    })?;
    let metadata = match headers.get(UPLOAD_METADATA) {
        Some(value) => value.to_str().map_err(|_| Error::BadRequest("Upload-Metadata isn't ASCII.".to_owned()))?,
        None => "",
    };
    let part = if brings_part(headers) { Some(part(headers, 0, &body)?) } else { None };
    let limit = state.resumable.part_bytes();
    if part.as_ref().and_then(|part| part.bytes).is_some_and(|bytes| bytes > limit) {
        return Err(Error::PartTooLarge { limit });
    }
    let upload = match state.resumable.begin(owner, address, length, metadata).await? {
        Begun::New(upload) => upload,
        Begun::AlreadySent(session) => {
            let named = [(SESSION, session.id.to_string())];
            return Ok((named, Json(AlreadySent { session: *session })).into_response());
        }
    };
    let location = format!("{UPLOADS_PATH}/{}", upload.id);
    let mut response = (StatusCode::CREATED, [(header::LOCATION, location)]).into_response();
    let headers = response.headers_mut();
    let Some(part) = part else {
        headers.extend(expiry(upload.expires_at.0));
        return Ok(response);
    };
    match append_part(state, owner, address, upload.id, part, body).await {
        Ok(appended) => headers.extend(appended_headers(&appended)),
        Err(error) => {
            // Its sender doesn't know its address.
            state.resumable.terminate(owner, upload.id).await.or_else(|error| match error {
                Error::NoUpload => Ok(()),
                error => Err(error),
            })?;
            return Err(error);
        }
    }
    Ok(response)
}

/// How far an upload is, and the session that it has become.
#[utoipa::path(get, path = "/api/v1/uploads/{id}", params(("id" = String, Path, description = "The upload's id")),
    responses((status = 200, body = PartialUpload), (status = 404, body = ErrorBody)))]
async fn get(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    UploadPath(id): UploadPath,
) -> Result<Json<PartialUpload>, Error> {
    Ok(Json(state.resumable.describe(&owner, id).await?))
}

/// How far an upload is, in headers.
#[utoipa::path(head, path = "/api/v1/uploads/{id}", params(
    ("id" = String, Path, description = "The upload's id"), ("Tus-Resumable" = String, Header, description = "`1.0.0`")),
    responses(
        (status = 200, headers(
            ("Upload-Offset" = u64, description = "How many bytes are here, from the beginning"), ("Upload-Length" = u64),
            ("Upload-Metadata" = Option<String>), ("Upload-Expires" = Option<String>), ("Hark-Session" = Option<String>))),
        (status = 404), (status = 412)))]
async fn head(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    UploadPath(id): UploadPath,
) -> Result<Response, Error> {
    let UploadRow { length, received, metadata, expires_at, session_id, .. } = state.resumable.find(&owner, id).await?;
    let mut headers = HeaderMap::from_iter([
        (UPLOAD_OFFSET, HeaderValue::from(received)),
        (UPLOAD_LENGTH, HeaderValue::from(length)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]);
    if !metadata.is_empty() {
        headers.extend(HeaderValue::try_from(metadata).ok().map(|value| (UPLOAD_METADATA, value)));
    }
    match session_id {
        Some(id) => headers.extend(HeaderValue::try_from(id.to_string()).ok().map(|id| (SESSION, id))),
        None => headers.extend(expiry(expires_at.0)),
    }
    Ok((StatusCode::OK, headers).into_response())
}

/// Appends a part to an upload. With the last one it becomes a session.
#[utoipa::path(patch, path = "/api/v1/uploads/{id}", params(
    ("id" = String, Path, description = "The upload's id"), ("Tus-Resumable" = String, Header, description = "`1.0.0`"),
    ("Upload-Offset" = u64, Header, description = "Where in the file the part begins: where the upload ends"),
    ("Upload-Checksum" = Option<String>, Header, description = "`sha1` or `sha256`, and the part's digest in base64")),
    request_body(content_type = "application/offset+octet-stream", content = Vec<u8>),
    responses(
        (status = 204, headers(
            ("Upload-Offset" = u64, description = "How many bytes are here now"), ("Upload-Expires" = Option<String>),
            ("Hark-Session" = Option<String>, description = "The id of the session, after the last part"))),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 408, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The part doesn't begin where the upload ends",
            headers(("Upload-Offset" = u64, description = "Where it ends"))),
        (status = 412, body = ErrorBody), (status = 413, body = ErrorBody), (status = 415, body = ErrorBody),
        (status = 422, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 460, body = ErrorBody, description = "The part has another checksum"),
        (status = 503, body = ErrorBody), (status = 507, body = ErrorBody)))]
async fn append(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    address: Option<Extension<ClientAddress>>,
    UploadPath(id): UploadPath,
    request: Request,
) -> Result<Response, Error> {
    let (head, body) = request.into_parts();
    if !brings_part(&head.headers) {
        return Err(Error::NoPart);
    }
    let offset = number(&head.headers, &UPLOAD_OFFSET)?
        .ok_or_else(|| Error::BadRequest("Send where the part begins as Upload-Offset, in bytes.".to_owned()))?;
    let part = part(&head.headers, offset, &body)?;
    let address = address.map(|Extension(address)| address);
    let appended = append_part(&state, &owner, address, id, part, body).await;
    let appended = appended.inspect_err(|error| {
        if !matches!(error, Error::NoUpload | Error::WrongOffset { .. } | Error::ChecksumMismatch) {
            state.sessions.count_refusal(&owner, error);
        }
    })?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().extend(appended_headers(&appended));
    Ok(response)
}

async fn append_part(
    state: &AppState,
    owner: &Owner,
    address: Option<ClientAddress>,
    id: UploadId,
    part: Part,
    body: Body,
) -> Result<Appended, Error> {
    let began = Instant::now();
    let appended = state.resumable.append(owner, address, id, part, body).await?;
    if let Some(session) = &appended.session {
        Step::first(session.id, "upload", began).number("hark.bytes", session.media.bytes);
    }
    Ok(appended)
}

/// Removes an upload with its parts. The session that it has become stays.
#[utoipa::path(delete, path = "/api/v1/uploads/{id}", params(
    ("id" = String, Path, description = "The upload's id"), ("Tus-Resumable" = String, Header, description = "`1.0.0`")),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 412, body = ErrorBody)))]
async fn terminate(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    UploadPath(id): UploadPath,
) -> Result<StatusCode, Error> {
    state.resumable.terminate(&owner, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Answers a client that can only send `POST`, as the protocol asks: its real method stands in a header.
async fn override_method(
    state: State<AppState>,
    owner: Extension<Owner>,
    address: Option<Extension<ClientAddress>>,
    id: UploadPath,
    request: Request,
) -> Result<Response, Error> {
    match request.headers().get(METHOD_OVERRIDE).and_then(|method| method.to_str().ok()) {
        Some("PATCH") => append(state, owner, address, id, request).await,
        Some("HEAD") => head(state, owner, id).await,
        Some("DELETE") => terminate(state, owner, id).await.map(IntoResponse::into_response),
        _ => Err(Error::MethodNotAllowed),
    }
}

/// What the headers say of a part.
fn part(headers: &HeaderMap, offset: u64, body: &Body) -> Result<Part, Error> {
    let checksum = match headers.get(UPLOAD_CHECKSUM) {
        Some(value) => Some(Checksum::parse(value.to_str().unwrap_or_default())?),
        None => None,
    };
    Ok(Part { offset, bytes: body.size_hint().exact(), checksum })
}

fn appended_headers(appended: &Appended) -> HeaderMap {
    let mut headers = HeaderMap::from_iter([(UPLOAD_OFFSET, HeaderValue::from(appended.offset))]);
    match &appended.session {
        Some(session) => headers.extend(HeaderValue::try_from(session.id.to_string()).ok().map(|id| (SESSION, id))),
        None => headers.extend(expiry(appended.expires_at.0)),
    }
    headers
}

/// When an upload expires, given in milliseconds, as a date of HTTP.
fn expiry(millis: i64) -> Option<(HeaderName, HeaderValue)> {
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).ok()?);
    Some((UPLOAD_EXPIRES, HeaderValue::try_from(httpdate::fmt_http_date(at)).ok()?))
}

/// A header that is a number of bytes; none if it isn't there.
fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Error> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let number = digits.and_then(|text| text.parse::<u64>().ok()).filter(|number| i64::try_from(*number).is_ok());
    number.map(Some).ok_or_else(|| Error::BadRequest(format!("The header {name} isn't a number of bytes.")))
}

/// An upload's id from the path. Anything that isn't an id gives 404.
struct UploadPath(UploadId);

impl<S: Send + Sync> FromRequestParts<S> for UploadPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| Error::NoUpload)?;
        UploadId::from_str(&text).map(Self).map_err(|_| Error::NoUpload)
    }
}
