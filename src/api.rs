//! Server functions: what the pages call. Each authorises the caller, calls the server, and maps the error.
//! The bodies run on the server only; the browser gets a request of the same shape.

pub mod call;
pub mod json;
pub mod sessions;
pub mod upload;

use crate::model::ApiError;
use json::JsonText;
use leptos::prelude::use_context;
use leptos::server_fn::error::{FromServerFnError, ServerFnErrorErr};
use std::sync::Arc;

/// Lets a page say that there is nothing at its address. The server puts one into the context of each rendering, and
/// answers with status 404 when it is called; in the browser there is none.
#[derive(Clone)]
pub struct OnNotFound(pub Arc<dyn Fn() + Send + Sync>);

/// Gives the page that is being rendered the status 404. Does nothing in the browser.
pub fn set_not_found() {
    if let Some(OnNotFound(tell)) = use_context() {
        tell();
    }
}

/// Lets a page show why a form sent without JavaScript failed, which stands in the page's address. The server puts one
/// into the context of each rendering; it tells the path of the server function and the error. In the browser there is
/// none, nor what it takes to read such an address.
#[derive(Clone, Copy)]
pub struct FailedForm(pub fn() -> Option<(String, ApiError)>);

/// Why a form failed that was sent to one of `paths`, if one did.
#[must_use]
pub fn failed_form(paths: &[&str]) -> Option<ApiError> {
    let FailedForm(tell) = use_context()?;
    tell().filter(|(path, _)| paths.contains(&&**path)).map(|(_, error)| error)
}

impl FromServerFnError for ApiError {
    type Encoder = JsonText;

    fn from_server_fn_error(error: ServerFnErrorErr) -> Self {
        match error {
            ServerFnErrorErr::Request(_) => {
                Self::new("unreachable", "The server can't be reached. Check the connection and try again.")
            }
            ServerFnErrorErr::Args(text) | ServerFnErrorErr::MissingArg(text) => {
                Self::new("bad_request", format!("The request was malformed: {text}"))
            }
            // Such as the page of a proxy that stands in for a server that is away.
            _ => Self::new(
                "internal",
                "The server's answer can't be read. It may be starting again: try once more in a moment.",
            ),
        }
    }
}
