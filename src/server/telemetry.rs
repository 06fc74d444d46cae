//! The log and the metrics. `main` and the tests set them up once.

use super::config::{LogConfig, LogFormat};
use crate::model::{DELAY_BOUNDS_MS, State};
use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::IsTerminal,
    panic::PanicHookInfo,
    sync::OnceLock,
};
use tracing_subscriber::EnvFilter;

/// Starts the log, on standard error.
///
/// # Errors
/// If the filter can't be read.
pub fn log(config: &LogConfig) -> Result<(), String> {
    // Hides PostgreSQL's notice at every start that the table of migrations exists.
    let filter = EnvFilter::try_new(format!("sqlx::postgres::notice=warn,{}", config.log))
        .map_err(|e| format!("--log: '{}' is no filter ({e}); give one like 'info' or 'hark=debug'", config.log))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let set = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    set.map_err(|e| format!("the log can't be started: {e}"))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Writes a panic to the log, because plain text on standard error would break a JSON log.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("a panic without a message");
    let location = panic.location().map(tracing::field::display);
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(&backtrace));
    tracing::error!(location, thread = thread.name(), backtrace, "panic: {message}");
}

/// Counts a session that has reached a terminal state.
pub fn count_ended(state: State) {
    metrics::counter!("hark_sessions_ended_total", "status" => state.as_str()).increment(1);
}

/// The metrics' recorder of this process, made at the first call.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let delays: Vec<f64> = DELAY_BOUNDS_MS.iter().map(|ms| f64::from(*ms) / 1000.0).collect();
            let recorder = PrometheusBuilder::new()
                .set_buckets_for_metric(
                    Matcher::Full("hark_real_time_factor".to_owned()),
                    &[0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0],
                )
                .and_then(|builder| {
                    builder.set_buckets_for_metric(
                        Matcher::Full("hark_publish_to_write_seconds".to_owned()),
                        &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0],
                    )
                })
                .and_then(|builder| {
                    builder.set_buckets_for_metric(Matcher::Full("hark_client_first_event_seconds".to_owned()), &delays)
                })
                .and_then(|builder| {
                    builder.set_buckets_for_metric(Matcher::Full("hark_client_delivery_seconds".to_owned()), &delays)
                })
                .map(PrometheusBuilder::build_recorder)
                .unwrap_or_else(|_| PrometheusBuilder::new().build_recorder());
            let handle = recorder.handle();
            // Fails only if another recorder is set, which never happens.
            let _ = metrics::set_global_recorder(recorder);
            describe_gauge!("hark_streams_open", "Status streams open now, by what they tell of");
            describe_counter!("hark_streams_opened_total", "Status streams opened, by what they tell of");
            describe_counter!("hark_streams_closed_total", "Status streams closed, by reason");
            describe_counter!("hark_streams_refused_total", "Status streams refused, by whose limit was reached");
            describe_counter!("hark_stream_events_total", "Events sent on status streams, by name");
            describe_counter!(
                "hark_stream_bytes_total",
                "Bytes of events sent on status streams, as written: compressed where a client asked for it"
            );
            describe_histogram!(
                "hark_publish_to_write_seconds",
                "From the publishing of a change to its write to a stream"
            );
            describe_counter!("hark_snapshot_reads_total", "Times a stream had to read the store");
            describe_gauge!("hark_hub_entries", "Sessions and owners whose newest status is held in memory");
            describe_counter!("hark_updates_conflated_total", "Statuses replaced by a newer one before they were sent");
            describe_counter!(
                "hark_bus_messages_total",
                "Messages of other nodes and outside workers, heard through Redis, by what became of them"
            );
            describe_counter!("hark_bus_dropped_total", "Changes that could not be handed to Redis or taken from it");
            describe_gauge!("hark_bus_subscriptions", "Sessions whose changes on other nodes are listened for");
            describe_counter!("hark_polls_total", "Status polls by answer");
            describe_counter!("hark_sessions_created_total", "Sessions received");
            describe_counter!(
                "hark_sessions_ended_total",
                "Sessions ended, by status; one that is queued again ends anew"
            );
            describe_counter!("hark_sessions_expired_total", "Sessions deleted because they ended HARK_KEEP_DAYS ago");
            describe_counter!("hark_upload_bytes_total", "Bytes of recordings received");
            describe_counter!(
                "hark_connections_refused_total",
                "Connections told to come back, by whose limit was reached"
            );
            describe_counter!("hark_uploads_refused_total", "Recordings refused, by the error's code");
            describe_gauge!("hark_sessions", "Sessions by status, of all nodes");
            describe_gauge!(
                "hark_sessions_long_running",
                "Sessions processed for more than ten minutes and three times their length"
            );
            describe_gauge!(
                "hark_sessions_stalled",
                "Sessions processed of which nothing has changed for a minute, or whose lease has run out"
            );
            describe_gauge!("hark_queue_oldest_seconds", "How long the session has waited that has waited longest");
            describe_histogram!("hark_real_time_factor", "Seconds of work per second of audio, by engine");
            describe_counter!(
                "hark_client_reports_total",
                "Reports of pages on their connection, by what became of them"
            );
            describe_counter!(
                "hark_client_mode_milliseconds_total",
                "How long pages had a stream, polled, were connecting or offline while they had something to watch"
            );
            describe_counter!("hark_client_connects_total", "Streams that pages opened");
            describe_counter!(
                "hark_client_failures_total",
                "Streams that failed as pages saw it, by what they noticed"
            );
            describe_histogram!(
                "hark_client_first_event_seconds",
                "From a page's opening of a stream to its first event"
            );
            describe_histogram!(
                "hark_client_delivery_seconds",
                "From the making of a status to its arrival at a page, by the page's estimate of the server's clock"
            );
            describe_counter!("hark_client_requests_total", "Requests of pages for statuses and segments");
            describe_counter!("hark_client_received_bytes_total", "Bytes of their answers, before compression");
            handle
        })
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_one_line_of_a_json_log() {
        let written = Written::default();
        let writer = written.clone();
        let log = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));
        let result = tracing::subscriber::with_default(log, || std::panic::catch_unwind(|| panic!("so \"it\" goes")));
        std::panic::set_hook(before);
        assert!(result.is_err());
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!((&line["level"], &line["message"]), (&"ERROR".into(), &"panic: so \"it\" goes".into()));
        assert!(line["location"].as_str().unwrap().contains("telemetry.rs"), "{line}");
    }
}
