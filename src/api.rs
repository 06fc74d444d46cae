//! Server functions, which the pages call. Each one authorises the caller, calls the server, and maps the error.
//! The bodies run on the server only; in the browser the same function sends a request.

pub mod identity;
pub mod models;
pub mod sessions;
pub mod upload;

use crate::model::ApiError;
use leptos::prelude::{SharedValue, StoredValue, UpdateValue, provide_context, use_context};
use leptos::server_fn::{
    codec::JsonEncoding,
    error::{FromServerFnError, ServerFnErrorErr},
};
use std::sync::Arc;

/// The callback by which a page reports that there is nothing at its address. The server puts one into the context of each
/// rendering and answers with status 404 if it was called. The browser has none.
#[derive(Clone)]
pub struct OnNotFound(pub Arc<dyn Fn() + Send + Sync>);

/// Sets the status 404 for the page that is being rendered. Does nothing in the browser.
pub fn set_not_found() {
    if let Some(OnNotFound(report)) = use_context() {
        report();
    }
}

/// Returns the path and the error of a form that was sent without scripts and failed, if there is one. The server puts this
/// function into the context of each rendering; the browser reads its result from the page.
#[derive(Clone, Copy)]
pub struct FailedForm(pub fn() -> Option<(String, ApiError)>);

/// The result of [`FailedForm`], until the component that has the form takes it.
#[derive(Clone, Copy)]
struct Failed(StoredValue<Option<(String, ApiError)>>);

/// Puts what [`failed_form`] returns into the context. Called by the app before it renders a page.
pub fn provide_failed_form() {
    let read = || use_context::<FailedForm>().and_then(|FailedForm(read)| read());
    let failed = SharedValue::new(read).into_inner();
    provide_context(Failed(StoredValue::new(failed)));
}

/// The error of a form that was sent to one of `paths`, if one failed. The browser returns it only once, because it doesn't
/// concern pages that are opened later in the same tab. The server returns it each time, because it may render a component
/// more than once.
#[must_use]
pub fn failed_form(paths: &[&str]) -> Option<ApiError> {
    let Failed(failed) = use_context()?;
    let concerns = |(path, _): &&mut (String, ApiError)| paths.contains(&&**path);
    let (_, error) = failed.try_update_value(|failed| match use_context::<FailedForm>() {
        Some(_) => failed.as_mut().filter(concerns).map(|failed| failed.clone()),
        None => failed.take_if(|failed| concerns(&failed)),
    })??;
    Some(error)
}

impl FromServerFnError for ApiError {
    type Encoder = JsonEncoding;

    fn from_server_fn_error(error: ServerFnErrorErr) -> Self {
        match error {
            ServerFnErrorErr::Request(_) => {
                Self::new("unreachable", "The server can't be reached. Check the connection and try again.")
            }
            ServerFnErrorErr::Args(text) | ServerFnErrorErr::MissingArg(text) => {
                Self::new("bad_request", format!("The request was malformed: {text}"))
            }
            // For example the page of a proxy that can't reach the server, or a login.
            _ => Self::new(
                "internal",
                "The server's answer can't be read. It may be starting again: try once more in a moment. If one signs in to get \
                 here, load this page again.",
            ),
        }
    }
}
