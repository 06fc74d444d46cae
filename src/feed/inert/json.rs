//! JSON, read on the server as it is read in the browser.

use serde::de::DeserializeOwned;

/// What `text` says; nothing if it isn't JSON of a `T`.
#[must_use]
pub fn read<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}
