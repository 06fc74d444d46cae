//! Shows on the next page, once, why a form failed that was sent without scripts. The error is kept in an encrypted
//! cookie, never in an address, where anybody could write one; Leptos itself would put it into the address of the
//! form's page. [`handle_notices`] wraps all pages and server functions.

use super::{identity::cookies, site::host};
use crate::{
    model::{ApiError, text},
    server::{
        error::Error,
        keys::{CookieKeys, set_cookie},
        state::AppState,
    },
};
use axum::{
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use cookie::time::Duration;
use serde::{Deserialize, Serialize};

/// The cookie's name, before the hash of its key.
const PURPOSE: &str = "hark_notice";
/// How long a notice waits for its page to be opened.
const MAX_AGE: Duration = Duration::minutes(5);
/// The longest message in a cookie, in characters: a cookie may have 4096 bytes (RFC 6265bis, 5.6).
const MAX_CHARS: usize = 400;
/// The largest error that a server function answers with, in bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// The header by which a server function says that it failed: `server_fn::error::SERVER_FN_ERROR_HEADER`.
const ERROR_HEADER: &str = "serverfnerror";
/// The query parameters in which Leptos passes errors of forms.
const LEPTOS_ERROR: [&str; 2] = ["__path", "__err"];
/// The state of [`handle_notices`].
#[derive(Clone)]
pub struct Forms {
    pub state: AppState,
    /// The path of each form that is on one page only, with that page.
    pub pages: &'static [(&'static str, &'static str)],
}

/// Why a form failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The path to which the form was sent.
    pub form: String,
    pub error: ApiError,
}

impl Notice {
    /// The answer to a browser whose form failed: a redirect to the page `to`, which will show the error.
    #[must_use]
    pub fn redirect_to(mut self, to: &str, keys: &CookieKeys, request: &HeaderMap) -> Response {
        if self.error.message.chars().count() > MAX_CHARS {
            self.error.message = self.error.message.chars().take(MAX_CHARS).chain(['…']).collect();
        }
        let mut response = Redirect::to(to).into_response();
        if let Ok(text) = serde_json::to_string(&self) {
            let mut cookie = keys.sealed(PURPOSE, &text, request);
            cookie.set_max_age(MAX_AGE);
            set_cookie(response.headers_mut(), &cookie);
        }
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn read(keys: &CookieKeys, headers: &HeaderMap) -> Option<Self> {
        serde_json::from_str(&keys.unsealed(headers, PURPOSE)?).ok()
    }
}

/// Puts the [`Notice`] for a page into its request, and removes the cookie once the page was rendered. Makes a notice
/// of the error of each form that fails, and keeps all redirects of server functions within this site.
pub async fn handle_notices(State(forms): State<Forms>, mut request: Request, next: Next) -> Response {
    let (keys, headers) = (&forms.state.cookie_keys, request.headers().clone());
    let api = request.uri().path().starts_with("/api/");
    let page = !api && request.method() == Method::GET;
    if page && let Some(clean) = without_leptos_error(request.uri()) {
        return Redirect::to(&clean).into_response();
    }
    let host = host(request.uri(), request.headers());
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let form = accept.contains("text/html");
    let referer_path =
        request.headers().get(header::REFERER).and_then(|v| local_path(v.to_str().ok()?, host.as_deref()));
    let notice = if page { Notice::read(keys, request.headers()) } else { None };
    let has_notice = notice.is_some();
    if let Some(notice) = notice {
        request.extensions_mut().insert(notice);
    }
    let mut response = next.run(request).await;
    if api && response.headers().contains_key(ERROR_HEADER) && response.status().is_server_error() {
        response = with_status_of_error(response).await;
    }
    if has_notice && is_html(response.headers()) {
        set_cookie(response.headers_mut(), &keys.removal(PURPOSE, &headers));
    }
    if api && response.headers().contains_key(header::LOCATION) {
        let page_of =
            |path: &str| forms.pages.iter().find(|(form, _)| *form == path).map(|(_, page)| (*page).to_owned());
        return keep_local(response, form, referer_path, host.as_deref(), keys, &headers, page_of).await;
    }
    response
}

/// The answer of a server function whose arguments couldn't be read, with the status for that: Leptos gives 500 to every
/// failure before a function runs.
async fn with_status_of_error(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    // Without a body if it is longer than any error.
    let body = to_bytes(body, MAX_ERROR_BYTES).await.unwrap_or_default();
    let malformed = Error::BadRequest(String::new());
    if serde_json::from_slice::<ApiError>(&body).is_ok_and(|error| error.code == malformed.code()) {
        parts.status = malformed.status_code();
    }
    Response::from_parts(parts, body.into())
}

/// Rewrites an answer that redirects, so that it leads to a page of this site; with the error in a cookie if there is
/// one.
async fn keep_local(
    response: Response,
    is_form: bool,
    referer_path: Option<String>,
    host: Option<&str>,
    keys: &CookieKeys,
    request: &HeaderMap,
    page_of: impl Fn(&str) -> Option<String>,
) -> Response {
    let (mut parts, body) = response.into_parts();
    let failed = parts.headers.get(ERROR_HEADER).filter(|_| is_form).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let Some(form) = failed else {
        let to = parts.headers.get(header::LOCATION).and_then(|v| local_path(v.to_str().ok()?, host));
        let to = HeaderValue::try_from(to.unwrap_or_else(|| "/".to_owned()));
        parts.headers.insert(header::LOCATION, to.unwrap_or_else(|_| HeaderValue::from_static("/")));
        return Response::from_parts(parts, body);
    };
    let error = to_bytes(body, MAX_ERROR_BYTES).await.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let error = error.unwrap_or_else(|| ApiError::new("internal", "Something went wrong. Try again."));
    let mut answer = if error.code == Error::CookiesBlocked.code() {
        // A notice needs a cookie, and the browser blocks them; the upload page shows this error without one.
        cookies::probe()
    } else {
        let page = page_of(&form).or(referer_path).unwrap_or_else(|| "/".to_owned());
        Notice { form, error }.redirect_to(&page, keys, request)
    };
    for cookie in parts.headers.get_all(header::SET_COOKIE) {
        answer.headers_mut().append(header::SET_COOKIE, cookie.clone());
    }
    answer
}

/// The path and query of an address on this host, without Leptos' error parameters. None if it leads to another host.
fn local_path(address: &str, host: Option<&str>) -> Option<String> {
    // Browsers treat a backslash as a slash, and a host follows two slashes.
    let bytes = address.as_bytes();
    if bytes.first() == Some(&b'/') && !matches!(bytes.get(1), Some(b'/' | b'\\')) && !address.contains('\\') {
        let uri: Uri = address.parse().ok()?;
        let clean = without_leptos_error(&uri).unwrap_or_else(|| address.to_owned());
        // Server functions leave the question mark of an empty query.
        return Some(clean.strip_suffix('?').map(str::to_owned).unwrap_or(clean));
    }
    let uri: Uri = address.parse().ok()?;
    let ours = matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().map(|a| a.as_str()) == host;
    let path = uri.path_and_query().filter(|_| ours)?.as_str().to_owned();
    local_path(&path, None)
}

/// A page's address without Leptos' error parameters; none if it has none.
fn without_leptos_error(uri: &Uri) -> Option<String> {
    let is_error = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        // Names may be percent-encoded.
        let name = text::percent_decode(name);
        LEPTOS_ERROR.iter().any(|error| name == *error)
    };
    let query = uri.query()?;
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_error(pair)).collect();
    if rest.len() == query.split('&').count() {
        return None;
    }
    let path = uri.path();
    // Such a path would lead to another host.
    let path = if path.starts_with("//") || path.contains('\\') { "/" } else { path };
    Some(if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) })
}

fn is_html(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    #[test]
    fn redirects_stay_on_this_host() {
        let local_path = |address| local_path(address, Some("hark.example:3000"));
        for (address, path) in [
            ("http://hark.example:3000/", "/"),
            ("https://hark.example:3000/sessions/1?reload=off", "/sessions/1?reload=off"),
            ("http://hark.example:3000/?q=a&__path=x&__err=y", "/?q=a"),
            ("/sessions/1", "/sessions/1"),
            ("/?__err=x", "/"),
            ("/sessions/1?", "/sessions/1"),
        ] {
            assert_eq!(local_path(address).as_deref(), Some(path), "{address}");
        }
        for address in [
            "https://evil.example/",
            "http://hark.example/",
            "http://hark.example:3000@evil.example/",
            "http://hark.example:3000//evil.example",
            "//evil.example/",
            "/\\evil.example/",
            "\\\\evil.example",
            "javascript:alert(1)",
            "",
        ] {
            assert_eq!(local_path(address), None, "{address}");
        }
    }

    #[test]
    fn error_parameters_are_removed_from_addresses() {
        let clean = |uri: &str| without_leptos_error(&uri.parse().unwrap());
        assert_eq!(clean("/?q=a").as_deref(), None);
        assert_eq!(clean("/?q=__err").as_deref(), None);
        assert_eq!(clean("/?__path=x&__err=y").as_deref(), Some("/"));
        assert_eq!(clean("/a?x=1&__path=x&q=%26&%5F_err=y").as_deref(), Some("/a?x=1&q=%26"));
        assert_eq!(clean("//evil.example?__err=y").as_deref(), Some("/"));
    }

    #[test]
    fn a_long_message_fits_into_a_cookie() {
        let keys = CookieKeys::one(&[7; 64]).unwrap();
        let notice = Notice { form: "/api/x".to_owned(), error: ApiError::new("code", "\u{1}🦀".repeat(3000)) };
        let answer = notice.redirect_to(
            "/",
            &keys,
            &HeaderMap::from_iter([("x-forwarded-proto".parse().unwrap(), HeaderValue::from_static("https"))]),
        );
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let set = answer.headers()[header::SET_COOKIE].to_str().unwrap();
        let pair = set.split(';').next().unwrap();
        assert!(pair.len() < 4096, "{}", pair.len());
        let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(pair).unwrap())]);
        let shown = Notice::read(&keys, &headers).unwrap();
        assert!(shown.error.message.ends_with('…') && shown.error.message.chars().count() == MAX_CHARS + 1);
    }
}
