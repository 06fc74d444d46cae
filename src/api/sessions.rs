//! Server functions on sessions: list and search, get, cancel, retry, restart, transcribe again, rename, delete; several at once.

use crate::model::{
    ApiError, Session, SessionDetail, SessionId, many::Outcome, page::SessionList, playback::CopyState,
};
use leptos::{prelude::*, server_fn::codec::GetUrl};

/// The caller's sessions that the parameters in `query` let through, as they stand in the page's address, a page at a time; and on
/// the first page, or from `older` on, what their texts have of what is searched.
///
/// # Errors
/// If a cursor is invalid, or the store fails.
#[server(input = GetUrl)]
pub async fn list_sessions(
    query: Option<String>,
    cursor: Option<String>,
    older: Option<String>,
) -> Result<SessionList, ApiError> {
    use crate::server::pages;
    let query = query.unwrap_or_default();
    pages::answer(async |c| pages::session_list(&c, &query, cursor.as_deref(), older.as_deref()).await).await
}

/// The data of a session's page.
///
/// # Errors
/// `not_found` if there is no session with this id, or it belongs to another owner.
#[server(input = GetUrl)]
pub async fn get_session(id: SessionId) -> Result<SessionDetail, ApiError> {
    use crate::server::pages;
    pages::answer(async |c| c.state.sessions.detail(&c.owner, id).await).await
}

/// The waveform of a recording: the loudest sample of each of its equal parts, 0 to 255. Empty until it has been decoded.
///
/// # Errors
/// `not_found` as above.
#[server(input = GetUrl)]
pub async fn get_waveform(id: SessionId) -> Result<Vec<u8>, ApiError> {
    use crate::server::pages;
    pages::answer(async |c| c.state.sessions.waveform(&c.owner, id).await).await
}

/// Begins to make a copy of the recording that browsers can play, unless it is there. Returns how far it is. `wav`: as a WAV
/// file, which every browser plays.
///
/// # Errors
/// `no_copy` if none can be made, `too_many_copies` if others have to be done first; `not_found` as above.
#[server]
pub async fn make_copy(id: SessionId, wav: bool) -> Result<CopyState, ApiError> {
    use crate::{model::playback::CopyForm, server::pages};
    let form = if wav { CopyForm::Wav } else { CopyForm::Opus };
    pages::answer(async |c| c.state.sessions.make_copy(&c.owner, c.address, id, form).await).await
}

/// Cancels a session. A session that has ended isn't changed.
///
/// # Errors
/// `not_found` as above.
#[server]
pub async fn cancel_session(id: SessionId) -> Result<Session, ApiError> {
    use crate::server::pages;
    pages::answer(async |c| c.state.sessions.cancel(&c.owner, id).await).await
}

/// Queues a failed or cancelled session again; it continues after its last segment. Any other session isn't changed.
///
/// # Errors
/// `not_found` as above.
#[server]
pub async fn retry_session(id: SessionId) -> Result<Session, ApiError> {
    use crate::server::pages;
    pages::answer(async |c| c.state.sessions.retry(&c.owner, c.address, id).await).await
}

/// Stops a session that seems stuck and queues it again; it continues after its last segment.
///
/// # Errors
/// `not_found` as above.
#[server]
pub async fn restart_session(id: SessionId) -> Result<Session, ApiError> {
    use crate::server::pages;
    pages::answer(async |c| c.state.sessions.restart(&c.owner, c.address, id).await).await
}

/// Transcribes a session's recording anew, with another audio track (its number or `mix`; unchanged if empty) or another way to
/// hear its channels. The transcript that is there is deleted.
///
/// # Errors
/// `no_such_track` if the recording doesn't have it; `bad_request` if the choice isn't valid; `not_found` as above.
#[server]
pub async fn transcribe_again(
    id: SessionId,
    #[server(default)] track: String,
    #[server(default)] channels: String,
) -> Result<Session, ApiError> {
    use crate::{model::AnotherChoice, server::pages};
    pages::answer(async |c| {
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let choice = AnotherChoice {
            track: given(track).map(|track| track.parse()).transpose()?,
            channels: given(channels).map(|channels| channels.parse()).transpose()?,
        };
        c.state.sessions.transcribe_again(&c.owner, c.address, id, &choice).await
    })
    .await
}

/// Does the same to several sessions: `retry`, `cancel` or `delete`. Returns what became of each; a form that was sent without
/// scripts fails with the reasons if one of them did.
///
/// # Errors
/// `bad_request` if there is no such action, or there are no sessions or too many.
#[server]
pub async fn act_on_sessions(action: String, #[server(default)] ids: Vec<SessionId>) -> Result<Vec<Outcome>, ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::act_on_sessions(&c, &action, &ids).await).await
}

/// Gives a session another title. A form that was sent without scripts from a page on which it was open leads to one where it is
/// closed.
///
/// # Errors
/// `invalid_title` if it is empty or too long; `not_found` as above.
#[server]
pub async fn rename_session(id: SessionId, title: String) -> Result<Session, ApiError> {
    use crate::server::pages;
    let session = pages::answer(async |c| c.state.sessions.rename(&c.owner, id, &title).await).await?;
    pages::leave_open_form(&format!("/sessions/{id}"));
    Ok(session)
}

/// Deletes a session, its recording and its segments, then redirects from the session's page to the list, with the query `list`, which
/// is what it was searched and filtered by.
///
/// # Errors
/// `not_found` as above.
#[server]
pub async fn delete_session(id: SessionId, #[server(default)] list: String) -> Result<(), ApiError> {
    use crate::{model::Filter, server::pages};
    pages::answer(async |c| c.state.sessions.delete(&c.owner, id).await).await?;
    // Only the session's own page has nothing more to show. The list, which may be a search, stays open.
    let headers = leptos_axum::extract::<axum::http::HeaderMap>().await.unwrap_or_default();
    let from = headers.get("referer").and_then(|v| v.to_str().ok());
    if from.is_none_or(|from| from.contains("/sessions/")) {
        // Read and written anew, so that it is nothing but a query.
        let query = Filter::from_query(&list).to_query();
        leptos_axum::redirect(&if query.is_empty() { "/".to_owned() } else { format!("/?{query}") });
    }
    Ok(())
}
