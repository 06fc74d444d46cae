//! Server functions: what the pages call. Each authorises the caller, calls the server, and maps the error.
//! The bodies run on the server only; the browser gets a request of the same shape.

pub mod identity;
pub mod sessions;
pub mod upload;

use crate::model::ApiError;
use leptos::prelude::{SharedValue, StoredValue, UpdateValue, provide_context, use_context};
use leptos::server_fn::{
    codec::JsonEncoding,
    error::{FromServerFnError, ServerFnErrorErr},
};
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

/// Tells why a form failed that was sent without scripts: where it was sent, and the error. The server puts one into the
/// context of each rendering; the browser finds in the page what it told.
#[derive(Clone, Copy)]
pub struct FailedForm(pub fn() -> Option<(String, ApiError)>);

/// What [`FailedForm`] told, until the page's part that has the form takes it.
#[derive(Clone, Copy)]
struct Failed(StoredValue<Option<(String, ApiError)>>);

/// Asks for what [`failed_form`] tells. Called by the app before it makes any page.
pub fn provide_failed_form() {
    let tell = || use_context::<FailedForm>().and_then(|FailedForm(tell)| tell());
    let told = SharedValue::new(tell).into_inner();
    provide_context(Failed(StoredValue::new(told)));
}

/// Why a form failed that was sent to one of `paths`, if one did. In the browser it is told once: a page opened later in
/// the same tab has nothing to do with it. The server makes parts of a page more than once.
#[must_use]
pub fn failed_form(paths: &[&str]) -> Option<ApiError> {
    let Failed(failed) = use_context()?;
    let is_asked = |(path, _): &&mut (String, ApiError)| paths.contains(&&**path);
    let (_, error) = failed.try_update_value(|failed| match use_context::<FailedForm>() {
        Some(_) => failed.as_mut().filter(is_asked).map(|told| told.clone()),
        None => failed.take_if(|told| is_asked(&told)),
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
            // Such as the page of a proxy that stands in for a server that is away.
            _ => Self::new(
                "internal",
                "The server's answer can't be read. It may be starting again: try once more in a moment.",
            ),
        }
    }
}
