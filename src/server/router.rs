//! All routes of a node, with the layers around them: owner, cross-site protection, headers, compression, tracing.

use super::{
    address::{self, PeerAddress},
    error::Error,
    guard,
    http::{
        self, cross_site,
        identity::cookies,
        notice::{self, Forms},
        site,
        to_end::run_to_end,
    },
    owner::Owner,
    pages,
    state::AppState,
};
use crate::{
    api::{
        FailedForm, OnNotFound,
        identity::{LeaveIdentity, MakeLink, MakeRecoveryKey, OpenIdentity, RevokeRecoveryKey},
        models::{DownloadModel, RemoveModel},
    },
    app::{App, LinkTiming, PageToken, RenderedAt, shell},
    model::{
        Arm, Timestamp,
        page::{IDENTITY_PAGE, MODELS_PAGE, OPEN_PAGE},
    },
};
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use leptos::{
    config::Env,
    nonce::use_nonce,
    prelude::{provide_context, use_context},
    server_fn::ServerFn,
};
use leptos_axum::{AxumRouteListing, ErrorHandler, LeptosRoutes, generate_route_list};
use std::{
    any::Any,
    sync::{Arc, LazyLock},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::{
        CompressionLayer,
        predicate::{DefaultPredicate, NotForContentType, Predicate},
    },
    trace::TraceLayer,
};
use tracing::Level;

/// The app's pages, listed once for the process. While Leptos lists them, no page in the process may be rendered,
/// because its resources would never load (docs/upstream.md).
static ROUTES: LazyLock<Vec<AxumRouteListing>> = LazyLock::new(|| generate_route_list(App));

/// The forms that are on one page only, with that page. The page of a link sends no usable `Referer`, because its
/// address is a secret.
const FORM_PAGES: [(&str, &str); 7] = [
    (DownloadModel::PATH, MODELS_PAGE),
    (RemoveModel::PATH, MODELS_PAGE),
    (OpenIdentity::PATH, OPEN_PAGE),
    (MakeLink::PATH, IDENTITY_PAGE),
    (MakeRecoveryKey::PATH, IDENTITY_PAGE),
    (RevokeRecoveryKey::PATH, IDENTITY_PAGE),
    (LeaveIdentity::PATH, IDENTITY_PAGE),
];

/// All routes of a node.
pub fn router(state: AppState) -> Router {
    let routes = ROUTES.clone();
    let options = state.settings.leptos.clone();
    let context = {
        let state = state.clone();
        move || {
            provide_context(state.clone());
            provide_context(state.settings.files.app.clone());
            let now = Timestamp::now();
            provide_context(RenderedAt(now));
            if let Some(owner) = use_context::<Parts>().and_then(|request| request.extensions.get::<Owner>().cloned()) {
                let polls = state.arms.of(&owner) == Arm::Polling;
                provide_context(PageToken { token: state.page_tokens.issue(&owner, now), polls });
            }
            if let Some(timing) = &state.settings.streams.link_timing {
                provide_context(LinkTiming(timing.clone()));
            }
            provide_context(OnNotFound(Arc::new(|| pages::set_status(StatusCode::NOT_FOUND))));
            provide_context(FailedForm(pages::failed_form));
            if let Some(nonce) = use_nonce() {
                pages::set_header(
                    header::CONTENT_SECURITY_POLICY,
                    &policy(&nonce, state.settings.leptos.env == Env::DEV),
                );
            }
            pages::set_header(header::CACHE_CONTROL, "private, no-cache");
        }
    };
    let shell_of = {
        let options = options.clone();
        move || shell(options.clone())
    };
    let not_found = ErrorHandler::new_with_context(context.clone(), shell, options);
    let pages = Router::new().leptos_routes_with_context(&state, routes, context, shell_of);
    let pages = (state.settings.files)
        .serve(pages, not_found)
        // Otherwise Leptos' pending tasks would find their signals disposed, and panic.
        .layer(middleware::from_fn(run_to_end))
        .layer(middleware::from_fn(cookies::probe_cookies));
    let owned = http::router(&state)
        .merge(pages)
        // `guard` limits bodies, and `http::upload` those of recordings.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(no_store))
        .layer(middleware::from_fn_with_state(
            Forms { state: state.clone(), pages: &FORM_PAGES },
            notice::handle_notices,
        ))
        .layer(middleware::from_fn_with_state(state.clone(), cookies::identify));
    let owned = cross_site::protect(owned);
    let with_address = middleware::from_fn_with_state(state.clone(), find_address);
    let streams = NotForContentType::const_new("text/event-stream");
    let audio = NotForContentType::const_new("audio/");
    // A release has compressed copies of the file; in development, compressing its 17 MB would take seconds.
    let wasm = NotForContentType::const_new("application/wasm");
    let zip = NotForContentType::const_new("application/zip");
    Router::new()
        .route("/healthz", get(http::healthz))
        .route("/readyz", get(http::readyz))
        .merge(if state.settings.separate_monitor { Router::new() } else { http::operators() })
        .merge(owned)
        .merge(http::admin::pages(&state))
        .layer(
            CompressionLayer::new().compress_when(DefaultPredicate::new().and(streams).and(audio).and(wasm).and(zip)),
        )
        .layer(middleware::from_fn_with_state(state.clone(), http::page::count_bytes))
        .layer(middleware::from_fn(cache))
        .layer(with_address)
        // The panic's message is in the log.
        .layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| Error::Panic.into_response()))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(
                    |r: &Request| tracing::debug_span!("request", method = %r.method(), path = r.uri().path()),
                )
                .on_response(tower_http::trace::DefaultOnResponse::new().level(Level::DEBUG))
                .on_failure(()),
        )
        // Without the layers above, which do nothing for a program that sends thousands of reports a second.
        .merge(http::workers(&state))
        .layer(middleware::from_fn_with_state(state.clone(), guard::guard))
        .with_state(state)
}

/// The routes on the separate address for monitoring.
pub fn monitor(state: AppState) -> Router {
    Router::new()
        .route("/healthz", get(http::healthz))
        .route("/readyz", get(http::readyz))
        .merge(http::operators())
        .merge(http::session_health())
        .layer(middleware::from_fn_with_state(state.clone(), guard::guard))
        .with_state(state)
}

/// The Content-Security-Policy of a page: its own resources, and scripts with this answer's nonce. Inline style
/// attributes are allowed, because the widths of bars need them.
fn policy(nonce: &str, watching: bool) -> String {
    // `cargo leptos watch` reloads pages over a WebSocket on another port.
    let reload = if watching { " ws:" } else { "" };
    format!(
        "default-src 'self'; script-src 'self' 'nonce-{nonce}' 'wasm-unsafe-eval'; \
         style-src 'self' 'nonce-{nonce}'; style-src-attr 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'{reload}; media-src 'self' blob:; worker-src 'self'; manifest-src 'self'; object-src 'none'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
}

/// Puts the client's address into a request.
async fn find_address(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    site::warn_of_prefix(request.headers());
    if let Some(PeerAddress(peer)) = request.extensions().get().copied() {
        let network = &state.settings.network;
        let client = address::find_client(peer, request.headers(), &network.trusted_proxies, network.forwarded_header);
        request.extensions_mut().insert(client);
    }
    next.run(request).await
}

/// Forbids caching the API's answers, because they are private: neither proxies nor the browser may keep them for its
/// next user. Recordings and downloads set their own rules.
async fn no_store(request: Request, next: Next) -> Response {
    let api = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    if api {
        let headers = response.headers_mut();
        let is =
            |name: HeaderName, word: &str| headers.get(name).is_some_and(|v| v.as_bytes().starts_with(word.as_bytes()));
        let json = is(header::CONTENT_TYPE, "application/json") && !is(header::CACHE_CONTROL, "public");
        if json || !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }
    response
}

/// The files of the installed app that browsers ask for each time, so that an update reaches them.
const ALWAYS_ASKED: [&str; 3] = ["/service-worker.js", "/manifest.webmanifest", "/offline.html"];

/// Lets browsers cache files whose names have a hash of their content, and makes them ask for those of the installed app.
async fn cache(request: Request, next: Next) -> Response {
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path();
    let rule = match read {
        true if is_hashed(path) => Some("public, max-age=31536000, immutable"),
        true if ALWAYS_ASKED.contains(&path) => Some("no-cache"),
        _ => None,
    };
    let mut response = next.run(request).await;
    if let Some(rule) = rule
        && (response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED)
    {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(rule));
    }
    response
}

/// Whether a path under `/pkg` has a content hash: `hark.<hash>.css`.
fn is_hashed(path: &str) -> bool {
    path.strip_prefix("/pkg/").is_some_and(|name| name.split('.').count() >= 3)
}
