//! Identifies the owner of a request by a signed cookie. The cookie is set on answers that no cache may keep, renewed
//! while it is used, and never replaced by another owner's unless the user asks for it. [`identify`] wraps all routes
//! that have a caller. This module also has the cookies that carry a new link or recovery key to the next page.

use crate::{
    model::Timestamp,
    server::{
        identity::{LINK_SECS, LinkKey, NewLink},
        keys::{CookieKeys, Https, cookie, removal, set_cookie},
        owner::Owner,
        state::AppState,
    },
};
use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderMap, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use cookie::{Cookie, time::Duration};

/// The name of the owner's cookie, before the hash of its key.
const PURPOSE: &str = "hark_owner";
/// The names, before the hash of the key, of the cookies that carry a new link and a new recovery key to the page that
/// shows them.
const LINK: &str = "hark_link";
const RECOVERY: &str = "hark_recovery";
/// How long browsers keep the cookie. They keep none for more than 400 days (RFC 6265bis, 5.5).
const MAX_AGE: Duration = Duration::days(400);
/// A cookie that is older than this is renewed, so that somebody who comes once a year is still known.
const RENEW_AFTER: Duration = Duration::days(30);

/// The page whose visitors need a cookie, because without one nobody could find their recordings again.
const UPLOAD_PAGE: &str = "/upload";
/// The query that is added to its address when the cookie was set and should come back.
const PROBED_QUERY: &str = "cookies=set";

/// What is known about the caller besides the owner. Put into every request by [`identify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whether the request had a valid cookie. If not, the owner was made for this request and has no history.
    pub known: bool,
}

/// Reads the owner from the cookie or makes a new one, puts it into the request, and sets the cookie if it is missing
/// or old.
pub async fn identify(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let (keys, https) = (&state.cookie_keys, Https::of(request.headers()));
    let name = keys.name(PURPOSE, https);
    let now = Timestamp::now();
    let found = keys.signed(request.headers(), PURPOSE).into_iter().find_map(|signed| {
        let (owner, issued) = read(&signed.value)?;
        let old = issued.is_none_or(|at| now.seconds_since(at) > RENEW_AFTER.as_seconds_f64());
        Some((owner, old || signed.name != name))
    });
    let known = found.is_some();
    let (owner, is_due) = found.unwrap_or_else(|| (Owner::fresh(), true));
    request.extensions_mut().insert(owner.clone());
    request.extensions_mut().insert(Identity { known });
    let mut response = next.run(request).await;
    let status = response.status();
    // A caller without a cookie whose request fails doesn't need one yet.
    let needs_cookie = is_due && (known || status.is_success() || status.is_redirection());
    if needs_cookie && is_private(response.headers()) && !sets_cookie(response.headers(), &name) {
        set_cookie(response.headers_mut(), &owner_cookie(keys, &owner, https, now));
    }
    response
}

/// Finds out whether a browser accepts cookies before it sends a recording, also without scripts: a visitor of the
/// upload page without a cookie is given one and redirected to the page again.
pub async fn probe_cookies(Extension(identity): Extension<Identity>, request: Request, next: Next) -> Response {
    let accept = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let asks_for_page =
        request.method() == Method::GET && request.uri().path() == UPLOAD_PAGE && accept.contains("text/html");
    match (identity.known, has_probed_cookies(request.uri())) {
        (false, false) if asks_for_page => probe(),
        (true, true) if asks_for_page => redirect_to(UPLOAD_PAGE),
        _ => next.run(request).await,
    }
}

/// Whether an earlier answer has set the cookie, so that a browser that accepts cookies would have sent it.
#[must_use]
pub fn has_probed_cookies(uri: &Uri) -> bool {
    uri.path() != UPLOAD_PAGE || uri.query() == Some(PROBED_QUERY)
}

/// The answer to a browser without a cookie that wants to send a recording: a redirect to the upload page, which says
/// what is wrong if the browser doesn't send back the cookie that is set with this answer.
#[must_use]
pub fn probe() -> Response {
    redirect_to(&format!("{UPLOAD_PAGE}?{PROBED_QUERY}"))
}

fn redirect_to(page: &str) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Redirect::to(page)).into_response()
}

/// The owner in a cookie's value, and when the cookie was set. Old cookies have only the owner, which has no dot. None
/// if the value is something else that was signed with the same key.
fn read(value: &str) -> Option<(Owner, Option<Timestamp>)> {
    if value.contains(':') {
        return None;
    }
    let parts = value.rsplit_once('.').and_then(|(owner, secs)| Some((owner, secs.parse::<u32>().ok()?)));
    Some(match parts {
        Some((owner, secs)) => (Owner::from_store(owner.to_owned()), Some(Timestamp(i64::from(secs) * 1000))),
        None => (Owner::from_store(value.to_owned()), None),
    })
}

fn owner_cookie(keys: &CookieKeys, owner: &Owner, https: Https, now: Timestamp) -> Cookie<'static> {
    let value = keys.sign(&format!("{}.{}", owner.as_str(), now.0 / 1000));
    let mut cookie = cookie(keys.name(PURPOSE, https), value, https);
    cookie.set_max_age(MAX_AGE);
    cookie
}

/// Whether an answer may set the owner's cookie: no cache may keep it for others, and it isn't immutable, because
/// browsers don't ask for such an answer again.
fn is_private(headers: &HeaderMap) -> bool {
    let control = headers.get(header::CACHE_CONTROL).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let has = |directive: &str| control.split(',').any(|part| part.trim().eq_ignore_ascii_case(directive));
    (has("private") || has("no-store")) && !has("public") && !has("immutable")
}

/// Whether an answer already sets this cookie.
fn sets_cookie(headers: &HeaderMap, name: &str) -> bool {
    let begins = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
    headers.get_all(header::SET_COOKIE).iter().any(|line| line.to_str().is_ok_and(begins))
}

/// The cookies that make `owner` the browser's owner, in place of the previous one.
#[must_use]
pub fn switch_cookies(keys: &CookieKeys, request: &HeaderMap, owner: &Owner) -> Vec<Cookie<'static>> {
    let https = Https::of(request);
    let name = keys.name(PURPOSE, https);
    // The others are removed, because the browser would become that owner again if this cookie were lost.
    let others = removal_cookies(keys, request).into_iter().filter(|cookie| cookie.name() != name);
    others.chain([owner_cookie(keys, owner, https, Timestamp::now())]).collect()
}

/// The cookies that remove the owner's cookies from the browser. Cookies of other keys stay.
#[must_use]
pub fn removal_cookies(keys: &CookieKeys, request: &HeaderMap) -> Vec<Cookie<'static>> {
    let mut names: Vec<String> = keys.signed(request, PURPOSE).into_iter().map(|signed| signed.name).collect();
    let name = keys.name(PURPOSE, Https::of(request));
    if !names.contains(&name) {
        names.push(name);
    }
    names.into_iter().map(removal).collect()
}

/// The cookie that lets the page show a new link until it expires.
#[must_use]
pub fn link_cookie(made: &NewLink, keys: &CookieKeys, request: &HeaderMap) -> Cookie<'static> {
    let text = serde_json::to_string(made).unwrap_or_default();
    let mut cookie = keys.sealed(LINK, &text, request);
    cookie.set_max_age(Duration::seconds(LINK_SECS as i64));
    cookie
}

/// The link that the request's cookie holds.
#[must_use]
pub fn link_from_cookie(keys: &CookieKeys, request: &HeaderMap) -> Option<NewLink> {
    serde_json::from_str(&keys.unsealed(request, LINK)?).ok()
}

/// The cookie that lets the next page show a new recovery key, once.
#[must_use]
pub fn recovery_key_cookie(key: &LinkKey, keys: &CookieKeys, request: &HeaderMap) -> Cookie<'static> {
    keys.sealed(RECOVERY, key.reveal(), request)
}

/// The recovery key that was just made, and the cookie that removes it from the browser.
#[must_use]
pub fn recovery_key(keys: &CookieKeys, request: &HeaderMap) -> Option<(LinkKey, Cookie<'static>)> {
    let key = LinkKey::parse(&keys.unsealed(request, RECOVERY)?)?;
    Some((key, keys.removal(RECOVERY, request)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CACHE_CONTROL, axum::http::HeaderValue::from_static(value))])
    }

    #[test]
    fn only_answers_that_no_cache_keeps_are_private() {
        for value in ["private, no-cache", "no-store", "no-cache, no-store, no-transform"] {
            assert!(is_private(&control(value)), "{value}");
        }
        for value in ["public, max-age=31536000, immutable", "private, max-age=31536000, immutable", "no-cache", ""] {
            assert!(!is_private(&control(value)), "{value}");
        }
        assert!(!is_private(&HeaderMap::new()));
    }

    #[test]
    fn old_and_new_cookie_values_are_read() {
        let (owner, issued) = read("0af3.1700000000").unwrap();
        assert_eq!((owner.as_str(), issued), ("0af3", Some(Timestamp(1_700_000_000_000))));
        assert_eq!(read("0af3"), Some((Owner::from_store("0af3".to_owned()), None)));
        assert_eq!(read("a.b").unwrap().0.as_str(), "a.b");
        assert_eq!(read("leave:0af3.1700000000"), None);
    }
}
