//! Adds what pages measured of their connection to this node's metrics. Anybody can send reports, so each is limited, bound
//! to what was seen of its page, and cut down to the time that it can cover.

use crate::{
    model::{Arm, Browser, ConnectionReport, Delays, ErrorBody, Timestamp},
    server::{address::ClientAddress, error::Error, owner::Owner, sightings::Mismatch, state::AppState},
};
use axum::{
    Extension,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use metrics::{counter, histogram};

/// Four times the longest possible report, in bytes.
const MAX_BODY: usize = 8 * 1024;

/// What became of a report; the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Taken,
    /// Too many came.
    Limited,
    /// It can't be read.
    Invalid,
    /// It has no token of a page that was seen.
    Unbound,
    /// Its figures can't be so.
    Impossible,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Limited => "limited",
            Self::Invalid => "invalid",
            Self::Unbound => "unbound",
            Self::Impossible => "impossible",
        }
    }
}

/// Takes what a page measured of its connection since its last report: JSON of any content type.
///
/// It is added to the node's metrics, without its owner. Pages send it with `navigator.sendBeacon`. It counts only if the page
/// was given its token by this server and has opened a stream or polled; otherwise it is left out, with the same answer.
#[utoipa::path(post, path = "/api/v1/reports", request_body = ConnectionReport,
    responses((status = 204, description = "Counted, or left out"), (status = 422, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(super) async fn create(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    address: Option<Extension<ClientAddress>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Error> {
    let taken = take(&state, &owner, address.map(|Extension(address)| address), &body);
    let outcome = taken.as_ref().map_or_else(|(outcome, _)| *outcome, |_| Outcome::Taken);
    counter!("hark_client_reports_total", "result" => outcome.as_str()).increment(1);
    let report = match taken {
        Ok(report) => report,
        Err((_, None)) => return Ok(StatusCode::NO_CONTENT),
        Err((_, Some(error))) => return Err(error),
    };
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let (arm, browser) = (state.arms.of(&owner), Browser::of(agent));
    record(arm, browser, &report);
    state.hours.reported(arm, browser, &report);
    Ok(StatusCode::NO_CONTENT)
}

/// Reads a report, as far as it counts. The error is what the caller is told; none if it did nothing wrong.
fn take(
    state: &AppState,
    owner: &Owner,
    address: Option<ClientAddress>,
    body: &[u8],
) -> Result<ConnectionReport, (Outcome, Option<Error>)> {
    if !state.reports.admit(address) {
        return Err((Outcome::Limited, Some(Error::TooManyReports)));
    }
    let invalid = |outcome, message| (outcome, Some(Error::InvalidReport(message)));
    let mut report = read(body).map_err(|message| invalid(Outcome::Invalid, message))?;
    let now = Timestamp::now();
    let Some(page) = state.page_tokens.read(&report.page, owner, now) else {
        let message = "The report isn't counted: it has no valid token of a page of the caller.";
        return Err(invalid(Outcome::Unbound, message.to_owned()));
    };
    if !state.reports.admit_page(owner, &page) {
        return Err((Outcome::Limited, Some(Error::TooManyReports)));
    }
    let sightings = state.hub.sightings();
    let news = sightings.take(&page, &mut report, now).map_err(|mismatch| match mismatch {
        // A page that is left before its stream has reached the server, or that was open while the server was restarted.
        Mismatch::Unbound => (Outcome::Unbound, None),
        Mismatch::Impossible(why) => invalid(Outcome::Impossible, why),
    })?;
    state.sessions.bus.tell_of_page(news);
    report.bytes = sightings.take_bytes(state.arms.of(owner));
    Ok(report)
}

fn read(body: &[u8]) -> Result<ConnectionReport, String> {
    if body.len() > MAX_BODY {
        return Err(format!("The report is larger than {MAX_BODY} bytes."));
    }
    serde_json::from_slice(body).map_err(|e| format!("The report can't be read: {e}."))
}

fn record(arm: Arm, browser: Browser, report: &ConnectionReport) {
    let (arm, browser) = (arm.as_str(), browser.as_str());
    counter!("hark_client_visits_total", "arm" => arm).increment(report.first.into());
    counter!("hark_client_fallbacks_total", "arm" => arm).increment(report.fell_back.into());
    for (mode, ms) in report.mode_ms.by_mode() {
        counter!("hark_client_mode_milliseconds_total", "arm" => arm, "mode" => mode).increment(ms.into());
    }
    counter!("hark_client_connects_total", "arm" => arm).increment(report.connects.into());
    for (kind, count) in report.failures.by_kind() {
        counter!("hark_client_failures_total", "arm" => arm, "kind" => kind, "browser" => browser)
            .increment(count.into());
    }
    counter!("hark_client_mended_total", "arm" => arm).increment(report.mended.into());
    for (reason, count) in report.byes.by_reason() {
        counter!("hark_client_byes_total", "arm" => arm, "reason" => reason).increment(count.into());
    }
    let delays = |histogram: metrics::Histogram, delays: &Delays| {
        for (bound, count) in delays.buckets().filter(|(_, count)| *count > 0) {
            histogram.record_many(f64::from(bound) / 1000.0, count as usize);
        }
    };
    delays(histogram!("hark_client_first_event_seconds", "arm" => arm), &report.first_event);
    delays(histogram!("hark_client_delivery_seconds", "arm" => arm, "mode" => "live"), &report.delivery_live);
    delays(histogram!("hark_client_delivery_seconds", "arm" => arm, "mode" => "polling"), &report.delivery_polling);
    for (kind, count) in report.requests.by_kind() {
        counter!("hark_client_requests_total", "arm" => arm, "kind" => kind).increment(count.into());
    }
    counter!("hark_client_received_bytes_total", "arm" => arm).increment(report.bytes);
}
