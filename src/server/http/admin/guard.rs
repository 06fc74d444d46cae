//! The guard of the administrators' pages: whoever isn't signed in is led to the page that signs in, and back afterwards.

use super::{SIGN_IN, show_failure, show_outside};
use crate::{
    dashboard::access,
    model::text,
    server::{admin::Administrator, error::Error, state::AppState},
};
use axum::{
    extract::FromRequestParts,
    http::{Method, StatusCode, Uri, request::Parts},
    response::{IntoResponse, Redirect, Response},
};

/// The administrator who opens a page or sends a form of it. The handlers of the JSON API take [`Administrator`] itself,
/// which answers with JSON.
pub struct PageAdministrator(pub Administrator);

impl FromRequestParts<AppState> for PageAdministrator {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        match Administrator::from_request_parts(parts, state).await {
            Ok(administrator) => Ok(Self(administrator)),
            Err(Error::NotSignedIn) => {
                // A form can't be sent again after signing in.
                let to = (parts.method == Method::GET).then(|| parts.uri.path_and_query()).flatten();
                let to = to.map_or_else(
                    || SIGN_IN.to_owned(),
                    |to| format!("{SIGN_IN}?to={}", text::percent_encode(to.as_str())),
                );
                Err(Redirect::to(&to).into_response())
            }
            Err(Error::AdminOff) => Err(show_outside(state, StatusCode::FORBIDDEN, access::nobody())),
            Err(error) => Err(show_failure(state, &error)),
        }
    }
}

/// Where signing in leads to: the administrators' page that was asked for, and no other address, whoever wrote it.
pub(super) fn target(asked: &str) -> String {
    let rest = asked.strip_prefix(super::HOME);
    let is_page = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    let is_plain = asked.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') && asked.parse::<Uri>().is_ok();
    let leaves = asked.starts_with("/admin/sign") || asked.contains("//");
    if is_page && is_plain && !leaves { asked.to_owned() } else { super::HOME.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_in_leads_to_pages_of_administrators_only() {
        for page in ["/admin", "/admin/sessions", "/admin/sessions?state=failed&node=a", "/admin?range=week"] {
            assert_eq!(target(page), page);
        }
        for other in [
            "",
            "/",
            "/sessions",
            "/administrators",
            "//evil.example/admin",
            "https://evil.example/admin",
            "/admin/..//evil.example",
            "/admin\\evil",
            "/admin/sign-in?to=/admin",
            "/admin/a b",
            "/admin/\r\nSet-Cookie: a=b",
        ] {
            assert_eq!(target(other), "/admin", "{other}");
        }
    }
}
