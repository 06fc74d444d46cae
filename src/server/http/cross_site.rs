//! Protection against forms of other sites, and what the log and the answer say where a proxy in front makes Hark's own
//! pages look like another site, because it passes its own name on as `Host`. `router` and `admin` put it around what changes
//! something; `guard` asks it about hosts that aren't allowed.

use super::site;
use crate::server::{
    config::AllowedHost,
    error::{Error, HOST_REMEDY},
    state::AppState,
};
use axum::{
    Json, Router,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tower_http::csrf::{CsrfLayer, ProtectionError, ProtectionErrorKind};

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The log has one line about proxies in this time: strangers can send such requests, too.
const INTERVAL: Duration = Duration::from_secs(600);
/// How much of a header is shown, in characters. A host name has 253 at most (RFC 1035).
const MAX_SHOWN: usize = 300;
/// Refuses what pages of other sites send to these routes.
pub fn protect(routes: Router<AppState>) -> Router<AppState> {
    routes.layer(CsrfLayer::new()).layer(middleware::from_fn(explain))
}

/// Gives a refusal its reason.
async fn explain(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let path = request.uri().path();
    // Server functions send the error itself.
    let bare = path.starts_with("/api/") && !path.starts_with("/api/v1/");
    let asked = Asked::of(&request);
    let response = next.run(request).await;
    let Some(kind) = response.extensions().get().map(ProtectionError::kind) else { return response };
    // A browser that says where a request comes from needs no `Host` for that.
    let by_host = kind == ProtectionErrorKind::CrossOriginRequestFromOldBrowser;
    if by_host {
        warn_of_proxy(&asked);
    }
    let error = Error::CrossSite { origin: asked.origin, host: by_host.then_some(asked.host) };
    if bare { (error.status_code(), Json(error.public())).into_response() } else { error.into_response() }
}

/// What a request says of where it comes from and where it goes.
#[derive(Debug)]
struct Asked {
    origin: String,
    host: String,
    forwarded_host: Option<String>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let headers = request.headers();
        Self {
            origin: shown(headers.get(header::ORIGIN)).unwrap_or_default(),
            host: site::host(request.uri(), headers).unwrap_or_default(),
            forwarded_host: shown(headers.get(FORWARDED_HOST)),
        }
    }

    /// Whether the proxy itself says that the browser asked for the host that the form comes from.
    fn is_changed_host(&self) -> bool {
        let host = self.origin.split_once("://").map_or("", |(_, host)| host);
        let first = self.forwarded_host.as_deref().map(|hosts| hosts.split(',').next().unwrap_or_default().trim());
        !host.is_empty() && first.is_some_and(|first| first.eq_ignore_ascii_case(host))
    }
}

/// A header for people, without what a terminal would obey.
fn shown(value: Option<&HeaderValue>) -> Option<String> {
    Some(value?.to_str().ok()?.chars().take(MAX_SHOWN).collect())
}

/// Whether the log may have another line about proxies.
fn may_warn() -> bool {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let due = last.is_none_or(|at| at.elapsed() >= INTERVAL);
    if due {
        *last = Some(Instant::now());
    }
    due
}

fn warn_of_proxy(asked: &Asked) {
    if !may_warn() {
        return;
    }
    let Asked { origin, host, forwarded_host } = asked;
    let forwarded = forwarded_host.as_deref().unwrap_or("none");
    let cause = if asked.is_changed_host() {
        "The proxy in front of Hark changes Host".to_owned()
    } else {
        format!("If {origin} is the address of this Hark, the proxy in front of it changes Host")
    };
    tracing::warn!(
        %origin,
        %host,
        x_forwarded_host = %forwarded,
        "a form or an upload was refused because it seems to come from another site: Origin is '{origin}', Host is '{host}', \
         X-Forwarded-Host is '{forwarded}'. {cause}; let it pass Host on as the browser sends it, with {HOST_REMEDY}. \
         'hark doctor URL' finds the place. Further ones within {} minutes aren't logged",
        INTERVAL.as_secs() / 60
    );
}

/// Says in the log that a request was refused for its `Host`, if the proxy in front says that the browser asked for an
/// allowed one.
pub fn warn_of_host(headers: &HeaderMap, host: &str, allowed: &[AllowedHost]) {
    let Some(forwarded) = shown(headers.get(FORWARDED_HOST)) else { return };
    let first = forwarded.split(',').next().unwrap_or_default().trim().parse::<Authority>();
    if first.is_ok_and(|first| allowed.iter().any(|host| host.matches(&first))) && may_warn() {
        tracing::warn!(
            %host,
            x_forwarded_host = %forwarded,
            "a request was refused because HARK_HOSTS doesn't have its Host, '{host}'. The proxy in front of Hark changes Host: \
             its X-Forwarded-Host is '{forwarded}'. Let it pass Host on as the browser sends it, with {HOST_REMEDY}. Further ones \
             within {} minutes aren't logged",
            INTERVAL.as_secs() / 60
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_changes_host_is_told_from_a_stranger() {
        let changed = |origin: &str, forwarded: Option<&str>| {
            let asked = Asked {
                origin: origin.to_owned(),
                host: "hark:3000".to_owned(),
                forwarded_host: forwarded.map(str::to_owned),
            };
            asked.is_changed_host()
        };
        assert!(changed("http://hark.example.org", Some("hark.example.org")));
        assert!(changed("http://hark.example.org:8080", Some("Hark.example.org:8080, inner")));
        assert!(!changed("http://evil.example", Some("hark.example.org")));
        assert!(!changed("http://hark.example.org", None));
        assert!(!changed("null", Some("null")) && !changed("", Some("")));
    }
}
