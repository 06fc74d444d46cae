//! The only form in which errors leave the server, for the JSON API and for server functions.

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

    /// Whether the requested thing doesn't exist or belongs to another owner.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == "not_found"
    }

    /// Whether the same request may succeed later: the server couldn't be reached, or failed internally.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(&*self.code, "unreachable" | "internal" | "database_unavailable")
    }
}

/// The body of every error response of the JSON API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    pub error: ApiError,
}
