//! Whose a session is. Every browser has an opaque owner and sees its own sessions only; the store knows nothing but the
//! opaque id, so accounts can take this place later. `http::identity` reads it from a cookie.

use std::{fmt, sync::Arc};
use uuid::Uuid;

/// The opaque id of an owner of sessions.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Owner(Arc<str>);

impl Owner {
    /// A new owner, unlike any other.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::new_v4().simple().to_string().into())
    }

    /// An owner as the store or a signed cookie holds it.
    #[must_use]
    pub fn from_store(id: String) -> Self {
        Self(id.into())
    }

    /// The id, for the store.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Owner {
    /// Shortened: a log must not hold what could be used to pose as someone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({}…)", self.0.get(..6).unwrap_or_default())
    }
}
