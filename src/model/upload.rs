//! Uploads that come in parts, by the tus protocol, and the hash by which a recording is recognised that was sent before.

use super::{Session, Timestamp};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The address of uploads that come in parts.
pub const UPLOADS_PATH: &str = "/api/v1/uploads";
/// The version of the protocol that they follow.
pub const TUS_VERSION: &str = "1.0.0";
/// The type of the body of a part.
pub const PART_TYPE: &str = "application/offset+octet-stream";
/// The hash of a recording is the SHA-256 of the SHA-256 of each block of so many bytes, of which the last may be shorter.
/// Browsers can only hash what is in memory at once.
pub const HASH_BLOCK: u64 = 8 * 1024 * 1024;

/// The id of an upload: UUID version 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct UploadId(pub Uuid);

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for UploadId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// An upload in parts, as far as it is here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct PartialUpload {
    pub id: UploadId,
    /// The name of the file, as the client has told it.
    pub file_name: String,
    /// The size of the file, in bytes.
    pub length: u64,
    /// How many bytes are here, from the beginning.
    pub offset: u64,
    pub created_at: Timestamp,
    /// When it is removed, unless another part comes before.
    pub expires_at: Timestamp,
    /// The session that it has become, once all bytes are here.
    pub session: Option<Session>,
}

/// The answer to who begins an upload of a file that they have sent before: nothing was begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct AlreadySent {
    /// The session of the same recording.
    pub session: Session,
}
