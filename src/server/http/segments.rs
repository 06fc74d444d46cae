//! `/api/v1/sessions/{id}/segments` and `/waveform`: what pages and programs read besides the status.

use super::{Id, Query, Whole};
use crate::{
    model::{ErrorBody, Segment},
    server::{error::Error, owner::Owner, state::AppState, store::SEGMENT_PAGE},
};
use axum::{Extension, Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SegmentQuery {
    /// Only segments with a higher index; all if left out.
    #[param(value_type = Option<u32>)]
    after: Option<Whole<0, { u32::MAX }>>,
    /// At most so many; all if left out.
    #[param(value_type = Option<u32>)]
    limit: Option<Whole<0, { u32::MAX }>>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct SegmentList {
    segments: Vec<Segment>,
}

/// The segments there are so far, in order.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/segments",
    params(("id" = String, Path, description = "The session's id"), SegmentQuery),
    responses((status = 200, body = SegmentList), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn list(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Id(id): Id,
    Query(query): Query<SegmentQuery>,
) -> Result<Json<SegmentList>, Error> {
    state.sessions.get(&owner, id).await?;
    let mut from = query.after.map_or(0, |Whole(after)| after.saturating_add(1));
    let mut segments = Vec::new();
    let mut left = query.limit.map_or(u32::MAX, |Whole(limit)| limit);
    loop {
        let size = left.min(SEGMENT_PAGE);
        let page = state.sessions.store.segments(id, from, size).await?;
        let full = page.len() == size as usize;
        from = page.last().map_or(from, |last| last.index + 1);
        segments.extend(page);
        left -= size;
        if !full || left == 0 {
            return Ok(Json(SegmentList { segments }));
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct Waveform {
    /// The loudest sample of each of equal parts of the recording, 0 to 255; empty until it has been decoded.
    peaks: Vec<u8>,
}

/// The shape of the recording.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/waveform",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, body = Waveform), (status = 404, body = ErrorBody)))]
pub(super) async fn waveform(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Id(id): Id,
) -> Result<Json<Waveform>, Error> {
    Ok(Json(Waveform { peaks: state.sessions.waveform(&owner, id).await? }))
}
