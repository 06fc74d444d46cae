//! `POST /api/v1/sessions`: a recording comes in as a stream and goes straight to storage.
//! A browser's plain form is answered with a redirect, a program with the session as JSON.

use super::outside;
use crate::{
    api::upload::UPLOAD_PATH,
    model::{ErrorBody, Session, SessionId},
    server::{
        error::Error,
        media::{Upload, UploadRoom},
        notice::Notice,
        outside::Announcement,
        owner::{self, Identity, Owner},
        sessions::Wishes,
        state::AppState,
    },
};
use axum::{
    Extension, Json,
    body::{Body, HttpBody},
    extract::{FromRequest, Multipart, Request, State, multipart::Field},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use futures::StreamExt;
use std::time::Duration;
use tokio::time;
use utoipa::ToSchema;

/// Longest text field of the form, in bytes.
const MAX_FIELD: usize = 4096;
/// A client that is refused while it still sends can only read the answer once it has sent all, so up to this much is
/// read and thrown away, for at most this long.
const DRAIN_BYTES: usize = 64 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// A client that sends nothing for this long has gone without a word.
const SILENCE: Duration = Duration::from_secs(60);

/// The form of an upload. The text fields may stand before or after the file.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the form to readers of the API document")]
pub(super) struct UploadForm {
    /// The recording: wav, aiff, mp3, m4a/aac/alac, flac, ogg, opus, webm, mkv or mp4 with sound.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    file: String,
    /// 1 to 200 characters; the file's name if left out.
    title: Option<String>,
    /// A BCP 47 tag such as `en`; the engine's own choice if left out.
    language: Option<String>,
    /// `pocketsphinx`, `whisper`, `openai` or `command`; the server's default if left out.
    engine: Option<String>,
}

/// Receives a recording and queues it. With the worker token and JSON in place of a form, makes a session that a
/// worker outside Hark reports on.
#[utoipa::path(post, path = "/api/v1/sessions", request_body(content(
    (UploadForm = "multipart/form-data"), (Announcement = "application/json"))),
    responses(
        (status = 201, body = Session, headers(("Location" = String, description = "The session's address"))),
        (status = 303, description = "Answer to a browser's form: the session's page"),
        (status = 400, body = ErrorBody), (status = 413, body = ErrorBody), (status = 422, body = ErrorBody),
        (status = 429, body = ErrorBody, headers(("Retry-After" = u32, description = "Seconds after which to try again"))),
        (status = 503, body = ErrorBody), (status = 507, body = ErrorBody)))]
pub(super) async fn create(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let page = wants_page(&headers);
    if page && !identity.known {
        // Its page has set the cookie, if the browser lets it; without one, the session would be nobody's.
        drain(request.into_body()).await;
        return owner::probe();
    }
    let made = if outside::is_announcement(&headers) {
        outside::create(&state, &owner, request).await
    } else {
        receive(&state, &owner, request).await.inspect_err(|error| state.sessions().count_refusal(error))
    };
    match made {
        Ok(session) if page => Redirect::to(&format!("/sessions/{}", session.id)).into_response(),
        Ok(session) => {
            let location = format!("/api/v1/sessions/{}", session.id);
            (StatusCode::CREATED, [(header::LOCATION, location)], Json(session)).into_response()
        }
        Err(error) if page => {
            let notice = Notice { form: UPLOAD_PATH.to_owned(), error: error.public() };
            notice.on("/upload", &state.cookie_keys, &headers)
        }
        Err(error) => error.into_response(),
    }
}

/// A browser that sends a form asks for a page; programs and scripts ask for anything or for JSON.
fn wants_page(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).is_some_and(|accept| accept.contains("text/html"))
}

async fn receive(state: &AppState, owner: &Owner, request: Request) -> Result<Session, Error> {
    let declared = request.body().size_hint().exact();
    // The form's own lines come on top of the file; the exact count is made while it is received.
    let room = state.sessions().reserve(declared.map(|n| n.saturating_sub(MAX_FIELD as u64)));
    let allowed = match room {
        Ok(room) => state.sessions().check_queue(owner).await.map(|()| room),
        full => full,
    };
    let room = match allowed {
        Ok(room) => room,
        Err(error) => {
            // A client that waits to be told to go on hasn't sent anything, and then won't.
            if !request.headers().contains_key(header::EXPECT) {
                drain(request.into_body()).await;
            }
            return Err(error);
        }
    };
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| {
        Error::BadRequest("Send the recording as multipart/form-data with a field named 'file'.".to_owned())
    })?;
    let result = receive_form(state, owner, &mut form, room).await;
    if result.is_err() {
        drain_form(form).await;
    }
    result
}

async fn receive_form(
    state: &AppState,
    owner: &Owner,
    form: &mut Multipart,
    room: UploadRoom,
) -> Result<Session, Error> {
    let mut room = Some(room);
    let mut wishes = Wishes::default();
    let mut received: Option<(SessionId, Upload, String)> = None;
    while let Some(field) = form.next_field().await? {
        match field.name().unwrap_or_default() {
            "title" => wishes.title = Some(text(field).await?),
            "language" => wishes.language = Some(text(field).await?),
            "engine" => wishes.engine = Some(text(field).await?),
            "file" if let Some(room) = room.take() => {
                // What stands before the file is checked before the file is received.
                state.sessions().plan(&wishes)?;
                let name = field.file_name().unwrap_or("recording").to_owned();
                let (id, upload) = state.sessions().receive(room)?;
                received = Some((id, file(state, field, upload).await?, name));
            }
            "file" => {
                return Err(Error::BadRequest(
                    "Send one file with each request; send the others on their own.".to_owned(),
                ));
            }
            _ => {} // fields of later versions
        }
    }
    let Some((id, upload, name)) = received.filter(|(_, upload, name)| upload.bytes > 0 || !name.is_empty()) else {
        return Err(Error::BadRequest(
            "No file was sent. Choose a recording and send it in the field 'file'.".to_owned(),
        ));
    };
    let plan = state.sessions().plan(&wishes)?;
    state.sessions().create(owner, id, upload, &name, plan).await
}

async fn file(state: &AppState, mut field: Field<'_>, mut upload: Upload) -> Result<Upload, Error> {
    let limit = state.limits.max_upload_bytes;
    loop {
        let piece = time::timeout(SILENCE, field.chunk()).await.map_err(|_| Error::BrokenUpload)?;
        let Some(piece) = piece.map_err(|_| Error::BrokenUpload)? else { return Ok(upload) };
        if upload.bytes + piece.len() as u64 > limit {
            return Err(Error::TooLarge { size: None, limit });
        }
        upload.write(&piece).await?;
    }
}

async fn text(mut field: Field<'_>) -> Result<String, Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = field.chunk().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_FIELD {
            return Err(Error::BadRequest(format!(
                "A text field of the form is longer than {MAX_FIELD} bytes; shorten it."
            )));
        }
    }
    String::from_utf8(bytes).map_err(|_| Error::BadRequest("A text field of the form isn't UTF-8.".to_owned()))
}

async fn drain_form(mut form: Multipart) {
    let all = async {
        let mut left = DRAIN_BYTES;
        while let Ok(Some(mut field)) = form.next_field().await {
            while let Ok(Some(piece)) = field.chunk().await {
                left = left.saturating_sub(piece.len());
                if left == 0 {
                    return;
                }
            }
        }
    };
    let _ = time::timeout(DRAIN_TIME, all).await;
}

async fn drain(body: Body) {
    let all = async {
        let mut left = DRAIN_BYTES;
        let mut pieces = body.into_data_stream();
        while let Some(Ok(piece)) = pieces.next().await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                return;
            }
        }
    };
    let _ = time::timeout(DRAIN_TIME, all).await;
}
