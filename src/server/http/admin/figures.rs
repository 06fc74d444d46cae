//! The figures of the dashboard as JSON, for administrators and their programs.

use super::super::Query;
use crate::{
    model::{
        ErrorBody,
        figures::{Figures, Range},
        load::{NodeInfo, Overview},
    },
    server::{admin::Administrator, error::Error, overview, state::AppState},
};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::server::http) struct FiguresQuery {
    /// What the figures cover: the last hour, 24 hours, 7 days or 90 days.
    #[serde(default)]
    #[param(inline)]
    range: Range,
}

/// What was measured of the promises in a range of time, and in as long before it.
///
/// Of all nodes and over restarts; of other nodes than this one up to the last full minute. Calculated at most every 5 seconds.
#[utoipa::path(get, path = "/api/v1/admin/figures", params(FiguresQuery), security(("admin_token" = [])),
    responses((status = 200, body = Figures), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody)))]
pub(in crate::server::http) async fn figures(
    State(state): State<AppState>,
    _: Administrator,
    Query(query): Query<FiguresQuery>,
) -> Result<Json<Figures>, Error> {
    let figures = state.hours.figures(&state.sessions.store, query.range).await?;
    Ok(Json((*figures).clone()))
}

/// The nodes of the cluster.
#[derive(Serialize, ToSchema)]
pub(in crate::server::http) struct NodeList {
    nodes: Vec<NodeInfo>,
}

/// The nodes that are running or were in the last hour, with what each of them does, as of their last heartbeats.
///
/// Heartbeats come every 5 seconds. Of a database that isn't shared, it is this node alone.
#[utoipa::path(get, path = "/api/v1/admin/nodes", security(("admin_token" = [])),
    responses((status = 200, body = NodeList), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(in crate::server::http) async fn nodes(
    State(state): State<AppState>,
    _: Administrator,
) -> Result<Json<NodeList>, Error> {
    let nodes = state.sessions.registry.nodes(&state.sessions.store).await?;
    Ok(Json(NodeList { nodes }))
}

/// How many streams, uploads and sessions there are now, of all nodes.
#[utoipa::path(get, path = "/api/v1/admin/overview", security(("admin_token" = [])),
    responses((status = 200, body = Overview), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(in crate::server::http) async fn overview(
    State(state): State<AppState>,
    _: Administrator,
) -> Result<Json<Overview>, Error> {
    Ok(Json(overview::read(&state.sessions).await?.0))
}
