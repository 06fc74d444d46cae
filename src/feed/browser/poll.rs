//! Requests for statuses and segments, and the loop that polls when no stream gets through.
//! One poll at a time; every request is given up after a while, because a browser may let it hang for minutes.

use super::{Driver, beacon, now};
use crate::{
    feed::reduce::Gap,
    model::{Segment, SessionId, Status, StatusList, Timestamp},
};
use gloo_net::http::{Request, RequestBuilder, Response};
use gloo_timers::callback::{Interval, Timeout};
use leptos::task::spawn_local;
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
};
use web_sys::AbortController;

/// A status is a few hundred bytes: what takes longer than 10 s isn't coming.
const STATUS_TIMEOUT_MS: u32 = 10_000;
/// A transcript of hours is a megabyte or two, over a slow line.
const SEGMENTS_TIMEOUT_MS: u32 = 60_000;

/// What came of a poll.
pub(super) enum Answer {
    /// With the JSON they were read from.
    Statuses(StatusList, String),
    /// As the answer before.
    Unchanged,
    Failed,
}

/// Why a request brought nothing.
pub(super) enum Error {
    /// There is no such session, or not any more.
    Gone,
    Failed,
}

/// The loop. It polls between [`Poll::now`] and [`Poll::stop`].
pub(super) struct Poll {
    this: Weak<Poll>,
    driver: Weak<Driver>,
    /// Milliseconds from one poll to the next.
    every: u32,
    /// The request under way.
    request: RefCell<Option<AbortController>>,
    /// Grows with every stop, so that an answer to an earlier request is known as such.
    run: Cell<u32>,
    interval: RefCell<Option<Interval>>,
    /// The ETag of the last answer.
    etag: RefCell<Option<String>>,
}

impl Poll {
    /// A loop that doesn't run yet.
    pub(super) fn new(driver: Weak<Driver>, every: u32) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            this: this.clone(),
            driver,
            every,
            request: RefCell::default(),
            run: Cell::new(0),
            interval: RefCell::default(),
            etag: RefCell::default(),
        })
    }

    /// Polls now, and again after every interval.
    pub(super) fn now(&self) {
        let this = self.this.clone();
        *self.interval.borrow_mut() = Some(Interval::new(self.every, move || {
            if let Some(poll) = this.upgrade() {
                poll.ask();
            }
        }));
        self.ask();
    }

    /// Sends a request, unless one is still under way.
    fn ask(&self) {
        let Some(this) = self.this.upgrade().filter(|_| self.request.borrow().is_none()) else { return };
        let Ok(abort) = AbortController::new() else { return };
        *self.request.borrow_mut() = Some(abort.clone());
        let run = self.run.get();
        spawn_local(async move {
            let known = this.etag.borrow().clone();
            let (answer, etag) = list(known, Some(abort)).await;
            if this.run.get() != run {
                return;
            }
            this.request.borrow_mut().take();
            if !matches!(answer, Answer::Unchanged) {
                *this.etag.borrow_mut() = etag;
            }
            // Last: it may stop the polling.
            if let Some(driver) = this.driver.upgrade() {
                driver.polled(answer);
            }
        });
    }

    /// Stops, also in the middle of a request.
    pub(super) fn stop(&self) {
        self.run.set(self.run.get().wrapping_add(1));
        self.interval.borrow_mut().take();
        self.etag.borrow_mut().take();
        if let Some(request) = self.request.borrow_mut().take() {
            request.abort();
        }
    }

    /// Asks for everything with the next poll, changed or not.
    pub(super) fn forget_answer(&self) {
        self.etag.borrow_mut().take();
    }
}

/// The statuses of all sessions that run or have just ended, and the answer's ETag. `known`: the ETag of the answer
/// before.
pub(super) async fn list(known: Option<String>, abort: Option<AbortController>) -> (Answer, Option<String>) {
    let mut request = Request::get("/api/v1/status");
    if let Some(etag) = &known {
        request = request.header("If-None-Match", etag);
    }
    let sent = now();
    let Some((response, _timeout)) = send(request, STATUS_TIMEOUT_MS, abort).await else {
        return (Answer::Failed, None);
    };
    let headers = response.headers();
    if let Some(server) = headers.get("hark-time").and_then(|time| time.parse().ok()) {
        beacon::measure(|measure| measure.server_time(sent, now(), Timestamp(server)));
    }
    match response.status() {
        304 => (Answer::Unchanged, known),
        200 => {
            let etag = headers.get("etag");
            let read = text(response).await.and_then(|text| Some((serde_json::from_str(&text).ok()?, text)));
            read.map_or((Answer::Failed, None), |(list, text)| (Answer::Statuses(list, text), etag))
        }
        _ => (Answer::Failed, None),
    }
}

/// The status of one session.
pub(super) async fn status(id: SessionId) -> Result<Status, Error> {
    read(send(Request::get(&format!("/api/v1/sessions/{id}/status")), STATUS_TIMEOUT_MS, None).await).await
}

/// The segments that a view lacks.
pub(super) async fn segments(id: SessionId, gap: Gap) -> Result<Vec<Segment>, Error> {
    #[derive(Deserialize)]
    struct SegmentList {
        segments: Vec<Segment>,
    }
    let after = gap.after.map(|after| ("after", after.to_string()));
    let request = Request::get(&format!("/api/v1/sessions/{id}/segments")).query(after);
    read::<SegmentList>(send(request, SEGMENTS_TIMEOUT_MS, None).await).await.map(|list| list.segments)
}

async fn read<T: DeserializeOwned>(answer: Option<(Response, Timeout)>) -> Result<T, Error> {
    let (response, _timeout) = answer.ok_or(Error::Failed)?;
    match response.status() {
        200 => text(response).await.and_then(|text| serde_json::from_str(&text).ok()).ok_or(Error::Failed),
        404 => Err(Error::Gone),
        _ => Err(Error::Failed),
    }
}

async fn text(response: Response) -> Option<String> {
    let text = response.text().await.ok()?;
    beacon::measure(|measure| measure.received(text.len()));
    Some(text)
}

/// Any answer, whatever its status; none if there isn't one in time. The timeout that comes with it must be kept until
/// the body has been read.
async fn send(request: RequestBuilder, timeout_ms: u32, abort: Option<AbortController>) -> Option<(Response, Timeout)> {
    let abort = abort.or_else(|| AbortController::new().ok())?;
    let timeout = Timeout::new(timeout_ms, {
        let abort = abort.clone();
        move || abort.abort()
    });
    beacon::measure(|measure| measure.requested());
    Some((request.abort_signal(Some(&abort.signal())).send().await.ok()?, timeout))
}
