//! Status by stream and by polling, of one session or of all sessions of the caller.

use super::{
    Id, Query, etag,
    page::{self, FromPage, PollAnswer},
};
use crate::{
    model::{ErrorBody, EventId, SessionId, Status, StatusList, Timestamp},
    server::{
        address::ClientAddress,
        error::Error,
        hours::Hours,
        owner::Owner,
        state::AppState,
        store::recent_cutoff,
        stream::{Bye, Current, Direct, Frame, Handover, Kind, Peer, RequestedAt, StatusBody, StatusStream},
    },
};
use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

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
    let current = current(&state, &owner, id).await?;
    let tag = format!("\"{}.{}\"", current.version, current.segments);
    Ok(json_unless_known(&state.hours, &request, &tag, || current.frame.json().into()))
}

/// The newest status of the caller's session, from the hub; or from the store, and then the hub holds it.
async fn current(state: &AppState, owner: &Owner, id: SessionId) -> Result<Current, Error> {
    if let Some(current) = state.hub.current(id) {
        return if current.owner == *owner { Ok(current) } else { Err(Error::NotFound) };
    }
    // Checks the owner first, so that the id of another's session doesn't make the hub hold anything.
    let status = state.sessions.get(owner, id).await?.status;
    if state.hub.owner_of(id).is_none() {
        state.hub.hold(id);
        // Read again, because a change may have been published before the hub held the session.
        let status = state.sessions.get(owner, id).await?.status;
        state.hub.learn(owner, &status);
    }
    Ok(state.hub.current(id).unwrap_or_else(|| Current {
        owner: owner.clone(),
        version: status.version,
        segments: status.segments,
        ended: status.state.is_terminal(),
        frame: Frame::status(&status),
    }))
}

/// The same after the hub has taken in what the store has.
async fn read_again(state: &AppState, owner: &Owner, id: SessionId, known: Current) -> Result<Current, Error> {
    state.hub.learn(owner, &state.sessions.get(owner, id).await?.status);
    Ok(state.hub.current(id).unwrap_or(known))
}

/// The statuses of the caller's sessions that haven't ended or changed in the last 10 minutes, for polling.
#[utoipa::path(get, path = "/api/v1/status",
    params(("If-None-Match" = Option<String>, Header, description = "The ETag of the answer before"),
        ("Hark-Page" = Option<String>, Header, description = "The token of the page that polls; programs have none")),
    responses((status = 200, body = StatusList), (status = 304, description = "Unchanged")))]
pub(super) async fn all(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    request: HeaderMap,
) -> Result<Response, Error> {
    let since = recent_cutoff();
    let (tag, frames) = match state.hub.list(&owner, since) {
        Some(list) => list,
        // An owner without sessions takes no memory: a program without a cookie is a new owner with each request.
        None if state.sessions.store.statuses(&owner, since).await?.is_empty() => (0, Vec::new()),
        None => {
            state.hub.hold_list(&owner);
            let statuses = state.sessions.store.statuses(&owner, since).await?;
            state.hub.learn_list(&owner, &statuses);
            // Only a sweep between these lines could have dropped it.
            let list = state.hub.list(&owner, since);
            list.ok_or_else(|| Error::Internal("the hub dropped an owner that was just loaded".to_owned()))?
        }
    };
    Ok(json_unless_known(&state.hours, &request, &format!("\"{tag:016x}\""), || {
        let mut json = Vec::with_capacity(frames.iter().map(|f| f.text().len()).sum());
        json.push(b'{');
        add_list(&mut json, "statuses", &frames, Kind::Status);
        for (name, kind) in [("renamed", Kind::Renamed), ("deleted", Kind::Deleted)] {
            if frames.iter().any(|frame| frame.kind() == kind) {
                json.push(b',');
                add_list(&mut json, name, &frames, kind);
            }
        }
        json.push(b'}');
        json.into()
    }))
}

/// Adds a field of [`StatusList`]: the data of the events of one kind.
fn add_list(json: &mut Vec<u8>, name: &str, frames: &[Frame], kind: Kind) {
    json.extend_from_slice(format!("\"{name}\":[").as_bytes());
    for (n, frame) in frames.iter().filter(|frame| frame.kind() == kind).enumerate() {
        if n > 0 {
            json.push(b',');
        }
        json.extend_from_slice(&frame.json());
    }
    json.push(b']');
}

fn json_unless_known(hours: &Hours, request: &HeaderMap, tag: &str, json: impl FnOnce() -> Body) -> Response {
    let known = etag::is_known(request, tag);
    hours.polled(known);
    let answer = if known { "304" } else { "200" };
    metrics::counter!("hark_polls_total", "answer" => answer).increment(1);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], json()).into_response()
    };
    response.extensions_mut().insert(PollAnswer);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Lets a page estimate this clock, and so the delay of updates. `Date` has only seconds.
    headers.insert("hark-time", HeaderValue::from(Timestamp::now().0));
    response
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamQuery {
    /// The same as the header `Last-Event-ID`, for clients that can't set it. The header wins.
    last_event_id: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CompressionQuery {
    /// Asks for the stream as a gzip file, each event readable when it comes. It needs `Accept-Encoding: gzip` too;
    /// that alone changes nothing, because many clients send it and then keep events back until a buffer is full.
    #[param(inline)]
    compress: Option<Compression>,
}

/// How a stream may be compressed.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Compression {
    Gzip,
}

/// What a stream needs to know of its connection, and of the page that opens it.
pub(super) type Connection = (
    Version,
    Option<Extension<Direct>>,
    Option<Extension<Arc<Peer>>>,
    Option<Extension<ClientAddress>>,
    Option<Extension<RequestedAt>>,
    Option<Extension<FromPage>>,
);

/// The status and segments of one session, as server-sent events: `status`, `segment`, `heartbeat`, `bye`.
///
/// Begins with what the client hasn't seen and ends after the terminal status. A client that has already seen that
/// gets 204, which stops an EventSource for good. When there are too many streams, the only event is a `bye` with the
/// reason `limit`; when streams are off, one with the reason `polling`.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/status/stream",
    params(("id" = String, Path, description = "The session's id"), StreamQuery, CompressionQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event seen")),
    responses((status = 200, content_type = "text/event-stream", description = "The events"),
        (status = 204, description = "The session has ended and the client knows it"),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(super) async fn stream_one(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Id(id): Id,
    Query(query): Query<StreamQuery>,
    Query(compression): Query<CompressionQuery>,
    (version, direct, peer, address, requested, page): Connection,
    request: HeaderMap,
) -> Result<Response, Error> {
    let page = page.as_deref();
    if let Some(refusal) = page::refusal(&state, page) {
        return Ok(events(refusal, requested, compression, &request, direct.is_some(), version));
    }
    let mut current = current(&state, &owner, id).await?;
    let mut seen = last_event_id(&request, query)?;
    if let Some(seen) = &mut seen
        && seen.version > current.version
    {
        // Either this node is behind, and the store knows more; or a crash or a restore has lost what the client knows, and
        // then it doesn't know this end.
        current = read_again(&state, &owner, id, current).await?;
        if current.ended && seen.version > current.version {
            seen.version = 0;
        }
    }
    if let Some(seen) = seen
        && current.ended
        && seen.version >= current.version
        && seen.segments >= current.segments
    {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let standing = state.sessions.stream_standing(&owner, address.map(|Extension(address)| address)).await;
    let stream = state.hub.admit(&owner, standing).map_or_else(
        |_| StatusStream::refused(Bye::Limit),
        |permit| {
            let (last, peer) = (seen.unwrap_or_default(), peer.map(|Extension(peer)| peer));
            let stream = StatusStream::of_session(&state.hub, state.source.clone(), permit, id, last, peer);
            page::opened(&state, page, stream)
        },
    );
    Ok(events(stream, requested, compression, &request, direct.is_some(), version))
}

/// The statuses and new segments of all sessions of the caller, as server-sent events.
///
/// Begins with the status of every session that hasn't ended or changed in the last 10 minutes. Compare `segments`
/// with what you have, and fetch what is missing by range. When there are too many streams, the only event is a `bye`
/// with the reason `limit`; when streams are off, one with the reason `polling`.
#[utoipa::path(get, path = "/api/v1/status/stream",
    params(CompressionQuery,
        ("page" = Option<String>, Query, description = "The token of the page that opens the stream; programs have none")),
    responses((status = 200, content_type = "text/event-stream", description = "The events"),
        (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(super) async fn stream_all(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Query(compression): Query<CompressionQuery>,
    (version, direct, peer, address, requested, page): Connection,
    request: HeaderMap,
) -> Result<Response, Error> {
    let page = page.as_deref();
    if let Some(refusal) = page::refusal(&state, page) {
        return Ok(events(refusal, requested, compression, &request, direct.is_some(), version));
    }
    // A stream that can't tell anything yet would look like one that something on the way holds back.
    if state.sessions.store.outage().is_some() && state.hub.list(&owner, recent_cutoff()).is_none() {
        return Err(Error::DatabaseAway);
    }
    let standing = state.sessions.stream_standing(&owner, address.map(|Extension(address)| address)).await;
    let stream = state.hub.admit(&owner, standing).map_or_else(
        |_| StatusStream::refused(Bye::Limit),
        |permit| {
            let peer = peer.map(|Extension(peer)| peer);
            let stream = StatusStream::of_owner(&state.hub, state.source.clone(), permit, owner, peer);
            page::opened(&state, page, stream)
        },
    );
    Ok(events(stream, requested, compression, &request, direct.is_some(), version))
}

pub(super) fn last_event_id(request: &HeaderMap, query: StreamQuery) -> Result<Option<EventId>, Error> {
    let header = request.get("last-event-id").map(|v| v.to_str().unwrap_or("?").to_owned());
    header
        .or(query.last_event_id)
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().map_err(|e| Error::BadRequest(format!("{e}"))))
        .transpose()
}

/// Whether a request's `Accept-Encoding` allows gzip (RFC 9110, 12.5.3). One without the header gets plain text.
fn accepts_gzip(request: &HeaderMap) -> bool {
    let mut others = false;
    let values = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for coding in values.flat_map(|value| value.split(',')) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().to_ascii_lowercase();
        let allowed = weight.strip_prefix("q=").and_then(|q| q.parse().ok()).is_none_or(|q: f32| q > 0.0);
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => return allowed,
            "*" => others = allowed,
            _ => {}
        }
    }
    others
}

pub(super) fn events(
    stream: StatusStream,
    requested: Option<Extension<RequestedAt>>,
    compression: CompressionQuery,
    request: &HeaderMap,
    direct: bool,
    version: Version,
) -> Response {
    let stream = match requested {
        Some(Extension(RequestedAt(at))) => stream.requested(at),
        None => stream,
    };
    let gzipped = compression.compress.is_some() && accepts_gzip(request);
    let stream = if gzipped { stream.gzipped() } else { stream };
    let mut response = if direct {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(Handover::new(stream));
        response
    } else {
        Response::new(Body::new(StatusBody(stream)))
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if compression.compress.is_some() {
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    if gzipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if version == Version::HTTP_11 {
        // The next stream uses a new connection, which a load balancer may give to another node.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_where_the_request_allows_it() {
        let accepts = |values: &[&'static str]| {
            let all = values.iter().map(|value| (header::ACCEPT_ENCODING, HeaderValue::from_static(value)));
            accepts_gzip(&all.collect())
        };
        for yes in
            ["gzip", "br, gzip", "GZIP;q=0.1", "x-gzip", "*", "gzip;q=1.0, *;q=0", "*;q=0, gzip", "br,  gzip ; q=0.5"]
        {
            assert!(accepts(&[yes]), "{yes}");
        }
        for no in ["", "identity", "br, deflate", "gzip;q=0", "gzip; q=0.000", "*;q=0", "gzip;q=0, *", "*, gzip;q=0"] {
            assert!(!accepts(&[no]), "{no}");
        }
        assert!(accepts(&["br", "gzip"]));
        assert!(!accepts(&[]));
    }
}
