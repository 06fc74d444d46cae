//! `/api/v1/sessions/{id}/transcript.{docx,md,txt,srt,vtt,csv,json}`: downloads, also of unfinished transcripts.

use super::{
    Id, Query,
    disposition::disposition,
    export::{self, ExportQuery},
};
use crate::{
    model::{
        ErrorBody,
        transcript::{Format, stem},
    },
    server::{error::Error, owner::Owner, state::AppState},
};
use axum::{
    Extension, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::io;

/// A route for each format.
pub(super) fn routes(mut router: Router<AppState>) -> Router<AppState> {
    for format in Format::ALL {
        let path = format!("/api/v1/sessions/{{id}}/transcript.{}", format.extension());
        let handler = async move |state, owner, id, query| download(format, state, owner, id, query).await;
        router = router.route(&path, get(handler));
    }
    router
}

/// The transcript as a file; of a session that hasn't ended, what is there so far.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/transcript.{format}",
    params(("id" = String, Path, description = "The session's id"),
        ("format" = String, Path, description = "docx, md, txt, srt, vtt, csv or json"), ExportQuery),
    responses((status = 200, description = "The transcript"), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
pub(super) async fn download(
    format: Format,
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Id(id): Id,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Error> {
    let options = query.options()?;
    let transcript = state.sessions.transcript(&owner, id).await?;
    let name = format!("{}.{}", stem(transcript.session.title.as_str()), format.extension());
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::CONTENT_DISPOSITION, disposition("attachment", &name));
    // Hours of speech take long enough to write to hold up other requests.
    let written = tokio::task::spawn_blocking(move || export::write(format, &transcript, options)).await;
    let body = written.map_err(io::Error::other).flatten();
    Ok((headers, body.map_err(|e| Error::Internal(format!("a transcript could not be written: {e}")))?).into_response())
}
