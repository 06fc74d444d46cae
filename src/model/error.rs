//! The one error shape that leaves the server, over the JSON API and over server functions alike.

use serde::{Deserialize, Serialize};

/// An error as a caller sees it: a stable code for programs, a message for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct ApiError {
    /// Stable, in `snake_case`.
    pub code: String,
    /// What was wrong, the limit, and what to do.
    pub message: String,
}

impl ApiError {
    /// An error from its two parts.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }

    /// Whether it says that the thing asked for isn't there, or isn't the caller's.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == "not_found"
    }

    /// Whether the same may succeed later: the server is away, or in trouble.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(&*self.code, "unreachable" | "internal")
    }
}

/// The body of every error response of the JSON API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    pub error: ApiError,
}
