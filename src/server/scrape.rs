//! The metrics of this node as text, with what is measured only when somebody asks: counts of the database, the process, the
//! disks. Called by `http::health` and `alerts`.

use super::{state::AppState, telemetry::machine};
use std::time::Duration;
use tokio::time;

/// How long the metrics wait for the machine's.
const MEASURE_TIMEOUT: Duration = Duration::from_millis(500);

/// The metrics in Prometheus' text format.
pub(super) async fn metrics(state: &AppState) -> String {
    // The metrics of the node itself matter most while the database is away.
    let store = &state.sessions.store;
    store.unless_away(state.session_gauges.refresh(store)).await;
    if let Some(connected) = state.sessions.bus.is_connected() {
        metrics::gauge!("hark_redis_up").set(if connected { 1.0 } else { 0.0 });
    }
    let disks = state.sessions.media.disks();
    let measured = tokio::task::spawn_blocking(move || machine::measure(&disks));
    let _ = time::timeout(MEASURE_TIMEOUT, measured).await;
    state.metrics.render()
}
