//! Who a request comes from. Every browser gets an opaque owner in a signed cookie at its first visit, and sees its own
//! sessions only. Accounts can take this place later: the store knows nothing but the opaque id.

use super::state::AppState;
use axum::{
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use axum_extra::extract::{
    PrivateCookieJar, SignedCookieJar,
    cookie::{Cookie, Key, SameSite},
};
use std::{fmt, sync::Arc};
use uuid::Uuid;

/// The opaque id of an owner of sessions.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Owner(Arc<str>);

impl Owner {
    /// A new owner, unlike any other.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::new_v4().simple().to_string().into())
    }

    /// An owner as the store or a signed cookie holds it.
    #[must_use]
    pub fn from_store(id: String) -> Self {
        Self(id.into())
    }

    /// The id, for the store.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Owner {
    /// Shortened: a log must not hold what could be used to pose as someone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({}…)", self.0.get(..6).unwrap_or_default())
    }
}

/// What is known of the caller besides the owner. Put into every request by [`identify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whether a valid cookie named the owner. If not, the owner was made for this request and has no history.
    pub known: bool,
}

const COOKIE: &str = "hark_owner";
const NOTICE: &str = "hark_notice";

/// Finds the caller's owner or makes one, puts it into the request, and sets the cookie where it was missing.
pub async fn identify(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let jar = SignedCookieJar::from_headers(request.headers(), state.cookie_key.clone());
    let known = jar.get(COOKIE).map(|cookie| Owner::from_store(cookie.value().to_owned()));
    let secure = request.headers().get("x-forwarded-proto").is_some_and(|v| v == "https");
    let new = known.is_none();
    let owner = known.unwrap_or_else(Owner::fresh);
    request.extensions_mut().insert(owner.clone());
    request.extensions_mut().insert(Identity { known: !new });
    let response = next.run(request).await;
    if !new {
        return response;
    }
    let mut cookie = cookie(COOKIE, owner.as_str(), secure);
    cookie.make_permanent();
    (jar.add(cookie), response).into_response()
}

fn cookie(name: &'static str, value: &str, secure: bool) -> Cookie<'static> {
    Cookie::build((name, value.to_owned())).path("/").http_only(true).secure(secure).same_site(SameSite::Lax).build()
}

/// A response that also takes the owner's cookie back.
pub(super) fn forgotten(response: impl IntoResponse) -> Response {
    let mut removal = cookie(COOKIE, "", false);
    removal.make_removal();
    ([(SET_COOKIE, removal.to_string())], response).into_response()
}

/// A response that also keeps `text` for the next page, to be shown there once.
pub(super) fn with_notice(key: Key, text: &str, response: impl IntoResponse) -> Response {
    (PrivateCookieJar::new(key).add(cookie(NOTICE, text, false)), response).into_response()
}

/// The notice kept by [`with_notice`], and the header that removes it.
pub(super) fn take_notice(headers: &axum::http::HeaderMap, key: Key) -> Option<(String, String)> {
    let text = PrivateCookieJar::from_headers(headers, key).get(NOTICE)?.value().to_owned();
    let mut removal = Cookie::build((NOTICE, "")).path("/").build();
    removal.make_removal();
    Some((text, removal.to_string()))
}

/// The name of the header that [`take_notice`]'s second value belongs to.
pub(super) const SET_COOKIE: header::HeaderName = header::SET_COOKIE;
