//! `/api/v1/sessions/{id}/transcript.{txt,srt,vtt,json}`: downloads, also of unfinished transcripts.

use super::{Id, disposition::disposition};
use crate::{
    model::{ErrorBody, transcript::Format},
    server::{error::Error, owner::Owner, state::AppState},
};
use axum::{
    Extension, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};

/// A route for each format.
pub(super) fn routes(mut router: Router<AppState>) -> Router<AppState> {
    for format in Format::ALL {
        let path = format!("/api/v1/sessions/{{id}}/transcript.{}", format.extension());
        router = router.route(&path, get(async move |state, owner, id| download(format, state, owner, id).await));
    }
    router
}

/// The transcript as a file; of a session that hasn't ended, what is there so far.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/transcript.{format}",
    params(("id" = String, Path, description = "The session's id"),
        ("format" = String, Path, description = "txt, srt, vtt or json")),
    responses((status = 200, description = "The transcript"), (status = 404, body = ErrorBody)))]
pub(super) async fn download(
    format: Format,
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Id(id): Id,
) -> Result<Response, Error> {
    let transcript = state.sessions.transcript(&owner, id).await?;
    let title = transcript.session.title.as_str();
    let stem = without_ending(title);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::CONTENT_DISPOSITION, disposition("attachment", &format!("{stem}.{}", format.extension())));
    Ok((headers, format.write(&transcript)).into_response())
}

/// A title without a file extension. The text after the dot in "Part 3.5" or "Dr. Smith" isn't one.
fn without_ending(title: &str) -> &str {
    match title.rsplit_once('.') {
        Some((stem, ending))
            if !stem.is_empty()
                && ending.len() <= 5
                && ending.bytes().all(|b| b.is_ascii_alphanumeric())
                && ending.bytes().any(|b| b.is_ascii_alphabetic()) =>
        {
            stem
        }
        _ => title,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_extension_is_removed() {
        for (title, stem) in [
            ("talk.mp3", "talk"),
            ("a.b.m4a", "a.b"),
            ("Dr. Smith on bees", "Dr. Smith on bees"),
            ("Part 3.5", "Part 3.5"),
            (".wav", ".wav"),
            ("Wow.", "Wow."),
            ("日本.語", "日本.語"),
        ] {
            assert_eq!(without_ending(title), stem);
        }
    }
}
