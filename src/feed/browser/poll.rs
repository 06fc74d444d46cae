//! Requests for statuses and segments, and the loop that polls when no stream delivers.
//! Only one poll is under way at a time. Every request has a timeout, because a browser may let it hang for minutes.

use super::{Driver, beacon, now};
use crate::{
    feed::{measure, reduce::MissingRange},
    model::{ErrorBody, Segment, Session, SessionId, Status, StatusList, Timestamp, page::ModelsInfo},
};
use gloo_net::http::{Request, RequestBuilder, Response};
use gloo_timers::callback::{Interval, Timeout};
use leptos::task::spawn_local;
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
};
use web_sys::{AbortController, RequestRedirect};

/// The timeout for statuses: each is a few hundred bytes, so an answer that takes longer than 10 s isn't coming.
const STATUS_TIMEOUT_MS: u32 = 10_000;
/// The timeout for segments: a transcript of hours is a megabyte or two, which takes long over a slow line.
const SEGMENTS_TIMEOUT_MS: u32 = 60_000;

/// The outcome of a poll.
pub(super) enum Answer {
    /// The statuses, and the JSON that they were read from.
    Statuses(StatusList, String),
    /// Nothing has changed since the last answer.
    Unchanged,
    Failed,
    /// Something else answered in the server's place, which wants people to sign in.
    SignIn,
}

/// The answer to a request for the list of statuses.
pub(super) struct Fetched {
    pub(super) answer: Answer,
    pub(super) etag: Option<String>,
    /// Whether this browser may open streams, if the server has said so.
    pub(super) streams: Option<bool>,
}

/// Why a request failed.
pub(super) enum Error {
    /// There is no such session, or it was deleted.
    Gone,
    Failed,
}

/// The loop. It polls from [`Poll::start`] to [`Poll::stop`].
pub(super) struct Poll {
    this: Weak<Poll>,
    driver: Weak<Driver>,
    /// The poll interval in milliseconds.
    interval_ms: u32,
    /// The request under way.
    request: RefCell<Option<AbortController>>,
    /// Counts the stops, so that an answer to a request from before a stop is ignored.
    run: Cell<u32>,
    interval: RefCell<Option<Interval>>,
    /// The ETag of the last answer.
    etag: RefCell<Option<String>>,
}

impl Poll {
    /// A loop that doesn't run yet.
    pub(super) fn new(driver: Weak<Driver>, interval_ms: u32) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            this: this.clone(),
            driver,
            interval_ms,
            request: RefCell::default(),
            run: Cell::new(0),
            interval: RefCell::default(),
            etag: RefCell::default(),
        })
    }

    /// Polls now and after every interval.
    pub(super) fn start(&self) {
        let this = self.this.clone();
        *self.interval.borrow_mut() = Some(Interval::new(self.interval_ms, move || {
            if let Some(poll) = this.upgrade() {
                poll.poll_once();
            }
        }));
        self.poll_once();
    }

    /// Sends a request, unless one is still under way.
    fn poll_once(&self) {
        let Some(this) = self.this.upgrade().filter(|_| self.request.borrow().is_none()) else { return };
        let Ok(abort) = AbortController::new() else { return };
        *self.request.borrow_mut() = Some(abort.clone());
        let run = self.run.get();
        spawn_local(async move {
            let known = this.etag.borrow().clone();
            let Fetched { answer, etag, streams } = fetch_list(known, Some(abort)).await;
            if this.run.get() != run {
                return;
            }
            this.request.borrow_mut().take();
            if !matches!(answer, Answer::Unchanged) {
                *this.etag.borrow_mut() = etag;
            }
            // This comes last, because it may stop the polling.
            if let Some(driver) = this.driver.upgrade() {
                driver.polled(answer, streams);
            }
        });
    }

    /// Stops, and aborts a request that is under way.
    pub(super) fn stop(&self) {
        self.run.set(self.run.get().wrapping_add(1));
        self.interval.borrow_mut().take();
        self.etag.borrow_mut().take();
        if let Some(request) = self.request.borrow_mut().take() {
            request.abort();
        }
    }

    /// Makes the next poll fetch all statuses, even if none has changed.
    pub(super) fn forget_etag(&self) {
        self.etag.borrow_mut().take();
    }
}

/// Fetches the statuses of all sessions that run or have just ended. `known`: the ETag of the last answer.
pub(super) async fn fetch_list(known: Option<String>, abort: Option<AbortController>) -> Fetched {
    let mut request = Request::get("/api/v1/status");
    if let Some(etag) = &known {
        request = request.header("If-None-Match", etag);
    }
    let sent = now();
    beacon::measure(|measure| measure.requested(measure::Request::Poll));
    let Some((response, _timeout)) = send(request, STATUS_TIMEOUT_MS, abort).await else {
        return Fetched { answer: Answer::Failed, etag: None, streams: None };
    };
    let headers = response.headers();
    if let Some(server) = headers.get("hark-time").and_then(|time| time.parse().ok()) {
        beacon::measure(|measure| measure.server_time(sent, now(), Timestamp(server)));
    }
    let streams = headers.get("hark-streams").map(|may| may == "on");
    let is_json = headers.get("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    let (answer, etag) = match response.status() {
        304 => (Answer::Unchanged, known),
        status if wants_sign_in(status, is_json) => (Answer::SignIn, None),
        200 => {
            let etag = headers.get("etag");
            let read = text(response).await.and_then(|text| Some((serde_json::from_str(&text).ok()?, text)));
            read.map_or((Answer::Failed, None), |(list, text)| (Answer::Statuses(list, text), etag))
        }
        _ => (Answer::Failed, None),
    };
    Fetched { answer, etag, streams }
}

/// Whether an answer comes from something before the server that wants people to sign in: a redirect, which isn't followed and
/// so has the status 0, a refusal (RFC 9110, 15.5; 511 of RFC 6585 is that of a network), or a page.
fn wants_sign_in(status: u16, is_json: bool) -> bool {
    matches!(status, 0 | 401 | 403 | 407 | 511) || status == 200 && !is_json
}

/// Fetches the status of one session.
pub(super) async fn fetch_status(id: SessionId) -> Result<Status, Error> {
    beacon::measure(|measure| measure.requested(measure::Request::Poll));
    read(send(Request::get(&format!("/api/v1/sessions/{id}/status")), STATUS_TIMEOUT_MS, None).await).await
}

/// Fetches a session without its segments.
pub(super) async fn fetch_session(id: SessionId) -> Result<Session, Error> {
    read(send(Request::get(&format!("/api/v1/sessions/{id}")), STATUS_TIMEOUT_MS, None).await).await
}

/// Fetches the segments that a view lacks, or the first of them.
pub(super) async fn fetch_segments(
    id: SessionId,
    range: MissingRange,
    limit: Option<u32>,
) -> Result<Vec<Segment>, Error> {
    #[derive(Deserialize)]
    struct SegmentList {
        segments: Vec<Segment>,
    }
    beacon::measure(|measure| measure.requested(measure::Request::Segments));
    let after = range.after.map(|after| ("after", after.to_string()));
    let limit = limit.map(|limit| ("limit", limit.to_string()));
    let request = Request::get(&format!("/api/v1/sessions/{id}/segments")).query(after.into_iter().chain(limit));
    read::<SegmentList>(send(request, SEGMENTS_TIMEOUT_MS, None).await).await.map(|list| list.segments)
}

/// Fetches what is known of Whisper's models.
pub(super) async fn fetch_models() -> Result<ModelsInfo, Error> {
    read(send(Request::get("/api/v1/models"), STATUS_TIMEOUT_MS, None).await).await
}

async fn read<T: DeserializeOwned>(answer: Option<(Response, Timeout)>) -> Result<T, Error> {
    let (response, _timeout) = answer.ok_or(Error::Failed)?;
    match response.status() {
        200 => text(response).await.and_then(|text| serde_json::from_str(&text).ok()).ok_or(Error::Failed),
        // A proxy says 404 too, in its own words, while there is no Hark behind it.
        404 => {
            let body = text(response).await.and_then(|text| serde_json::from_str::<ErrorBody>(&text).ok());
            Err(if body.is_some_and(|body| body.error.is_not_found()) { Error::Gone } else { Error::Failed })
        }
        _ => Err(Error::Failed),
    }
}

/// A text that the server has at an address; none if it can't be had.
pub(super) async fn fetch_text(address: &str) -> Option<String> {
    let (response, _timeout) = send(Request::get(address), STATUS_TIMEOUT_MS, None).await?;
    if response.ok() { text(response).await } else { None }
}

async fn text(response: Response) -> Option<String> {
    response.text().await.ok()
}

/// Sends a request and returns its answer, with any HTTP status. None if no answer came in time. The returned timeout must be
/// kept until the body has been read.
async fn send(request: RequestBuilder, timeout_ms: u32, abort: Option<AbortController>) -> Option<(Response, Timeout)> {
    let abort = abort.or_else(|| AbortController::new().ok())?;
    let timeout = Timeout::new(timeout_ms, {
        let abort = abort.clone();
        move || abort.abort()
    });
    let page = beacon::token().unwrap_or_default();
    // A redirect to another site couldn't be told from a network that fails.
    let request = request.redirect(RequestRedirect::Manual);
    let request = request.header("Hark-Page", &page).abort_signal(Some(&abort.signal()));
    Some((request.send().await.ok()?, timeout))
}
