//! The owner of sessions. Every browser has an opaque owner and sees its own sessions only. The store knows nothing but
//! the id, so accounts could replace it later. `http::identity` reads it from a cookie.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::{fmt, sync::Arc};
use uuid::Uuid;

/// The opaque id of an owner of sessions.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Owner(Arc<str>);

impl Owner {
    /// A new owner with a random id.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::new_v4().simple().to_string().into())
    }

    /// An owner by its id, from the store or a signed cookie.
    #[must_use]
    pub fn from_store(id: String) -> Self {
        Self(id.into())
    }

    /// The owner as logs may name it: the same for the same owner, and nothing by which somebody could become it.
    #[must_use]
    pub fn pseudonym(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.0.as_bytes())[..6])
    }

    /// The id, for the store.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Owner {
    /// Shortened, because a log must not have what could be used to impersonate somebody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({}…)", self.0.get(..6).unwrap_or_default())
    }
}
