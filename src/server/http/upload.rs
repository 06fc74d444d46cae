//! Uploads: a recording comes as a form, which is read as a stream and written to a scratch file. Called by `sessions`
//! for `POST /api/v1/sessions`.

use super::{
    created, disposition,
    identity::cookies::{self, Identity},
    notice::Notice,
};
use crate::{
    model::{Session, SessionId, page::UPLOAD_PATH},
    server::{
        address::ClientAddress,
        body::{ParserState, UploadBody, UploadLimits, upload_error},
        error::Error,
        media::{Upload, UploadRoom},
        owner::Owner,
        sessions::{Incoming, UploadOptions},
        state::AppState,
        telemetry::traces::Step,
        uploads::UploadPermits,
    },
};
use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, Multipart, Request, multipart::Field},
    http::{HeaderMap, header},
    response::{IntoResponse, Redirect, Response},
};
use std::time::Instant;
use utoipa::ToSchema;

/// The longest text field of the form, in bytes.
const MAX_FIELD: usize = 4096;
/// Bytes that a form may have besides the recording: its text fields, the heads of its parts, and fields of later
/// versions.
pub const FORM_BYTES: u64 = 64 * 1024;
const MAX_PARTS: usize = 16;
/// The longest boundary between the parts of a form: RFC 2046, 5.1.1.
const MAX_BOUNDARY: usize = 70;

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
    /// Names and terms that the engine should know, with commas between: at most 1000 characters. Used by engines that take
    /// a prompt; the server's default if left out.
    vocabulary: Option<String>,
    /// `mix`, or `split`, which transcribes two speakers on two channels apart; the server's default if left out.
    channels: Option<String>,
    /// Which of several audio tracks is heard: its number, from 1, or `mix` for all of them. If left out, the one that the
    /// file prefers, or another one if that is silent.
    track: Option<String>,
}

/// Receives a recording and queues it. A browser's plain form is redirected to a page, a program gets the session.
pub(super) async fn create(
    state: &AppState,
    owner: &Owner,
    identity: Identity,
    address: Option<ClientAddress>,
    request: Request,
) -> Response {
    let began = Instant::now();
    let headers = request.headers().clone();
    let page = wants_page(&headers);
    if page && !identity.known {
        // The form's page has set the cookie unless the browser blocks it; without one, nobody could find the session
        // again.
        return cookies::probe();
    }
    let received = receive(state, owner, address, request).await;
    if let Ok(session) = &received {
        Step::first(session.id, "upload", began).number("hark.bytes", session.media.bytes);
    }
    match received {
        Ok(session) if page => Redirect::to(&format!("/sessions/{}", session.id)).into_response(),
        Ok(session) => created(session),
        Err(error) => {
            state.sessions.count_refusal(owner, &error);
            if !page {
                return error.into_response();
            }
            let notice = Notice { form: UPLOAD_PATH.to_owned(), error: error.public() };
            notice.redirect_to("/upload", &state.cookie_keys, &headers)
        }
    }
}

/// Whether the client asks for HTML, as a browser that sends a form does. Programs and scripts ask for anything or for
/// JSON.
fn wants_page(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).is_some_and(|accept| accept.contains("text/html"))
}

/// Receives the recording. Nothing of it is read before there is a permit for it, and room in the queue and on the
/// disk.
async fn receive(
    state: &AppState,
    owner: &Owner,
    address: Option<ClientAddress>,
    request: Request,
) -> Result<Session, Error> {
    let _permit = UploadPermits::take(&state.uploads, owner, address)?;
    // An estimate: the form's own lines come on top of the file. The exact size is counted while it is received.
    let size = request.body().size_hint().exact().map(|n| n.saturating_sub(FORM_BYTES));
    let room = state.sessions.reserve(size)?;
    state.sessions.check_location().await?;
    state.sessions.check_share(owner, address, size).await?;
    let no_form =
        || Error::BadRequest("Send the recording as multipart/form-data with a field named 'file'.".to_owned());
    check_boundary(request.headers()).ok_or_else(no_form)?;
    let limit = state.sessions.limits.max_upload_bytes;
    let limits = UploadLimits::new(&state.settings.uploads, limit.saturating_add(FORM_BYTES));
    let (head, body) = request.into_parts();
    let (body, faults, parser_state) = UploadBody::new(body, limits);
    let request = Request::from_parts(head, Body::from_stream(body));
    let form = Multipart::from_request(request, &()).await.map_err(|_| no_form())?;
    let received = receive_form(state, owner, address, Form { form, parser_state, parts: 0 }, room).await;
    received.map_err(|error| faults.get().map_or(error, |fault| upload_error(fault, &limits, limit)))
}

/// Whether the form has a boundary that isn't too long: the parser searches for it in all data.
fn check_boundary(headers: &HeaderMap) -> Option<()> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let boundary = multer::parse_boundary(kind).ok()?;
    (boundary.len() <= MAX_BOUNDARY).then_some(())
}

/// A form that is read part by part, within the limits.
struct Form {
    form: Multipart,
    parser_state: ParserState,
    parts: usize,
}

impl Form {
    async fn next(&mut self) -> Result<Option<Field<'_>>, Error> {
        self.parser_state.searches_part();
        let field = self.form.next_field().await?;
        self.parser_state.reads_data();
        self.parts += 1;
        if field.is_some() && self.parts > MAX_PARTS {
            return Err(Error::BadRequest(format!("The form has more than {MAX_PARTS} fields; leave some out.")));
        }
        Ok(field)
    }
}

async fn receive_form(
    state: &AppState,
    owner: &Owner,
    address: Option<ClientAddress>,
    mut form: Form,
    room: UploadRoom,
) -> Result<Session, Error> {
    let mut room = Some(room);
    let mut options = UploadOptions::default();
    let mut received: Option<(SessionId, Upload, String)> = None;
    while let Some(field) = form.next().await? {
        let names = disposition::parse(field.headers().get(header::CONTENT_DISPOSITION));
        match names.name.as_str() {
            "title" => options.title = Some(text(field).await?),
            "language" => options.language = Some(text(field).await?),
            "engine" => options.engine = Some(text(field).await?),
            "vocabulary" => options.vocabulary = Some(text(field).await?),
            "channels" => options.channels = Some(text(field).await?),
            "track" => options.track = Some(text(field).await?),
            "file" if let Some(room) = room.take() => {
                // Options that come before the file are checked before the file is received.
                state.sessions.check_options_so_far(&options)?;
                let name = names.file_name.unwrap_or_else(|| "recording".to_owned());
                let (id, upload) = file(state, field, room).await?;
                received = Some((id, upload, name));
            }
            "file" => {
                return Err(Error::BadRequest(
                    "Send one file with each request; send the others on their own.".to_owned(),
                ));
            }
            _ => skip(field).await?, // fields of later versions
        }
    }
    let Some((id, upload, name)) = received.filter(|(_, upload, name)| upload.bytes > 0 || !name.is_empty()) else {
        return Err(Error::BadRequest(
            "No file was sent. Choose a recording and send it in the field 'file'.".to_owned(),
        ));
    };
    let options = state.sessions.check_options(&options)?;
    let incoming = Incoming { id, upload, file_name: name, parts: None };
    state.sessions.create(owner, address, incoming, options).await
}

/// Writes the recording to a scratch file, which is created when the first bytes have come.
async fn file(state: &AppState, mut field: Field<'_>, room: UploadRoom) -> Result<(SessionId, Upload), Error> {
    let limit = state.sessions.limits.max_upload_bytes;
    let mut piece = field.chunk().await.map_err(|_| Error::BrokenUpload)?;
    let (id, mut upload) = state.sessions.receive(room)?;
    while let Some(bytes) = piece {
        if upload.bytes + bytes.len() as u64 > limit {
            return Err(Error::TooLarge { size: None, limit });
        }
        upload.write(&bytes).await?;
        drop(bytes);
        piece = field.chunk().await.map_err(|_| Error::BrokenUpload)?;
    }
    Ok((id, upload))
}

async fn skip(mut field: Field<'_>) -> Result<(), Error> {
    while field.chunk().await?.is_some() {}
    Ok(())
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
