//! `POST /api/v1/status/batch`: reports of an outside worker on many sessions in one request.

use super::{Message, Worker};
use crate::{
    model::ErrorBody,
    server::{error::Error, outside::LineResult, state::AppState},
};
use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

/// The largest body, in bytes: a thousand reports of the usual size, and as much again.
pub(in crate::server::http) const MAX_BODY: u64 = 1024 * 1024;

#[derive(Serialize, ToSchema)]
pub(in crate::server::http) struct BatchReported {
    /// What became of each line that isn't blank, in their order.
    results: Vec<LineResult>,
}

/// Publishes statuses of sessions that outside workers made: JSON lines, each with the `session_id` and the fields of a
/// report. A line that is refused doesn't keep the others from being taken.
#[utoipa::path(post, path = "/api/v1/status/batch", tag = "outside",
    request_body(content = String, content_type = "application/x-ndjson",
        description = "At most 1,000 lines and 1 MiB; each line a `Report` with `session_id` besides, of at most 64 KiB"),
    security(("worker_token" = [])),
    responses((status = 200, body = BatchReported), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 413, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(in crate::server::http) async fn report_batch(
    _: Worker,
    State(state): State<AppState>,
    Message(message): Message,
) -> Result<Json<BatchReported>, Error> {
    Ok(Json(BatchReported { results: state.outside.report_batch(&message).await? }))
}
