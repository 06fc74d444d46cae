//! How the browser that sent a request reaches this node: the beginning of links that are handed out, and the host that
//! redirects must stay on.

use crate::server::keys::Https;
use axum::http::{HeaderMap, Uri, header};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The host that a request names: in its target with HTTP/2, in the `Host` header before.
#[must_use]
pub fn host(target: &Uri, headers: &HeaderMap) -> Option<String> {
    let target = target.authority().map(ToString::to_string);
    target.or_else(|| Some(headers.get(header::HOST)?.to_str().ok()?.to_owned()))
}

/// Scheme and host as in the browser's address bar.
#[must_use]
pub fn site(target: &Uri, headers: &HeaderMap) -> String {
    let scheme = if Https::of(headers).0 { "https" } else { "http" };
    format!("{scheme}://{}", host(target, headers).unwrap_or_default())
}

/// Says in the log, once, that a proxy takes a prefix off the paths of requests. Those that do without saying so can't be
/// seen from here; `hark doctor URL` finds them.
pub fn warn_of_prefix(headers: &HeaderMap) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let prefix = headers.get("x-forwarded-prefix").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !prefix.trim_matches('/').is_empty() && !WARNED.swap(true, Relaxed) {
        tracing::warn!(
            "a proxy serves Hark below '{}' (X-Forwarded-Prefix), where its pages can't find their files: give Hark a host \
             name of its own, as docs/deploy.md says, and let the proxy pass paths on unchanged",
            prefix.chars().take(100).collect::<String>()
        );
    }
}
