//! The server function of the page of models.

use crate::model::ApiError;
pub use crate::model::{ModelInfo, page::ModelsInfo};
use leptos::{prelude::*, server_fn::codec::GetUrl};

/// The models that there are and those that are here.
///
/// # Errors
/// If the request has no caller, which never happens: a middleware identifies each one.
#[server(input = GetUrl)]
pub async fn load_models() -> Result<ModelsInfo, ApiError> {
    use crate::server::pages;
    pages::answer(async |c| Ok(pages::models_info(&c).await)).await
}
