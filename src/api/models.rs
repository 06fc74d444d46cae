//! The server functions of the page of models.

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

/// Starts the download of a model, then redirects to the page.
///
/// # Errors
/// `models_fixed` if visitors may not, `unknown_model` if Hark doesn't know it, `model_busy` if another one is being
/// downloaded.
#[server]
pub async fn download_model(name: String) -> Result<(), ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::download_model(&c, &name)).await
}

/// Removes a model, then redirects to the page.
///
/// # Errors
/// `models_fixed` and `unknown_model` as above, `model_in_use` if it is the one that the settings name, `model_busy` if it
/// is being downloaded.
#[server]
pub async fn remove_model(name: String) -> Result<(), ApiError> {
    use crate::server::pages;
    pages::answer(async |c| pages::remove_model(&c, name).await).await
}
