//! The JSON API and the downloads, one file per resource. Mounted under `/api/v1` by `router`.

pub mod admin;
mod archive;
mod arrival;
mod audio;
pub mod cross_site;
mod disposition;
mod etag;
mod export;
mod health;
pub mod identity;
mod models;
pub mod notice;
mod outside;
pub mod page;
mod range;
mod reports;
mod resumable;
mod search;
mod segments;
mod sessions;
pub mod site;
mod status;
pub mod to_end;
mod transcript;
mod upload;

pub use health::{healthz, metrics, readyz};
pub use outside::is_announcement;
pub use upload::FORM_BYTES;

use super::{error::Error, state::AppState};
use crate::model::{Session, SessionId, page::UPLOAD_PATH, upload::UPLOADS_PATH};
use axum::{
    Json, Router,
    extract::{FromRequestParts, Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use utoipa::{
    OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The description of the API, filled in from the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hark",
        description = "Transcription that shows its work, live. Every caller is known by a cookie, `hark_owner_` \
            with some hexadecimal digits (behind https `__Host-hark_owner_`), which the first answer sets, and sees its \
            own sessions only. Errors are \
            `{\"error\":{\"code\",\"message\"}}`.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(transcript::download, outside::report, outside::batch::report_batch, outside::segments, admin::dashboard::stream),
    modifiers(&Tokens)
)]
struct Description;

/// The API's routes, and its description at `/api/openapi.json`; without the routes that only operators use, if those have
/// an address of their own.
pub fn router(state: &AppState) -> Router<AppState> {
    let separate_monitor = state.settings.separate_monitor;
    let health = OpenApiRouter::new().routes(routes!(health::sessions));
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(sessions::list, sessions::create))
        .routes(routes!(sessions::get, sessions::delete, sessions::rename))
        .routes(routes!(sessions::cancel))
        .routes(routes!(sessions::retry))
        .routes(routes!(sessions::engines))
        .routes(routes!(identity::make_link))
        .routes(routes!(identity::make_recovery_key, identity::revoke_recovery_key))
        .routes(routes!(identity::open))
        .routes(routes!(identity::logout))
        .merge(resumable::routes())
        .routes(routes!(search::search))
        .routes(routes!(segments::list))
        .routes(routes!(segments::waveform))
        .routes(routes!(audio::get))
        .routes(routes!(archive::transcripts))
        .routes(routes!(audio::playable))
        .routes(routes!(status::one))
        .routes(routes!(status::all))
        .routes(routes!(status::stream_one))
        .routes(routes!(status::stream_all))
        .routes(routes!(models::list))
        .routes(routes!(models::stream))
        .routes(routes!(reports::create))
        .routes(routes!(arrival::arrival))
        .routes(routes!(admin::figures::figures))
        .routes(routes!(admin::figures::nodes))
        .routes(routes!(admin::figures::overview))
        .routes(routes!(admin::sessions::list))
        .routes(routes!(admin::sessions::act))
        .routes(routes!(admin::health::stuck))
        .merge(if separate_monitor { OpenApiRouter::new() } else { health })
        .split_for_parts();
    // Written once, because it is large: each request is sent the same bytes.
    let description = Bytes::from(description.to_json().expect("a description of an API is JSON"));
    let headers = [(header::CACHE_CONTROL, "public, max-age=300"), (header::CONTENT_TYPE, "application/json")];
    transcript::routes(router)
        .route("/api/openapi.json", get(async move || (headers, description)))
        .route("/api/{*rest}", axum::routing::any(async || Error::NoRoute))
        .layer(middleware::from_fn_with_state(state.clone(), page::identify))
        .layer(middleware::from_fn_with_state(state.clone(), answer_without_database))
}

/// The route that Prometheus scrapes.
pub fn operators() -> Router<AppState> {
    Router::new().route("/metrics", get(metrics))
}

/// The route with the counts of sessions for operators, as in [`router`].
pub fn session_health() -> Router<AppState> {
    OpenApiRouter::new().routes(routes!(health::sessions)).into()
}

/// The routes of workers outside Hark, whose requests have no owner.
pub fn workers(state: &AppState) -> Router<AppState> {
    outside::routes().layer(middleware::from_fn_with_state(state.clone(), answer_worker))
}

/// Answers a request of an outside worker. One layer and not several, because for each request axum makes a copy of a route
/// with all of its layers, and they send thousands in a second.
async fn answer_worker(state: State<AppState>, request: Request, next: Next) -> Response {
    let mut response = answer_without_database(state, request, next).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Answers a request that waits for the database when that is known to be away: it ends there. Otherwise what it changes is
/// changed to its end, even if the client has gone.
async fn answer_without_database(State(state): State<AppState>, request: Request, next: Next) -> Response {
    // A recording that is being received may take minutes, by the end of which the database may be back: `sessions`
    // and `resumable` check it before and after.
    let receives = match *request.method() {
        Method::POST => {
            [UPLOAD_PATH, UPLOADS_PATH].contains(&request.uri().path()) || resumable::brings_part(request.headers())
        }
        Method::PATCH => resumable::brings_part(request.headers()),
        _ => false,
    };
    let answer = async move |request| {
        if receives {
            return next.run(request).await;
        }
        let answered = state.sessions.store.unless_away(next.run(request)).await;
        answered.unwrap_or_else(|| Error::DatabaseAway.into_response())
    };
    to_end::finish_changes(request, answer).await
}

/// The kind of body that a request may have.
pub enum BodyLimit {
    /// A small one, like most: `HARK_MAX_BODY_BYTES` at most.
    Small,
    /// A report of an outside worker, with its limit in bytes.
    Message(u64),
    /// A recording, whose route checks the limits itself.
    Upload,
}

/// The limit for the body of a request, by its route and what its headers say of it.
#[must_use]
pub fn body_limit(method: &Method, route: &str, headers: &HeaderMap) -> BodyLimit {
    match (method, route) {
        (&Method::POST | &Method::PATCH, "/api/v1/uploads" | "/api/v1/uploads/{id}")
            if resumable::brings_part(headers) =>
        {
            BodyLimit::Upload
        }
        (&Method::POST, "/api/v1/sessions") => BodyLimit::Upload,
        (&Method::PUT, "/api/v1/sessions/{id}/status") | (&Method::POST, "/api/v1/sessions/{id}/segments") => {
            BodyLimit::Message(outside::MAX_BODY)
        }
        (&Method::POST, "/api/v1/status/batch") => BodyLimit::Message(outside::batch::MAX_BODY),
        _ => BodyLimit::Small,
    }
}

/// Adds the authentication of outside workers and of administrators to the API's description.
struct Tokens;

impl utoipa::Modify for Tokens {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        for (name, variable) in [("worker_token", "HARK_WORKER_TOKEN"), ("admin_token", "HARK_ADMIN_TOKEN")] {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(variable));
            components.add_security_scheme(name, SecurityScheme::Http(scheme.build()));
        }
    }
}

/// The answer to a program that has created a session.
fn created(session: Session) -> Response {
    let location = format!("/api/v1/sessions/{}", session.id);
    (StatusCode::CREATED, [(header::LOCATION, location)], Json(session)).into_response()
}

/// A session's id from the path. Anything that isn't an id gives 404.
struct Id(SessionId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| Error::NotFound)?;
        text.parse().map(Self).map_err(|_| Error::NotFound)
    }
}

/// Query parameters, with Hark's own error when they can't be read.
struct Query<T>(T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|e| Error::BadRequest(unreadable_query(&e.body_text())))
    }
}

/// The message about a query, from axum's, which names the parameter and the reason behind its own introduction.
fn unreadable_query(text: &str) -> String {
    let reason = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(text);
    format!("The query can't be read: {}.", reason.trim_end_matches('.'))
}

/// A whole number from `MIN` to `MAX` in a query.
#[derive(Clone, Copy, Debug)]
struct Whole<const MIN: u32, const MAX: u32>(u32);

impl<'de, const MIN: u32, const MAX: u32> serde::Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
        let unfit = || serde::de::Error::custom(format_args!("must be a whole number from {MIN} to {MAX}"));
        number.map(Self).ok_or_else(unfit)
    }
}
