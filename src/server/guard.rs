//! Checks of every request, whatever its route: a method that Hark knows, exactly one host and an allowed one, a body
//! within its limits. It also adds the headers that every answer has, and has `requests` count it. `router` wraps all routes
//! in it.

use super::{
    body::{Fault, LimitedBody, TrackedBody},
    config::is_host,
    error::Error,
    http::{self, BodyLimit, cross_site},
    requests::Counted,
    state::AppState,
    stream::Peer,
};
use axum::{
    Json,
    body::{Body, HttpBody},
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header,
        uri::{Authority, Uri},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// The paths that monitoring programs may request under any host name.
const MONITORING: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/api/v1/health/sessions"];
/// Browser features that the pages don't use.
const PERMISSIONS: &str = "camera=(), display-capture=(), geolocation=(), hid=(), microphone=(), midi=(), payment=(), \
    publickey-credentials-get=(), serial=(), usb=()";
const COOP: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// Checks a request, passes it on with limits on its body, and adds the headers of every answer.
pub async fn guard(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let https = is_https(request.headers());
    let version = request.version();
    let (parts, body) = request.into_parts();
    let (body, read) = TrackedBody::new(body);
    let mut request = Request::from_parts(parts, Body::new(body));
    let counted = Counted::begin(&mut request);
    let mut response = match check(&state, &request) {
        Ok(()) => forward(&state, request, next).await,
        Err(error) => refuse(error, false),
    };
    if response.status() == StatusCode::METHOD_NOT_ALLOWED && response.body().size_hint().exact() == Some(0) {
        // The router's own answer has no error in its body. It adds the methods that this address takes afterwards, where
        // none are named.
        response = refuse(Error::MethodNotAllowed, false);
        response.headers_mut().remove(header::ALLOW);
    }
    if version < Version::HTTP_2 && !read.load(Relaxed) {
        // The connection ends after the rest of the body was thrown away (RFC 9112, 9.3). Without this header the
        // client would send its next request on it.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    add_headers(response.headers_mut(), https.then_some(state.settings.http.hsts_secs));
    counted.answered(response)
}

fn check(state: &AppState, request: &Request) -> Result<(), Error> {
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    if !known.contains(request.method()) {
        return Err(Error::MethodNotAllowed);
    }
    let asked = host(request.version(), request.uri(), request.headers())?;
    let hosts = &state.settings.http.hosts;
    if hosts.is_empty() || MONITORING.contains(&request.uri().path()) {
        return Ok(());
    }
    match asked {
        Some(asked) if hosts.iter().any(|host| host.matches(&asked)) => Ok(()),
        asked => {
            let asked = asked.map(|asked| asked.to_string()).unwrap_or_default();
            cross_site::warn_of_host(request.headers(), &asked, hosts);
            Err(Error::UnknownHost)
        }
    }
}

/// The host that a request is for. RFC 9112, 3.2: an HTTP/1.1 request has exactly one `Host` header, which a target
/// with a host overrides.
fn host(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, Error> {
    let mut lines = headers.get_all(header::HOST).iter();
    let (line, second) = (lines.next(), lines.next());
    if second.is_some() || (line.is_none() && version == Version::HTTP_11) {
        return Err(Error::BadRequest("Send exactly one Host header with each request.".to_owned()));
    }
    let malformed = || Error::BadRequest("The Host header isn't a host with or without a port.".to_owned());
    let named = match line {
        None => None,
        Some(value) if value.is_empty() => None,
        Some(value) => Some(value.to_str().ok().and_then(|text| text.parse::<Authority>().ok()).ok_or_else(malformed)?),
    };
    let asked = uri.authority().cloned().or(named);
    match asked {
        Some(asked) if !is_host(&asked) => Err(malformed()),
        asked => Ok(asked),
    }
}

async fn forward(state: &AppState, request: Request, next: Next) -> Response {
    let path = request.extensions().get().map_or("", MatchedPath::as_str);
    let (limit, message) = match http::body_limit(request.method(), path, request.headers()) {
        BodyLimit::Small => (state.settings.http.max_body_bytes.into(), false),
        BodyLimit::Message(limit) => (limit, true),
        // `http::upload` and `resumable` apply the limits.
        BodyLimit::Upload => {
            expect_upload(state, &request);
            return next.run(request).await;
        }
    };
    let too_large = || if message { Error::MessageTooLarge { limit } } else { Error::RequestTooLarge { limit } };
    let form = path.starts_with("/api/") && !path.starts_with("/api/v1/");
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    if request.body().size_hint().lower() > limit {
        return refuse(too_large(), form);
    }
    let secs = state.settings.http.body_secs;
    let (parts, body) = request.into_parts();
    let (body, faults) = LimitedBody::new(body, limit, Duration::from_secs(secs.into()));
    let response = next.run(Request::from_parts(parts, Body::new(body))).await;
    match faults.get() {
        Some(Fault::TooLarge) => refuse(too_large(), form),
        Some(Fault::TooSlow) => refuse(Error::RequestTooSlow { secs }, form),
        _ => response,
    }
}

/// Tells the connection how much the client of an upload will send even if it is refused.
fn expect_upload(state: &AppState, request: &Request) {
    let limit = state.sessions.limits.max_upload_bytes.saturating_add(http::FORM_BYTES);
    let bytes = request.body().size_hint().exact().filter(|bytes| *bytes <= limit);
    if let Some(peer) = request.extensions().get::<Arc<Peer>>() {
        peer.expect_upload(bytes.unwrap_or(0));
    }
}

/// The answer to a refused request. Server functions send the error itself, not within `{"error": …}`.
fn refuse(error: Error, bare: bool) -> Response {
    let mut response =
        if bare { (error.status_code(), Json(error.public())).into_response() } else { error.into_response() };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether the client used https, as the proxy in front says. A client that forges the header affects only itself:
/// browsers obey the answer's header only over https (RFC 6797, 8.1).
fn is_https(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// Adds the headers that every answer with a body has.
pub(super) fn add_headers(headers: &mut HeaderMap, hsts_secs: Option<u32>) {
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "same-origin");
    set(COOP, "same-origin");
    set(CORP, "same-origin");
    set(PERMISSIONS_POLICY, PERMISSIONS);
    if let Some(secs) = hsts_secs.filter(|secs| *secs > 0)
        && let Ok(value) = HeaderValue::try_from(format!("max-age={secs}"))
    {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(version: Version, target: &str, hosts: &[&str]) -> Result<Option<String>, StatusCode> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        host(version, &target.parse().unwrap(), &headers)
            .map(|asked| asked.map(|asked| asked.to_string()))
            .map_err(|error| error.status_code())
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        let bad = Err(StatusCode::BAD_REQUEST);
        assert_eq!(asked(one, "/", &["a:3000"]), Ok(Some("a:3000".to_owned())));
        assert_eq!(asked(one, "/", &["[::1]:3000"]), Ok(Some("[::1]:3000".to_owned())));
        assert_eq!(asked(one, "http://b/", &["a"]), Ok(Some("b".to_owned())));
        assert_eq!(asked(one, "/", &[""]), Ok(None));
        assert_eq!(asked(Version::HTTP_10, "/", &[]), Ok(None));
        assert_eq!(asked(two, "http://a/", &[]), Ok(Some("a".to_owned())));
        for hosts in [&[][..], &["a", "a"], &["a", "b"], &["a b"], &["user@a"], &["a/b"], &["a:port"], &["a:"]] {
            assert_eq!(asked(one, "/", hosts), bad, "{hosts:?}");
        }
        assert_eq!(asked(Version::HTTP_10, "/", &["a", "b"]), bad);
        assert_eq!(asked(two, "http://a/", &["a", "b"]), bad);
    }
}
