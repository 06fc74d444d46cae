//! The pages of the dashboard, and its stream.

use super::{guard::PageAdministrator, head, show, show_failure};
use crate::{
    dashboard::{
        nodes::{Nodes, NodesProps},
        overview::{Overview, OverviewProps},
        page::{Head, Section},
        savings::{SavingsPage, SavingsPageProps},
    },
    model::{ErrorBody, dashboard::Dashboard, figures::Range},
    server::{
        admin::Administrator,
        dashboard::Loaded,
        error::Error,
        http::{
            Query,
            status::{CompressionQuery, Connection, events},
        },
        owner::Owner,
        shares::Standing,
        state::AppState,
        stream::{Bye, StatusStream},
    },
};
use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use leptos::IntoView;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::server::http) struct RangeQuery {
    /// `hour`, `day`, `week` or `quarter`, which is 90 days.
    #[serde(default)]
    #[param(inline)]
    range: Range,
}

/// The overview.
pub(super) async fn overview(
    State(state): State<AppState>,
    PageAdministrator(administrator): PageAdministrator,
    query: Result<Query<RangeQuery>, Error>,
) -> Response {
    page(&state, &administrator, query, Section::Overview, |loaded| {
        let (figures, now, advice) = ((*loaded.figures).clone(), loaded.now.clone(), loaded.advice.clone());
        let administrator = administrator.name().to_owned();
        Overview(OverviewProps { figures, now, advice, administrator })
    })
    .await
}

/// The nodes.
pub(super) async fn nodes(
    State(state): State<AppState>,
    PageAdministrator(administrator): PageAdministrator,
    query: Result<Query<RangeQuery>, Error>,
) -> Response {
    page(&state, &administrator, query, Section::Nodes, |loaded| {
        Nodes(NodesProps { nodes: loaded.nodes.clone(), now: loaded.now.at })
    })
    .await
}

/// What live updates save.
pub(super) async fn savings(
    State(state): State<AppState>,
    PageAdministrator(administrator): PageAdministrator,
    query: Result<Query<RangeQuery>, Error>,
) -> Response {
    page(&state, &administrator, query, Section::Savings, |loaded| {
        SavingsPage(SavingsPageProps { figures: (*loaded.figures).clone() })
    })
    .await
}

/// A page of the dashboard, which stays up to date.
async fn page<V: IntoView + 'static>(
    state: &AppState,
    administrator: &Administrator,
    query: Result<Query<RangeQuery>, Error>,
    section: Section,
    body: impl FnOnce(&Loaded) -> V,
) -> Response {
    let loaded = match query {
        Ok(Query(RangeQuery { range })) => state.dashboards.load(range).await,
        Err(error) => Err(error),
    };
    match loaded {
        Ok(loaded) => {
            let stream = format!("/api/v1/admin/stream?range={}&compress=gzip", loaded.figures.range);
            let head = Head { stream: Some(stream), ..head(state, section.label(), section, administrator) };
            show(StatusCode::OK, head, body(&loaded))
        }
        Err(error) => show_failure(state, &error),
    }
}

/// The dashboard as server-sent events: `overview` with what changes from one moment to the next, `heartbeat`, `bye`.
///
/// Begins with the newest, and goes on with one whenever something changes, at most every 2 seconds and at least every 10.
/// For administrators. When there are too many streams, the only event is a `bye` with the reason `limit`.
#[utoipa::path(get, path = "/api/v1/admin/stream", params(RangeQuery, CompressionQuery), security(("admin_token" = [])),
    responses((status = 200, content_type = "text/event-stream", description = "The events", body = Dashboard),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
pub(in crate::server::http) async fn stream(
    State(state): State<AppState>,
    administrator: Administrator,
    Query(RangeQuery { range }): Query<RangeQuery>,
    Query(compression): Query<CompressionQuery>,
    (version, direct, peer, _address, requested, _page): Connection,
    request: HeaderMap,
) -> Result<Response, Error> {
    // Before the stream watches, so that its first event isn't an old one.
    state.dashboards.publish(range).await?;
    // Administrators have no owner. The limits on owners and newcomers don't apply to them, that on all streams does.
    let stream = state.hub.admit(&Owner::fresh(), Standing::Known).map_or_else(
        |_| StatusStream::refused(Bye::Limit),
        |permit| {
            let peer: Option<Arc<_>> = peer.map(|Extension(peer)| peer);
            let source = Arc::clone(&state.source);
            StatusStream::of_dashboard(&state.hub, source, permit, range, administrator.sign_in(), peer)
        },
    );
    Ok(events(stream, requested, compression, &request, direct.is_some(), version))
}
