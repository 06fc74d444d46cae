//! The routes of administrators: signing in and out, and their pages. Plain HTML that the server renders and plain forms,
//! which need no scripts. Mounted by `router` beside the routes that have an owner.

pub(super) mod dashboard;
pub(super) mod figures;
pub mod guard;
pub(super) mod health;
pub(super) mod sessions;

use self::guard::PageAdministrator;
use super::{answer_without_database, cross_site};
use crate::{
    dashboard::{
        access,
        page::{self, Head, Section},
    },
    server::{address::ClientAddress, admin::Administrator, error::Error, keys::set_cookie, state::AppState},
};
use axum::{
    Extension, Form, Router,
    extract::{DefaultBodyLimit, State, rejection::FormRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use leptos::IntoView;
use serde::Deserialize;
use tower_http::set_header::SetResponseHeaderLayer;

/// The page with the overview, which signing in leads to.
const HOME: &str = "/admin";
/// The page that signs in.
const SIGN_IN: &str = "/admin/sign-in";

/// The pages of administrators, and the forms on them.
pub fn pages(state: &AppState) -> Router<AppState> {
    let no_store = HeaderValue::from_static("no-store");
    let pages = Router::new()
        .route(HOME, get(dashboard::overview))
        .route("/admin/nodes", get(dashboard::nodes))
        .route("/admin/savings", get(dashboard::savings))
        .route("/api/v1/admin/stream", get(dashboard::stream))
        .route(SIGN_IN, get(sign_in_page).post(sign_in))
        .route("/admin/sign-out", post(sign_out))
        .route(Section::Sessions.path(), get(sessions::page).post(sessions::submit))
        // `guard` limits bodies.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(state.clone(), answer_without_database))
        .layer(SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, no_store));
    cross_site::protect(pages)
}

/// What is around the page of an administrator.
fn head(state: &AppState, title: &str, section: Section, administrator: &Administrator) -> Head {
    Head {
        title: title.to_owned(),
        style: state.settings.files.app.style.clone(),
        section: Some(section),
        stream: None,
        refresh_secs: None,
        may_sign_out: administrator.is_signed_in_by_password(),
    }
}

/// The answer with a page.
fn show(status: StatusCode, head: Head, body: impl IntoView + 'static) -> Response {
    let page = page::render(head, body);
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, page.content_security_policy),
    ];
    (status, headers, page.html).into_response()
}

/// The answer to those who aren't administrators.
fn show_outside(state: &AppState, status: StatusCode, body: impl IntoView + 'static) -> Response {
    let title = "Administration".to_owned();
    let style = state.settings.files.app.style.clone();
    show(status, Head { title, style, section: None, stream: None, refresh_secs: None, may_sign_out: false }, body)
}

/// The answer to an administrator or to somebody else for whom something failed.
fn show_failure(state: &AppState, error: &Error) -> Response {
    let mut response = show_outside(state, error.status_code(), access::failure(error.public().message));
    if let Some(seconds) = error.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[derive(Deserialize)]
struct SignInQuery {
    /// The page that was asked for.
    #[serde(default)]
    to: String,
}

/// The page with the form that signs in.
async fn sign_in_page(
    State(state): State<AppState>,
    administrator: Result<Administrator, Error>,
    super::Query(query): super::Query<SignInQuery>,
) -> Response {
    let to = guard::target(&query.to);
    match administrator {
        Ok(_) => Redirect::to(&to).into_response(),
        Err(Error::NotSignedIn | Error::NotAdministrator) => show_sign_in(&state, None, to),
        Err(Error::AdminOff) => show_outside(&state, StatusCode::FORBIDDEN, access::nobody()),
        Err(error) => show_failure(&state, &error),
    }
}

fn show_sign_in(state: &AppState, error: Option<Error>, to: String) -> Response {
    let status = error.as_ref().map_or(StatusCode::OK, Error::status_code);
    let message = error.as_ref().map(|error| error.public().message);
    let mut response = show_outside(state, status, access::sign_in(message, to));
    if let Some(seconds) = error.and_then(|error| error.retry_after()) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[derive(Deserialize)]
struct SignInForm {
    password: String,
    #[serde(default)]
    to: String,
}

/// Signs a browser in.
async fn sign_in(
    State(state): State<AppState>,
    address: Option<Extension<ClientAddress>>,
    headers: HeaderMap,
    form: Result<Form<SignInForm>, FormRejection>,
) -> Response {
    let form = match form {
        Ok(Form(form)) => form,
        Err(e) => {
            return show_failure(&state, &Error::BadRequest(format!("The form can't be read: {}", e.body_text())));
        }
    };
    let to = guard::target(&form.to);
    let address = address.map(|Extension(address)| address);
    match state.admins.sign_in(form.password, address, &headers).await {
        Ok(cookie) => {
            let mut response = Redirect::to(&to).into_response();
            set_cookie(response.headers_mut(), &cookie);
            response
        }
        Err(error) => show_sign_in(&state, Some(error), to),
    }
}

/// Signs a browser out.
async fn sign_out(
    State(state): State<AppState>,
    PageAdministrator(administrator): PageAdministrator,
    headers: HeaderMap,
) -> Response {
    match state.admins.sign_out(&administrator, &headers).await {
        Ok(cookie) => {
            state.hub.end_dashboards();
            let mut response = Redirect::to(SIGN_IN).into_response();
            set_cookie(response.headers_mut(), &cookie);
            response
        }
        Err(error) => show_failure(&state, &error),
    }
}
