//! Looks regularly how long the certificate of the public address is valid, for the metrics and the alert about it. Run by
//! `node` if that address is set and begins with https.

use super::outgoing;
use crate::model::Timestamp;
use reqwest::{Url, redirect::Policy, tls::TlsInfo};
use std::time::Duration;
use tokio::time;
use tokio_util::sync::CancellationToken;
use x509_parser::parse_x509_certificate;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Looks at the certificate of `url` until `stop`.
pub async fn watch(url: Url, stop: CancellationToken) {
    if url.scheme() != "https" {
        return;
    }
    let mut ticks = time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match stop.run_until_cancelled(expiry(url.clone())).await {
            Some(Ok(at)) => {
                // With a label that is known only now: without an address there is no such series, which would say 1970.
                let host = url.host_str().unwrap_or_default().to_owned();
                metrics::gauge!("hark_certificate_expiry_timestamp_seconds", "host" => host).set(at.0 as f64 / 1000.0);
            }
            Some(Err(error)) => {
                tracing::warn!("how long the certificate of {url} is valid could not be found out: {error}");
            }
            None => return,
        }
    }
}

/// When the certificate that `url` shows expires.
///
/// # Errors
/// If it shows none, or doesn't answer.
pub async fn expiry(url: Url) -> Result<Timestamp, String> {
    let client = outgoing::client()
        .timeout(TIMEOUT)
        .redirect(Policy::none())
        .tls_info(true)
        // One that has expired is to be looked at as well. Nothing is sent but the request for the page, without a cookie.
        .tls_danger_accept_invalid_certs(true)
        .build()
        .map_err(|e| e.to_string())?;
    let answer = client.head(url).send().await.map_err(|e| e.to_string())?;
    let shown = answer.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
    let shown = shown.ok_or("no certificate was shown")?;
    let (_, certificate) = parse_x509_certificate(shown).map_err(|e| format!("it can't be read: {e}"))?;
    Ok(Timestamp(certificate.validity().not_after.timestamp() * 1000))
}
