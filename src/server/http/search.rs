//! `/api/v1/search`: the texts of the caller's sessions.

use super::{Query, Whole};
use crate::{
    model::{ErrorBody, SearchPage},
    server::{error::Error, listing::MAX_SEARCH_PAGE, owner::Owner, state::AppState},
};
use axum::{Extension, Json, extract::State};
use serde::Deserialize;
use utoipa::IntoParams;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchQuery {
    /// Words that a line must have, up to 200 characters. Words in quotes must follow each other.
    q: String,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How many sessions; 20 if left out.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50)]
    limit: Option<Whole<1, MAX_SEARCH_PAGE>>,
}

/// Sessions with lines that have all of these words, newest first, each with its first such lines.
#[utoipa::path(get, path = "/api/v1/search", params(SearchQuery), responses(
    (status = 200, body = SearchPage), (status = 400, body = ErrorBody)))]
pub(super) async fn search(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Query(query): Query<SearchQuery>,
) -> Result<Json<SearchPage>, Error> {
    let limit = query.limit.map(|Whole(limit)| limit);
    Ok(Json(state.sessions.search(&owner, &query.q, query.cursor.as_deref(), limit).await?))
}
