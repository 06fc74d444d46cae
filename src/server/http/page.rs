//! The page that a request comes from, by its token: notes for its reports that it was seen, tells a page that polls whether it
//! may open streams, and counts what is sent to it. Wraps the API's routes; requests of programs pass as they are.

use crate::{
    model::{Arm, Timestamp},
    server::{
        owner::Owner,
        page_tokens::Page,
        sightings::Contact,
        state::AppState,
        stream::{Bye, StatusStream},
    },
};
use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use http_body_util::BodyExt;
use std::sync::Arc;

/// The header with the token of a page that polls. An EventSource can't set one, so it has the token in its query.
const TOKEN: HeaderName = HeaderName::from_static("hark-page");
const QUERY: &str = "page";
/// The header that tells a page that polls whether it may open streams.
const STREAMS: HeaderName = HeaderName::from_static("hark-streams");

/// The page that a request comes from, and what its browser is assigned to. Put into every request of a page by [`identify`].
#[derive(Clone, Copy, Debug)]
pub(super) struct FromPage {
    page: Page,
    arm: Arm,
}

/// Put into an answer whose body counts as sent to a page.
#[derive(Clone, Copy)]
struct SentToPage(Arm);

/// Put into the answer to a poll, whoever polls.
#[derive(Clone, Copy)]
pub(super) struct PollAnswer;

/// Finds the page that a request comes from.
pub(super) async fn identify(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    mut request: Request,
    next: Next,
) -> Response {
    let (path, now) = (request.uri().path(), Timestamp::now());
    let is_stream = path.ends_with("/stream");
    let is_poll = path.ends_with("/status");
    // What pages count as their requests, so that both are of the same. Not the models, for example.
    let is_counted = is_poll || path.ends_with("/segments");
    let token = if is_stream { query(&request) } else { request.headers().get(TOKEN).and_then(|v| v.to_str().ok()) };
    let Some(page) = token.and_then(|token| state.page_tokens.read(token, &owner, now)) else {
        return next.run(request).await;
    };
    let arm = state.arms.of(&owner);
    let from = FromPage { page, arm };
    request.extensions_mut().insert(from);
    if is_poll {
        from.note(&state, Contact::Poll, now);
    }
    let mut response = next.run(request).await;
    if is_counted {
        response.extensions_mut().insert(SentToPage(arm));
    }
    if is_poll {
        let may = if arm == Arm::Stream { "on" } else { "off" };
        response.headers_mut().insert(STREAMS, HeaderValue::from_static(may));
    }
    response
}

/// The token in the query of a stream's address.
fn query(request: &Request) -> Option<&str> {
    let pairs = request.uri().query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(name, _)| *name == QUERY).map(|(_, value)| value)
}

/// Counts the bytes of an answer to a page, and of an answer to a poll, as they are sent. Outside of the compression.
pub async fn count_bytes(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let page: Option<SentToPage> = response.extensions().get().copied();
    let is_poll = response.extensions().get::<PollAnswer>().is_some();
    if page.is_none() && !is_poll {
        return response;
    }
    let (hub, hours) = (Arc::clone(&state.hub), state.hours.clone());
    response.map(|body| {
        Body::new(body.inspect_frame(move |frame| {
            if let Some(data) = frame.data_ref() {
                if let Some(SentToPage(arm)) = page {
                    hub.sightings().add_bytes(arm, data.len());
                }
                if is_poll {
                    hours.poll_sent(data.len() as u64);
                }
            }
        }))
    })
}

impl FromPage {
    fn note(&self, state: &AppState, contact: Contact, now: Timestamp) {
        if !state.settings.monitoring {
            return;
        }
        if let Some(news) = state.hub.sightings().note(&self.page, contact, now) {
            state.sessions.bus.tell_of_page(news);
        }
    }
}

/// The refusal for a caller that must poll: a page of a browser that is assigned to it, and anybody while streams are off.
pub(super) fn refusal(state: &AppState, page: Option<&FromPage>) -> Option<StatusStream> {
    let polls = page.map_or(state.arms.streams_are_off(), |page| page.arm == Arm::Polling);
    polls.then(|| StatusStream::refused(Bye::Polling))
}

/// Notes that a page has a stream, and has the stream's bytes counted.
pub(super) fn opened(state: &AppState, page: Option<&FromPage>, stream: StatusStream) -> StatusStream {
    let Some(page) = page else { return stream };
    // Streams live up to a fifth longer than set.
    let secs = state.settings.streams.stream_lifetime_secs.saturating_mul(6) / 5;
    page.note(state, Contact::Stream { secs }, Timestamp::now());
    stream.for_page(page.arm)
}
