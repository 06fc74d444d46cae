//! Adds what pages measured of their connection to this node's metrics. Reports are limited and checked, because
//! anybody can send them.

use crate::{
    model::{ConnectionReport, Delays, ErrorBody},
    server::{address::ClientAddress, error::Error, owner::Owner, state::AppState},
};
use axum::{Extension, body::Bytes, extract::State, http::StatusCode};
use metrics::{counter, histogram};

/// Ten times the longest possible report, in bytes.
const MAX_BODY: usize = 8 * 1024;

/// Takes what a page measured of its connection since its last report: JSON of any content type.
///
/// It is added to the node's metrics, without its owner. Pages send it with `navigator.sendBeacon`.
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
    // Checked first, so that reports beyond this limit don't query the database.
    let mut admitted = state.reports.admit_any();
    if admitted {
        let standing = state.sessions.standing(&owner, address.map(|Extension(address)| address)).await;
        admitted = state.reports.admit(&owner, standing);
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
