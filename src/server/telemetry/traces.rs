//! Traces of sessions by OpenTelemetry, where the usual `OTEL_*` variables ask for them. The trace of a session has the
//! session's id, and its first step the last half of it, so that every node and every attempt adds to the same trace without
//! being told. Without those variables a step is nothing. `main` calls [`start`] and [`stop`].

use crate::model::{SessionId, Timestamp};
use opentelemetry::{
    Context, KeyValue,
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
        TraceState, Tracer, TracerProvider,
    },
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{
        Config, IdGenerator, RandomIdGenerator, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample, Span,
        SpanData, SpanExporter,
    },
};
use reqwest::Url;
use std::{
    cell::Cell,
    env,
    fmt::Display,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

/// How long a stop waits for the receiver. A node has ten seconds to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// The only protocol that is spoken.
const PROTOCOL: &str = "http/protobuf";

/// The provider and its tracer, if traces are on.
static TRACES: OnceLock<(SdkTracerProvider, SdkTracer)> = OnceLock::new();

/// Begins to send traces if the environment asks for them. `node` is the name of this node.
///
/// # Errors
/// If what it asks for can't be done.
pub fn start(node: &str) -> Result<(), String> {
    let warnings = ignored(variable);
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if !are_wanted(variable) {
        return Ok(());
    }
    let endpoint = endpoint(variable)?;
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build();
    let exporter = exporter.map_err(|error| format!("traces can't be sent: {error}"))?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(Exporter {
            inner: exporter,
            endpoint,
            lost: AtomicUsize::new(0),
            log: tracing::Span::current(),
        })
        .with_id_generator(Ids::default())
        .with_sampler(BySession(Config::default().sampler))
        .with_resource(resource(node))
        .build();
    let tracer = provider.tracer("hark");
    // Fails only at a second call.
    let _ = TRACES.set((provider, tracer));
    Ok(())
}

/// Sends what is left, for at most two seconds. It blocks, so it isn't for the runtime's threads.
pub fn stop() {
    if let Some((provider, _)) = TRACES.get() {
        // What goes wrong is logged by the SDK.
        let _ = provider.shutdown_with_timeout(STOP_TIMEOUT);
    }
}

/// Whether traces are sent.
#[must_use]
pub fn are_on() -> bool {
    TRACES.get().is_some()
}

/// A variable of the environment. An empty one counts as none, as OpenTelemetry has it.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether the environment asks for traces: by the name of the exporter, or by an address to send them to.
fn are_wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return false;
    }
    match variable("OTEL_TRACES_EXPORTER") {
        Some(exporters) => exporters.split(',').any(|name| name.trim() == "otlp"),
        None => ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]
            .into_iter()
            .any(|name| variable(name).is_some()),
    }
}

/// What the environment asks for and Hark doesn't do, in words.
fn ignored(variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(exporters) = variable("OTEL_TRACES_EXPORTER") {
        let others = exporters.split(',').map(str::trim).filter(|name| !["otlp", "none"].contains(name));
        warnings.extend(others.map(|name| {
            format!("OTEL_TRACES_EXPORTER: Hark has no exporter '{name}'; set it to otlp, or to none for no traces")
        }));
    }
    if are_wanted(&variable) {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        let set = names.into_iter().find_map(|name| Some((name, variable(name)?)));
        if let Some((name, protocol)) = set.filter(|(_, protocol)| protocol != PROTOCOL) {
            warnings.push(format!(
                "{name}: Hark doesn't speak '{protocol}'; traces are sent by {PROTOCOL}, which collectors expect on port 4318"
            ));
        }
    }
    warnings
}

/// The address of the receiver as messages show it, without a password.
fn endpoint(variable: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let Some((name, value)) = names.into_iter().find_map(|name| Some((name, variable(name)?))) else {
        return Ok("http://localhost:4318".to_owned());
    };
    let mut url = Url::parse(&value)
        .ok()
        .filter(|url| ["http", "https"].contains(&url.scheme()))
        .ok_or_else(|| format!("{name} must be an address like http://localhost:4318, not '{value}'"))?;
    // Fails only without a host, which an address with these schemes has.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    Ok(url.to_string())
}

/// What is sending: the name of the service and of the node, and what `OTEL_RESOURCE_ATTRIBUTES` says.
fn resource(node: &str) -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name("hark")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node.to_owned()),
        ])
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
    match variable("OTEL_SERVICE_NAME") {
        Some(name) => resource.with_service_name(name),
        None => resource,
    }
    .build()
}

/// A step of a session, which ends when it is dropped. Without traces, and in a session that isn't sampled, it is nothing.
#[derive(Debug, Default)]
#[must_use]
pub struct Step(Option<Open>);

#[derive(Debug)]
struct Open {
    span: Span,
    /// When this was made, by both clocks: the wall clock may be set before the end.
    made: Instant,
    made_at: SystemTime,
}

impl Step {
    /// Begins a step of a session.
    pub fn begin(session: SessionId, name: &'static str) -> Self {
        Self::begun_ago(session, name, Duration::ZERO)
    }

    /// A step of a session that began at this time.
    pub fn begun(session: SessionId, name: &'static str, began: Instant) -> Self {
        if are_on() { Self::begun_ago(session, name, began.elapsed()) } else { Self(None) }
    }

    /// A step of a session that began at this time, perhaps on another machine.
    pub fn begun_at(session: SessionId, name: &'static str, began: Timestamp) -> Self {
        let ago = u64::try_from(Timestamp::now().0 - began.0).unwrap_or(0);
        Self::begun_ago(session, name, Duration::from_millis(ago))
    }

    /// The first step of a session, of which all others are parts; it began at this time.
    pub fn first(session: SessionId, name: &'static str, began: Instant) -> Self {
        let Some((_, tracer)) = TRACES.get() else { return Self(None) };
        PRESET.set(Some(ids(session)));
        let span = SpanBuilder::from_name(name).with_kind(SpanKind::Server);
        let step = Self::open(tracer, span, &Context::new(), Some(session), began.elapsed());
        PRESET.set(None);
        step
    }

    /// Begins a part of this step.
    pub fn part(&self, name: &'static str) -> Self {
        let (Some(open), Some((_, tracer))) = (&self.0, TRACES.get()) else { return Self(None) };
        let parent = Context::new().with_remote_span_context(open.span.span_context().clone());
        Self::open(tracer, SpanBuilder::from_name(name), &parent, None, Duration::ZERO)
    }

    fn begun_ago(session: SessionId, name: &'static str, ago: Duration) -> Self {
        let Some((_, tracer)) = TRACES.get() else { return Self(None) };
        let (trace, first) = ids(session);
        let parent = SpanContext::new(trace, first, TraceFlags::SAMPLED, true, TraceState::default());
        let parent = Context::new().with_remote_span_context(parent);
        Self::open(tracer, SpanBuilder::from_name(name), &parent, Some(session), ago)
    }

    fn open(
        tracer: &SdkTracer,
        span: SpanBuilder,
        parent: &Context,
        session: Option<SessionId>,
        ago: Duration,
    ) -> Self {
        let (made, made_at) = (Instant::now(), SystemTime::now());
        let attribute = session.map(|session| KeyValue::new("hark.session_id", session.to_string()));
        let span = span.with_start_time(made_at.checked_sub(ago).unwrap_or(made_at)).with_attributes(attribute);
        let span = tracer.build_with_context(span, parent);
        Self(span.is_recording().then_some(Open { span, made, made_at }))
    }

    /// Adds a number to it.
    pub fn number(&mut self, name: &'static str, value: u64) {
        if let Some(open) = &mut self.0 {
            open.span.set_attribute(KeyValue::new(name, i64::try_from(value).unwrap_or(i64::MAX)));
        }
    }

    /// Adds a text to it.
    pub fn text(&mut self, name: &'static str, value: &str) {
        if let Some(open) = &mut self.0 {
            open.span.set_attribute(KeyValue::new(name, value.to_owned()));
        }
    }

    /// Says that it failed.
    pub fn fail(&mut self, why: impl Display) {
        if let Some(open) = &mut self.0 {
            open.span.set_status(Status::error(why.to_string()));
        }
    }

    /// Ends it now. Ending it again does nothing.
    pub fn end(&mut self) {
        self.0 = None;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.span.end_with_timestamp(self.made_at + self.made.elapsed());
    }
}

/// A change on its way to the pages that watch. The first page that gets it ends a step of the session; one for each page
/// would be thousands.
#[derive(Debug)]
pub struct Delivery {
    session: SessionId,
    event: &'static str,
    published: Instant,
    arrived: AtomicBool,
}

impl Delivery {
    /// A change that is published now; none without traces.
    #[must_use]
    pub fn begin(session: SessionId, event: &'static str, published: Instant) -> Option<Arc<Self>> {
        are_on().then(|| Arc::new(Self { session, event, published, arrived: AtomicBool::new(false) }))
    }

    /// Says that the change was written to a page's connection.
    pub fn arrived(&self) {
        if !self.arrived.load(Relaxed) && !self.arrived.swap(true, Relaxed) {
            Step::begun(self.session, "page", self.published).text("hark.event", self.event);
        }
    }
}

/// The ids of a session's trace and of its first step.
fn ids(session: SessionId) -> (TraceId, SpanId) {
    let id = session.0.as_u128();
    (TraceId::from(id), SpanId::from(id as u64))
}

thread_local! {
    /// The ids of the first step that is being made.
    static PRESET: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Random ids, but those of a session for its first step.
#[derive(Debug, Default)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        PRESET.get().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        PRESET.get().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

/// The sampler that the environment asks for, which decides by the session's id alone: so every node decides alike, and a trace
/// is sent whole or not at all.
#[derive(Clone, Debug)]
struct BySession(Box<dyn ShouldSample>);

impl ShouldSample for BySession {
    fn should_sample(
        &self,
        _parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        // Samplers by ratio take the last 64 bits for a random number. Of a UUID of version 7, only the last 32 are: a counter
        // stands before them.
        let random = TraceId::from(u128::from_be_bytes(trace.to_bytes()) << 32);
        self.0.should_sample(None, random, name, kind, attributes, links)
    }
}

/// Sends steps, and logs once for each outage that they can't be sent.
#[derive(Debug)]
struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    endpoint: String,
    /// How many steps could not be sent since the last that were.
    lost: AtomicUsize,
    /// The node's span, which names it in the log. The exporter has a thread of its own.
    log: tracing::Span,
}

impl Exporter {
    fn sent(&self, steps: usize, result: &OTelSdkResult) {
        let _named = self.log.enter();
        match result {
            Ok(()) => {
                let lost = self.lost.swap(0, Relaxed);
                if lost > 0 {
                    tracing::info!(lost, "traces are sent again; {lost} steps of sessions were lost meanwhile");
                }
            }
            Err(error) => {
                if self.lost.fetch_add(steps, Relaxed) == 0 {
                    tracing::warn!(
                        %error,
                        "traces can't be sent to {}: {error}. They are lost until it answers; see the OTEL_… variables",
                        self.endpoint
                    );
                }
            }
        }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let steps = batch.len();
        let result = self.inner.export(batch).await;
        self.sent(steps, &result);
        // The SDK would log the error of each batch.
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_sdk::trace::{Sampler, SamplingDecision};
    use uuid::Uuid;

    fn with<'a>(set: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn traces_are_sent_only_where_they_are_wanted() {
        let wanted = |set: &[(&str, &str)]| are_wanted(with(set));
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");
        assert!(!wanted(&[]));
        assert!(wanted(&[endpoint]));
        assert!(wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:4318/v1/traces")]));
        assert!(wanted(&[("OTEL_TRACES_EXPORTER", "otlp")]));
        assert!(wanted(&[("OTEL_TRACES_EXPORTER", "console, otlp")]));
        assert!(!wanted(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]));
        assert!(!wanted(&[endpoint, ("OTEL_TRACES_EXPORTER", "console")]));
        assert!(!wanted(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]));
        assert!(wanted(&[endpoint, ("OTEL_SDK_DISABLED", "false")]));
    }

    #[test]
    fn what_is_ignored_is_said() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");
        assert_eq!(ignored(with(&[])), Vec::<String>::new());
        assert_eq!(ignored(with(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")])), Vec::<String>::new());
        // Nothing is sent, so how doesn't matter.
        assert_eq!(ignored(with(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")])), Vec::<String>::new());
        let said = ignored(with(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]));
        assert!(said.len() == 1 && said[0].contains("'grpc'") && said[0].contains("4318"), "{said:?}");
        let said = ignored(with(&[("OTEL_TRACES_EXPORTER", "zipkin,otlp")]));
        assert!(said.len() == 1 && said[0].contains("'zipkin'"), "{said:?}");
    }

    #[test]
    fn an_address_without_a_scheme_is_refused() {
        let of = |value: &str| endpoint(with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", value)]));
        assert!(of("localhost:4318").unwrap_err().starts_with("OTEL_EXPORTER_OTLP_ENDPOINT must be"));
        assert!(of("collector").is_err());
        assert_eq!(of("https://me:secret@collector/"), Ok("https://collector/".to_owned()));
        assert_eq!(endpoint(with(&[])), Ok("http://localhost:4318".to_owned()));
    }

    /// Sessions' ids aren't random in all bits. A share of them is sampled all the same, and every step of a session alike.
    #[test]
    fn a_share_of_the_sessions_is_sampled() {
        for ratio in [0.1, 0.5, 0.9] {
            let sampler = BySession(Box::new(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)))));
            let sampled = |id: Uuid| {
                let (trace, first) = ids(SessionId(id));
                let decide = |parent: Option<&Context>| {
                    sampler.should_sample(parent, trace, "store", &SpanKind::Internal, &[], &[]).decision
                };
                let parents = [TraceFlags::SAMPLED, TraceFlags::NOT_SAMPLED].map(|flags| {
                    let parent = SpanContext::new(trace, first, flags, true, TraceState::default());
                    decide(Some(&Context::new().with_remote_span_context(parent)))
                });
                let alone = decide(None);
                assert_eq!(parents, [alone.clone(), alone.clone()]);
                alone == SamplingDecision::RecordAndSample
            };
            let share = (0..4000).filter(|_| sampled(Uuid::now_v7())).count() as f64 / 4000.0;
            assert!((share - ratio).abs() < 0.06, "{share} instead of {ratio}");
        }
    }
}
