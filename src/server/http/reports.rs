//! What pages measured of their own connection, added to this node's metrics. Believed within limits only: anybody can
//! send it.

use crate::{
    model::{ConnectionReport, Delays, ErrorBody},
    server::{address::ClientAddress, error::Error, owner::Owner, shares::Standing, state::AppState},
};
use axum::{Extension, body::Bytes, extract::State, http::StatusCode};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use metrics::{counter, histogram};
use std::{num::NonZeroU32, time::Duration};

/// A page sends one every five minutes and one when it is left. Ten tabs may be closed at once. All newcomers at one
/// address have as much together: a program without a cookie is a new owner with each request.
const EVERY: Duration = Duration::from_secs(10);
const BURST: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
/// Reports of all a second.
const PER_NODE: NonZeroU32 = NonZeroU32::new(200).expect("not zero");
/// Ten times the longest report there can be, in bytes.
const MAX_BODY: usize = 8 * 1024;

/// Who a report is counted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reporter {
    Owner(Owner),
    Address(ClientAddress),
}

/// How often reports are taken in.
pub struct ReportLimits {
    reporter: DefaultKeyedRateLimiter<Reporter>,
    node: DefaultDirectRateLimiter,
}

impl Default for ReportLimits {
    fn default() -> Self {
        let quota = Quota::with_period(EVERY).expect("longer than nothing").allow_burst(BURST);
        Self { reporter: RateLimiter::keyed(quota), node: RateLimiter::direct(Quota::per_second(PER_NODE)) }
    }
}

impl ReportLimits {
    fn admit(&self, reporter: &Reporter) -> bool {
        // Those who may send as many as ever need no memory.
        if self.reporter.len() > 10_000 {
            self.reporter.retain_recent();
        }
        self.reporter.check_key(reporter).is_ok()
    }
}

/// What a page measured of its connection since it told last: sent by `navigator.sendBeacon`, as JSON of any type.
///
/// It is added to the metrics of the node, without a word of whose it was.
#[utoipa::path(post, path = "/api/v1/reports", request_body = ConnectionReport,
    responses((status = 204, description = "Counted"), (status = 422, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(super) async fn create(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    address: Option<Extension<ClientAddress>>,
    body: Bytes,
) -> Result<StatusCode, Error> {
    let refused = |why: &'static str, error: Error| {
        counter!("hark_client_reports_total", "result" => why).increment(1);
        error
    };
    // First, so that no more of them ask the database.
    let mut admitted = state.reports.node.check().is_ok();
    if admitted {
        let reporter = match state.standing(&owner, address.map(|Extension(address)| address)).await {
            Standing::Known => Reporter::Owner(owner),
            Standing::Newcomer(address) => Reporter::Address(address),
        };
        admitted = state.reports.admit(&reporter);
    }
    if !admitted {
        return Err(refused("limited", Error::TooManyReports));
    }
    let report = read(&body).map_err(|message| refused("invalid", Error::InvalidReport(message)))?;
    counter!("hark_client_reports_total", "result" => "taken").increment(1);
    record(&report);
    Ok(StatusCode::NO_CONTENT)
}

fn read(body: &[u8]) -> Result<ConnectionReport, String> {
    if body.len() > MAX_BODY {
        return Err(format!("The report is larger than {MAX_BODY} bytes."));
    }
    let report: ConnectionReport =
        serde_json::from_slice(body).map_err(|e| format!("The report can't be read: {e}."))?;
    report.check().map(|()| report)
}

fn record(report: &ConnectionReport) {
    let modes = report.mode_ms;
    for (mode, ms) in
        [("live", modes.live), ("polling", modes.polling), ("connecting", modes.connecting), ("offline", modes.offline)]
    {
        counter!("hark_client_mode_milliseconds_total", "mode" => mode).increment(u64::from(ms));
    }
    counter!("hark_client_connects_total").increment(u64::from(report.connects));
    let failures = report.failures;
    for (kind, count) in [
        ("error", failures.error),
        ("buffered", failures.buffered),
        ("silent", failures.silent),
        ("limit", failures.limit),
    ] {
        counter!("hark_client_failures_total", "kind" => kind).increment(u64::from(count));
    }
    let delays = |histogram: metrics::Histogram, delays: &Delays| {
        for (bound, count) in delays.buckets().filter(|(_, count)| *count > 0) {
            histogram.record_many(f64::from(bound) / 1000.0, count as usize);
        }
    };
    delays(histogram!("hark_client_first_event_seconds"), &report.first_event);
    delays(histogram!("hark_client_delivery_seconds", "mode" => "live"), &report.delivery_live);
    delays(histogram!("hark_client_delivery_seconds", "mode" => "polling"), &report.delivery_polling);
    counter!("hark_client_requests_total").increment(u64::from(report.requests));
    counter!("hark_client_received_bytes_total").increment(report.bytes);
}
