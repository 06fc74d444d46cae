//! Who a request comes from, by a signed cookie. It is set on answers that no cache may keep, renewed while it is used, and
//! never replaced by another owner's without being asked. [`identify`] is around all routes that have a caller. Also the
//! cookies that take a new link or recovery key from one page to the next.

use crate::{
    model::Timestamp,
    server::{
        identity::{LINK_SECS, LinkKey, MadeLink},
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

/// What the owner's cookie is called, before its key.
const PURPOSE: &str = "hark_owner";
/// What the cookies are called, before their key, that hold a new link and a new recovery key for the page that shows
/// them.
const LINK: &str = "hark_link";
const RECOVERY: &str = "hark_recovery";
/// How long browsers keep the cookie: no more than 400 days, whatever it says (RFC 6265bis, 5.5).
const MAX_AGE: Duration = Duration::days(400);
/// A cookie that was set longer ago is set anew, so that who comes once a year is still known.
const RENEW_AFTER: Duration = Duration::days(30);

/// The page whose visitors must have a cookie, or what they send would be nobody's.
const UPLOAD_PAGE: &str = "/upload";
/// What is added to its address when the cookie has been set and should have come back.
const PROBED: &str = "cookies=set";

/// What is known of the caller besides the owner. Put into every request by [`identify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whether a valid cookie named the owner. If not, the owner was made for this request and has no history.
    pub known: bool,
}

/// Finds the caller's owner or makes one, puts it into the request, and sets the cookie where it is missing or old.
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
    let (owner, due) = found.unwrap_or_else(|| (Owner::fresh(), true));
    request.extensions_mut().insert(owner.clone());
    request.extensions_mut().insert(Identity { known });
    let mut response = next.run(request).await;
    let status = response.status();
    // Who is told that there is nothing needs no name for it.
    let wanted = due && (known || status.is_success() || status.is_redirection());
    if wanted && is_private(response.headers()) && !sets(response.headers(), &name) {
        set_cookie(response.headers_mut(), &owner_cookie(keys, &owner, https, now));
    }
    response
}

/// Finds out whether a browser keeps cookies before it sends a recording, also without scripts: who comes to the upload
/// page without one is given it and led there once more.
pub async fn probe_cookies(Extension(identity): Extension<Identity>, request: Request, next: Next) -> Response {
    let accept = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let asks = request.method() == Method::GET && request.uri().path() == UPLOAD_PAGE && accept.contains("text/html");
    match (identity.known, has_probed_cookies(request.uri())) {
        (false, false) if asks => probe(),
        (true, true) if asks => leading_to(UPLOAD_PAGE),
        _ => next.run(request).await,
    }
}

/// Whether the cookie was set before this request, if the browser lets it: by the page that asks for something, or on the
/// way to the upload page.
#[must_use]
pub fn has_probed_cookies(uri: &Uri) -> bool {
    uri.path() != UPLOAD_PAGE || uri.query() == Some(PROBED)
}

/// The answer to a browser without a cookie that wants to send a recording: the upload page, which will say what is wrong
/// if the cookie that comes with this answer isn't kept.
#[must_use]
pub fn probe() -> Response {
    leading_to(&format!("{UPLOAD_PAGE}?{PROBED}"))
}

fn leading_to(page: &str) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Redirect::to(page)).into_response()
}

/// The owner in the value of a cookie, and when it was set. Before cookies were renewed there was only the owner, which
/// has no dot. None if something else was signed.
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

/// Whether no cache may keep an answer for others: only then it may say who somebody is. What never changes isn't asked
/// for again, so it is no place for news either.
fn is_private(headers: &HeaderMap) -> bool {
    let control = headers.get(header::CACHE_CONTROL).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let has = |directive: &str| control.split(',').any(|part| part.trim().eq_ignore_ascii_case(directive));
    (has("private") || has("no-store")) && !has("public") && !has("immutable")
}

/// Whether an answer sets this cookie already.
fn sets(headers: &HeaderMap, name: &str) -> bool {
    let begins = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
    headers.get_all(header::SET_COOKIE).iter().any(|line| line.to_str().is_ok_and(begins))
}

/// The cookies that make the browser take `owner` for its own, in place of whoever it was.
#[must_use]
pub fn taking_over(keys: &CookieKeys, request: &HeaderMap, owner: &Owner) -> Vec<Cookie<'static>> {
    let https = Https::of(request);
    let name = keys.name(PURPOSE, https);
    // The others would be what it is again if this one were lost.
    let others = forgetting(keys, request).into_iter().filter(|cookie| cookie.name() != name);
    others.chain([owner_cookie(keys, owner, https, Timestamp::now())]).collect()
}

/// The cookies that make the browser forget who it was. Those of other keys stay.
#[must_use]
pub fn forgetting(keys: &CookieKeys, request: &HeaderMap) -> Vec<Cookie<'static>> {
    let mut names: Vec<String> = keys.signed(request, PURPOSE).into_iter().map(|signed| signed.name).collect();
    let name = keys.name(PURPOSE, Https::of(request));
    if !names.contains(&name) {
        names.push(name);
    }
    names.into_iter().map(removal).collect()
}

/// The cookie that lets the page show a new link until it expires.
#[must_use]
pub fn of_link(made: &MadeLink, keys: &CookieKeys, request: &HeaderMap) -> Cookie<'static> {
    let text = serde_json::to_string(made).unwrap_or_default();
    let mut cookie = keys.sealed(LINK, &text, request);
    cookie.set_max_age(Duration::seconds(LINK_SECS as i64));
    cookie
}

/// The link that the request's cookie holds.
#[must_use]
pub fn link(keys: &CookieKeys, request: &HeaderMap) -> Option<MadeLink> {
    serde_json::from_str(&keys.unsealed(request, LINK)?).ok()
}

/// The cookie that lets the next page show a new recovery key, once.
#[must_use]
pub fn of_recovery_key(key: &LinkKey, keys: &CookieKeys, request: &HeaderMap) -> Cookie<'static> {
    keys.sealed(RECOVERY, key.reveal(), request)
}

/// The recovery key that the last page made, and the cookie that makes the browser forget it.
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
    fn only_what_no_cache_keeps_is_private() {
        for value in ["private, no-cache", "no-store", "no-cache, no-store, no-transform"] {
            assert!(is_private(&control(value)), "{value}");
        }
        for value in ["public, max-age=31536000, immutable", "private, max-age=31536000, immutable", "no-cache", ""] {
            assert!(!is_private(&control(value)), "{value}");
        }
        assert!(!is_private(&HeaderMap::new()));
    }

    #[test]
    fn values_of_before_and_after_are_read() {
        let (owner, issued) = read("0af3.1700000000").unwrap();
        assert_eq!((owner.as_str(), issued), ("0af3", Some(Timestamp(1_700_000_000_000))));
        assert_eq!(read("0af3"), Some((Owner::from_store("0af3".to_owned()), None)));
        assert_eq!(read("a.b").unwrap().0.as_str(), "a.b");
        assert_eq!(read("leave:0af3.1700000000"), None);
    }
}
