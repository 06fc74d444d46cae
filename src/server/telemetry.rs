//! The log, the metrics and the traces. `main` and the tests set them up once. `catalogue` lists all metrics, `lines` limits how
//! many lines requests make in the log, `machine` measures the process and what it runs on, `samples` reads metrics again,
//! `traces` sends the steps of sessions.

pub mod catalogue;
pub mod lines;
pub mod machine;
pub mod samples;
pub mod traces;

use super::config::{LogConfig, LogFormat};
use crate::model::{State, Status};
use catalogue::{FAILURE_CODES, Kind, TIME_LIMITS, listed};
use metrics::{Key, KeyName, Label, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
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
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&config.log)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let set = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    set.map_err(|e| format!("the log can't be started: {e}"))?;
    lines::set_rate(config.log_rate);
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// What stands in the log: what `wanted` says, without the lines of sqlx that tell an operator nothing.
fn filter(wanted: &str) -> Result<EnvFilter, String> {
    const WITHOUT: &str = concat!(
        // PostgreSQL's notice at every start that the table of migrations exists.
        "sqlx::postgres::notice=warn,",
        // Each connection that broke, and each wait for one, while PostgreSQL is away or busy. Hark's own lines say once that
        // it is away, and that all connections are in use. The pool writes under its crate's name and under this one.
        "sqlx_core::pool=error,sqlx::pool=error",
    );
    EnvFilter::try_new(format!("{WITHOUT},{wanted}"))
        .map_err(|e| format!("--log: '{wanted}' is no filter ({e}); give one like 'info' or 'hark=debug'"))
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
pub fn count_ended(status: &Status) {
    metrics::counter!("hark_sessions_ended_total", "status" => status.state.as_str()).increment(1);
    if status.state != State::Failed {
        return;
    }
    let code = status.error.as_ref().map_or(catalogue::OTHER, |error| listed(FAILURE_CODES, &error.code));
    metrics::counter!("hark_sessions_failed_total", "code" => code).increment(1);
    if TIME_LIMITS.contains(&code) {
        metrics::counter!("hark_sessions_timed_out_total").increment(1);
    }
}

/// The metrics' recorder of this process, made at the first call.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = recorder();
            let handle = recorder.handle();
            register(&recorder, false);
            // Fails only if another recorder is set, which never happens.
            let _ = metrics::set_global_recorder(recorder);
            handle
        })
        .clone()
}

/// Metrics without series, for a node that measures nothing: what is counted goes nowhere.
#[must_use]
pub fn no_metrics() -> PrometheusHandle {
    recorder().handle()
}

/// Begins the series about Redis, on a node that has one.
pub fn begin_redis_metrics() {
    metrics::with_recorder(|recorder| register(recorder, true));
}

/// A recorder with the buckets of the catalogue's histograms.
fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for metric in catalogue::metrics() {
        if let Kind::Histogram(bounds) = metric.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)
                .expect("a histogram of the catalogue has buckets");
        }
    }
    builder.build_recorder()
}

/// Describes metrics and begins their series at 0, because the rate of a series that begins with its first value would lack
/// that value. What a machine's folders are called is known only once they are asked for.
fn register<R: Recorder + ?Sized>(recorder: &R, redis: bool) {
    let metadata = Metadata::new(module_path!(), metrics::Level::INFO, None);
    for metric in catalogue::groups(redis).flat_map(|group| group.metrics) {
        let (name, meaning) = (KeyName::from_const_str(metric.name), SharedString::const_str(metric.meaning));
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, None, meaning),
            Kind::Gauge => recorder.describe_gauge(name, None, meaning),
            Kind::Histogram(_) => recorder.describe_histogram(name, None, meaning),
        }
        for labels in metric.series() {
            let labels: Vec<Label> =
                labels.into_iter().map(|(name, value)| Label::from_static_parts(name, value)).collect();
            let key = Key::from_parts(metric.name, labels);
            match metric.kind {
                Kind::Counter => drop(recorder.register_counter(&key, &metadata)),
                Kind::Gauge => drop(recorder.register_gauge(&key, &metadata)),
                Kind::Histogram(_) => drop(recorder.register_histogram(&key, &metadata)),
            }
        }
    }
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
    fn the_pool_of_connections_says_nothing_but_errors() {
        let lines = |wanted: &str| {
            let written = Written::default();
            let writer = written.clone();
            let log = tracing_subscriber::fmt().with_env_filter(filter(wanted).unwrap());
            let log =
                log.without_time().with_ansi(false).with_target(false).with_writer(move || writer.clone()).finish();
            tracing::subscriber::with_default(log, || {
                // As sqlx writes them.
                tracing::info!(target: "sqlx_core::pool::inner", "ping on idle connection returned error");
                tracing::warn!(target: "sqlx::pool::acquire", "time to acquire exceeded slow threshold");
                tracing::info!(target: "sqlx::postgres::notice", "the relation exists");
                tracing::error!(target: "sqlx_core::pool::inner", "error returned from after_connect");
                tracing::info!("of Hark");
            });
            let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(lines("info"), ["ERROR error returned from after_connect", "INFO of Hark"]);
        // Who asks for them gets them.
        assert_eq!(lines("warn,sqlx::pool::acquire=warn")[0], "WARN time to acquire exceeded slow threshold");
        assert!(filter("=,=").is_err());
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
