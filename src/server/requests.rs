//! Counts every request by what it is for and by the status of its answer, and the bytes of answers to polls; and writes the
//! lines in the log about requests of outside workers and about refused reports. Called by `guard`, which wraps all routes.

use super::{error::ErrorCode, http, stream::RequestedAt, telemetry::lines};
use crate::model::SessionId;
use axum::{
    body::{Body, HttpBody},
    extract::{MatchedPath, Request},
    http::{Method, StatusCode},
    response::Response,
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use metrics::Counter;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Page,
    File,
    Poll,
    Stream,
    Segments,
    Upload,
    Action,
    Report,
    Worker,
    Admin,
    Operator,
    Other,
}

impl Kind {
    /// The label of metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::File => "file",
            Self::Poll => "poll",
            Self::Stream => "stream",
            Self::Segments => "segments",
            Self::Upload => "upload",
            Self::Action => "action",
            Self::Report => "report",
            Self::Worker => "worker",
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Other => "other",
        }
    }

    /// The kind of a request, by its route; without one, which is how files of the site are found, by its path.
    fn of(method: &Method, route: Option<&str>, path: &str) -> Self {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let Some(route) = route else {
            let is_file = path.rsplit('/').next().is_some_and(|name| name.contains('.'));
            return if reads && is_file { Self::File } else { Self::Other };
        };
        if ["/healthz", "/readyz", "/metrics"].contains(&route) || route.starts_with("/api/v1/health/") {
            return Self::Operator;
        }
        if ["/admin", "/api/v1/admin"].iter().any(|admin| is_under(route, admin)) {
            return Self::Admin;
        }
        match route.strip_prefix("/api/v1/") {
            Some("reports") => Self::Report,
            Some(route) if route.ends_with("/stream") => Self::Stream,
            Some("status" | "sessions/{id}/status") if reads => Self::Poll,
            Some("sessions/{id}/segments") if reads => Self::Segments,
            Some("sessions/{id}/status" | "sessions/{id}/segments" | "status/batch") if !reads => Self::Worker,
            Some("sessions") if *method == Method::POST => Self::Upload,
            Some("uploads" | "uploads/{id}") if [Method::POST, Method::PATCH].contains(method) => Self::Upload,
            Some(route) if route.starts_with("sessions/{id}/audio") || route.contains("/transcript.") => Self::File,
            Some(_) if reads => Self::Other,
            Some(_) => Self::Action,
            // Server functions: pages load their data with GET.
            None if route.starts_with("/api/{*") || route == "/api/openapi.json" => Self::Other,
            None if reads => Self::Page,
            None if route.starts_with("/api/") => Self::Action,
            None => Self::Other,
        }
    }
}

fn is_under(route: &str, folder: &str) -> bool {
    route.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A request that is being answered.
pub(super) struct Counted {
    kind: Kind,
    method: Method,
    route: Option<MatchedPath>,
    session: Option<SessionId>,
    began: Instant,
}

impl Counted {
    /// Begins to count a request, whose head was just read.
    pub(super) fn begin(request: &mut Request) -> Self {
        let began = Instant::now();
        let route = request.extensions().get::<MatchedPath>().cloned();
        let path = request.uri().path();
        let mut kind = Kind::of(request.method(), route.as_ref().map(MatchedPath::as_str), path);
        if kind == Kind::Upload && http::is_announcement(request.headers()) {
            kind = Kind::Worker;
        }
        let session = (kind == Kind::Worker).then(|| path.split('/').find_map(|part| part.parse().ok())).flatten();
        if kind == Kind::Stream {
            request.extensions_mut().insert(RequestedAt(began));
        }
        Self { kind, method: request.method().clone(), route, session, began }
    }

    /// Counts the answer, whose body may still have to be sent.
    pub(super) fn answered(self, response: Response) -> Response {
        let status = response.status();
        let class = match status.as_u16() / 100 {
            5 => "5xx",
            4 => "4xx",
            3 => "3xx",
            _ => "2xx",
        };
        metrics::counter!("hark_http_requests_total", "kind" => self.kind.as_str(), "status" => class).increment(1);
        match self.kind {
            Kind::Poll if status.is_success() => {
                let bytes = metrics::counter!("hark_poll_bytes_total");
                response.map(|inner| Body::new(CountedBody { inner, bytes }))
            }
            Kind::Report if !status.is_success() && lines::REFUSED_REPORTS.admit() => {
                let code = code(&response);
                tracing::info!(code, "a page's report was refused ({})", code.unwrap_or(status.as_str()));
                response
            }
            Kind::Worker if lines::WORKER_REQUESTS.admit() => {
                self.log_worker(status, code(&response));
                response
            }
            _ => response,
        }
    }

    fn log_worker(&self, status: StatusCode, code: Option<&str>) {
        let session_id = self.session.map(tracing::field::display);
        let (method, route) = (&self.method, self.route.as_ref().map_or("", MatchedPath::as_str));
        let duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let status = status.as_u16();
        tracing::info!(
            session_id, %method, route, status, code, duration_ms,
            "an outside worker's request was answered with {status}: {method} {route}"
        );
    }
}

fn code(response: &Response) -> Option<&'static str> {
    response.extensions().get::<ErrorCode>().map(|code| code.0)
}

/// A body whose bytes are counted as they are sent.
struct CountedBody {
    inner: Body,
    bytes: Counter,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.bytes.increment(data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kind_of_their_route() {
        let kind = |line: &str| {
            let (method, route) = line.split_once(' ').unwrap();
            Kind::of(&method.parse().unwrap(), Some(route), "").as_str()
        };
        for (line, expected) in [
            ("GET /", "page"),
            ("GET /sessions/{id}", "page"),
            ("GET /api/list_sessions17", "page"),
            ("POST /api/cancel_session17", "action"),
            ("GET /api/v1/status", "poll"),
            ("HEAD /api/v1/sessions/{id}/status", "poll"),
            ("GET /api/v1/sessions/{id}/status/stream", "stream"),
            ("GET /api/v1/status/stream", "stream"),
            ("GET /api/v1/models/stream", "stream"),
            ("GET /api/v1/sessions/{id}/segments", "segments"),
            ("POST /api/v1/sessions/{id}/segments", "worker"),
            ("PUT /api/v1/sessions/{id}/status", "worker"),
            ("POST /api/v1/status/batch", "worker"),
            ("GET /api/v1/status/batch", "other"),
            ("POST /api/v1/sessions", "upload"),
            ("POST /api/v1/uploads", "upload"),
            ("PATCH /api/v1/uploads/{id}", "upload"),
            ("HEAD /api/v1/uploads/{id}", "other"),
            ("DELETE /api/v1/uploads/{id}", "action"),
            ("GET /api/v1/sessions", "other"),
            ("DELETE /api/v1/sessions/{id}", "action"),
            ("POST /api/v1/sessions/{id}/retry", "action"),
            ("GET /api/v1/sessions/{id}/audio", "file"),
            ("GET /api/v1/sessions/{id}/transcript.{format}", "file"),
            ("POST /api/v1/reports", "report"),
            ("GET /admin", "admin"),
            ("GET /admin/sessions", "admin"),
            ("GET /administer", "page"),
            ("GET /api/v1/admin/figures", "admin"),
            ("GET /api/v1/admin/stream", "admin"),
            ("GET /api/v1/health/sessions", "operator"),
            ("GET /metrics", "operator"),
            ("GET /api/{*rest}", "other"),
        ] {
            assert_eq!(kind(line), expected, "{line}");
        }
        let of_path = |method, path| Kind::of(&method, None, path).as_str();
        assert_eq!(of_path(Method::GET, "/pkg/hark.css"), "file");
        assert_eq!(of_path(Method::GET, "/nothing"), "other");
        assert_eq!(of_path(Method::POST, "/pkg/hark.css"), "other");
    }
}
