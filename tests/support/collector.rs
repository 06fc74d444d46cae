//! A receiver of traces by OTLP over HTTP, as a collector of OpenTelemetry is one. It keeps what it is sent.

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use std::{
    collections::BTreeMap,
    io::Read,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::{net::TcpListener, task::JoinHandle};

/// A running one; stopped when dropped.
pub struct Collector {
    pub url: String,
    received: Arc<Received>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Received {
    requests: Mutex<Vec<HeaderMap>>,
    steps: Mutex<Vec<Step>>,
    refuses: AtomicBool,
}

/// A span that was received.
#[derive(Clone, Debug)]
pub struct Step {
    pub span: Span,
    /// The attributes of the span, and of the resource that sent it.
    pub attributes: BTreeMap<String, String>,
    pub resource: BTreeMap<String, String>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Received::default());
        let taking = Arc::clone(&received);
        let take = move |headers: HeaderMap, body: Bytes| {
            let answer = taking.take(headers, &body);
            async move { answer }
        };
        let router = Router::new().route("/v1/traces", post(take));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, received, server }
    }

    /// Refuses what comes from now on, or takes it again.
    pub fn refuse(&self, refuses: bool) {
        self.received.refuses.store(refuses, Relaxed);
    }

    /// The heads of the requests that came, also of those that were refused.
    pub fn requests(&self) -> Vec<HeaderMap> {
        self.received.requests.lock().unwrap().clone()
    }

    /// All that was taken.
    pub fn steps(&self) -> Vec<Step> {
        self.received.steps.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Received {
    fn take(&self, headers: HeaderMap, body: &[u8]) -> StatusCode {
        let mut text = Vec::new();
        if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
            GzDecoder::new(body).read_to_end(&mut text).unwrap();
        } else {
            text.extend_from_slice(body);
        }
        self.requests.lock().unwrap().push(headers);
        if self.refuses.load(Relaxed) {
            return StatusCode::BAD_REQUEST;
        }
        let request: ExportTraceServiceRequest = prost::Message::decode(&text[..]).unwrap();
        for of_resource in request.resource_spans {
            let resource = map(of_resource.resource.unwrap().attributes);
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let step = Step { attributes: map(span.attributes.clone()), resource: resource.clone(), span };
                self.steps.lock().unwrap().push(step);
            }
        }
        StatusCode::OK
    }
}

fn map(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |attribute: KeyValue| match attribute.value.unwrap().value.unwrap() {
        Value::StringValue(text) => (attribute.key, text),
        Value::IntValue(number) => (attribute.key, number.to_string()),
        other => panic!("{}: {other:?}", attribute.key),
    };
    attributes.into_iter().map(text).collect()
}
