//! How the browser that sent a request reaches this node: the beginning of links that are handed out, and the host that
//! redirects must stay on.

use crate::server::keys::Https;
use axum::http::{HeaderMap, Uri, header};

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
