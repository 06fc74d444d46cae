//! Uploads that come in parts: how much of each is here, and where its parts lie. Called by `resumable`; [`Store::enqueue`]
//! turns an upload into a session.

use super::{Db, Dialect, Store, queue::KEPT_BYTES, values::parse};
use crate::{
    model::{Session, SessionId, Timestamp, upload::UploadId},
    server::owner::Owner,
};

/// An upload that comes in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRow {
    pub id: UploadId,
    /// The size of the whole file, in bytes.
    pub length: u64,
    /// How many bytes are here, from the beginning.
    pub received: u64,
    /// As the client has sent it.
    pub metadata: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// The session that it has become.
    pub session_id: Option<SessionId>,
}

/// A part of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRow {
    /// Its name in the storage.
    pub name: String,
    /// The place of its first byte in the file; none if it isn't stored, or not yet.
    pub first_byte: Option<u64>,
    pub bytes: u64,
}

/// How many unfinished uploads there may be, and how many bytes an owner may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnfinishedLimits {
    pub per_owner: u32,
    /// Of the newcomers at one address.
    pub per_address: u32,
    pub bytes_per_owner: Option<u64>,
}

/// Why an upload can't be added.
#[derive(Debug, thiserror::Error)]
pub enum AddUploadError {
    #[error("the owner has {0} unfinished uploads")]
    Owner(u32),
    #[error("the newcomers at an address have {0} unfinished uploads")]
    Address(u32),
    #[error("the owner keeps {used} bytes and may keep {limit}")]
    Quota { used: u64, limit: u64 },
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

type Columns = (String, i64, i64, String, i64, i64, Option<String>);

impl Store {
    /// Adds an upload of which nothing is here yet. `address` is set if the owner counts by address.
    ///
    /// # Errors
    /// If the owner or the address has too many, the owner would keep too many bytes, or the database fails; then nothing is
    /// added.
    pub async fn add_upload(
        &self,
        owner: &Owner,
        address: Option<&str>,
        upload: &UploadRow,
        limits: &UnfinishedLimits,
    ) -> Result<(), AddUploadError> {
        on!(self, |pool| {
            // Under the lock of the queue, so that what is counted stays true.
            let mut tx = pool.begin_enqueue().await?;
            let (own, near): (i64, i64) = sqlx::query_as(
                "SELECT COUNT(*) FILTER (WHERE owner = $1), COUNT(*) FILTER (WHERE address = $2) FROM uploads \
                 WHERE session_id IS NULL AND (owner = $1 OR address = $2)",
            )
            .bind(owner.as_str())
            .bind(address)
            .fetch_one(&mut *tx)
            .await?;
            if own >= i64::from(limits.per_owner) {
                return Ok(Err(AddUploadError::Owner(limits.per_owner)));
            }
            if near >= i64::from(limits.per_address) {
                return Ok(Err(AddUploadError::Address(limits.per_address)));
            }
            if let Some(limit) = limits.bytes_per_owner {
                let (used,): (i64,) = sqlx::query_as(KEPT_BYTES).bind(owner.as_str()).fetch_one(&mut *tx).await?;
                let used = used.unsigned_abs();
                if used.saturating_add(upload.length) > limit {
                    return Ok(Err(AddUploadError::Quota { used, limit }));
                }
            }
            sqlx::query(
                "INSERT INTO uploads (id, owner, address, length, received, metadata, created_at, expires_at) \
                 VALUES ($1, $2, $3, $4, 0, $5, $6, $7)",
            )
            .bind(upload.id.to_string())
            .bind(owner.as_str())
            .bind(address)
            .bind(upload.length as i64)
            .bind(&upload.metadata)
            .bind(upload.created_at.0)
            .bind(upload.expires_at.0)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(Ok(()))
        })?
    }

    /// An upload of this owner that hasn't expired.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn upload(&self, owner: &Owner, id: UploadId, now: Timestamp) -> Result<Option<UploadRow>, sqlx::Error> {
        let row: Option<Columns> = on!(self, |pool| sqlx::query_as(
            "SELECT id, length, received, metadata, created_at, expires_at, session_id FROM uploads \
             WHERE id = $1 AND owner = $2 AND expires_at > $3"
        )
        .bind(id.to_string())
        .bind(owner.as_str())
        .bind(now.0)
        .fetch_optional(pool)
        .await)?;
        let Some((id, length, received, metadata, created_at, expires_at, session)) = row else { return Ok(None) };
        Ok(Some(UploadRow {
            id: parse(&id)?,
            length: length.unsigned_abs(),
            received: received.unsigned_abs(),
            metadata,
            created_at: Timestamp(created_at),
            expires_at: Timestamp(expires_at),
            session_id: session.as_deref().map(parse).transpose()?,
        }))
    }

    /// Notes the name of a part that is about to be stored. False if the upload is gone or expired.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn begin_part(&self, id: UploadId, name: &str, now: Timestamp) -> Result<bool, sqlx::Error> {
        let added = on!(self, |pool| sqlx::query(
            "INSERT INTO upload_parts (name, upload_id, first_byte, bytes) \
             SELECT $2, id, NULL, 0 FROM uploads WHERE id = $1 AND expires_at > $3"
        )
        .bind(id.to_string())
        .bind(name)
        .bind(now.0)
        .execute(pool)
        .await
        .map(|done| done.rows_affected()))?;
        Ok(added > 0)
    }

    /// Adds a part that is stored to its upload, which then expires at `expires_at`. False, with nothing changed, if other bytes
    /// have come to its place meanwhile, or the upload is gone or expired.
    ///
    /// # Errors
    /// If the database fails; then nothing is changed.
    pub async fn add_part(
        &self,
        id: UploadId,
        part: &PartRow,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, sqlx::Error> {
        let Some(first_byte) = part.first_byte else { return Ok(false) };
        on!(self, |pool| {
            let mut tx = pool.begin_write().await?;
            let moved = sqlx::query(
                "UPDATE uploads SET received = received + $3, expires_at = $4 \
                 WHERE id = $1 AND received = $2 AND session_id IS NULL AND expires_at > $5",
            )
            .bind(id.to_string())
            .bind(first_byte as i64)
            .bind(part.bytes as i64)
            .bind(expires_at.0)
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
            if moved.rows_affected() == 0 {
                return Ok(false);
            }
            let noted = sqlx::query("UPDATE upload_parts SET first_byte = $2, bytes = $3 WHERE name = $1")
                .bind(&part.name)
                .bind(first_byte as i64)
                .bind(part.bytes as i64)
                .execute(&mut *tx)
                .await?;
            if noted.rows_affected() == 0 {
                return Ok(false);
            }
            tx.commit().await?;
            Ok(true)
        })
    }

    /// All parts of an upload: those that are stored in their order, and those that aren't.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn parts(&self, id: UploadId) -> Result<Vec<PartRow>, sqlx::Error> {
        let rows: Vec<(String, Option<i64>, i64)> = on!(self, |pool| sqlx::query_as(
            "SELECT name, first_byte, bytes FROM upload_parts WHERE upload_id = $1 ORDER BY first_byte"
        )
        .bind(id.to_string())
        .fetch_all(pool)
        .await)?;
        let part = |(name, first_byte, bytes): (String, Option<i64>, i64)| PartRow {
            name,
            first_byte: first_byte.map(i64::unsigned_abs),
            bytes: bytes.unsigned_abs(),
        };
        Ok(rows.into_iter().map(part).collect())
    }

    /// How many parts an upload has.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn count_parts(&self, id: UploadId) -> Result<u32, sqlx::Error> {
        let (count,): (i64,) =
            on!(self, |pool| sqlx::query_as("SELECT COUNT(*) FROM upload_parts WHERE upload_id = $1")
                .bind(id.to_string())
                .fetch_one(pool)
                .await)?;
        Ok(super::values::to_u32(count))
    }

    /// Forgets a part that isn't in the storage any more.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn remove_part(&self, name: &str) -> Result<(), sqlx::Error> {
        on!(self, |pool| sqlx::query("DELETE FROM upload_parts WHERE name = $1")
            .bind(name)
            .execute(pool)
            .await
            .map(drop))
    }

    /// Lets an upload of this owner expire now. False if there is none.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn expire_upload(&self, owner: &Owner, id: UploadId) -> Result<bool, sqlx::Error> {
        let changed = on!(self, |pool| sqlx::query("UPDATE uploads SET expires_at = 0 WHERE id = $1 AND owner = $2")
            .bind(id.to_string())
            .bind(owner.as_str())
            .execute(pool)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(changed > 0)
    }

    /// Removes an expired upload without parts.
    ///
    /// # Errors
    /// If the database fails, or the upload has a part.
    pub async fn remove_upload(&self, id: UploadId) -> Result<(), sqlx::Error> {
        on!(self, |pool| sqlx::query("DELETE FROM uploads WHERE id = $1")
            .bind(id.to_string())
            .execute(pool)
            .await
            .map(drop))
    }

    /// Uploads that expired before `before`, at most so many.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn expired_uploads(&self, before: Timestamp, limit: u32) -> Result<Vec<UploadId>, sqlx::Error> {
        let rows: Vec<(String,)> = on!(self, |pool| sqlx::query_as(
            "SELECT id FROM uploads WHERE expires_at < $1 ORDER BY expires_at LIMIT $2"
        )
        .bind(before.0)
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await)?;
        rows.into_iter().map(|(id,)| parse(&id)).collect()
    }

    /// The newest session of this owner whose recording has this hash, and that neither failed nor was cancelled.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn session_of_recording(&self, owner: &Owner, hash: &str) -> Result<Option<Session>, sqlx::Error> {
        let found: Option<(String,)> = on!(self, |pool| sqlx::query_as(concat!(
            "SELECT id FROM sessions WHERE owner = $1 AND recording_hash = $2 AND status NOT IN ",
            state!(stopped),
            " ORDER BY id DESC LIMIT 1"
        ))
        .bind(owner.as_str())
        .bind(hash)
        .fetch_optional(pool)
        .await)?;
        let Some((id,)) = found else { return Ok(None) };
        self.session(owner, parse(&id)?).await
    }
}
