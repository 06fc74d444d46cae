//! Access to an owner's sessions from another browser: links that work once, and recovery keys. Called by
//! `server::identity`.

use super::{Db, Dialect, Store};
use crate::{model::Timestamp, server::owner::Owner};

impl Store {
    /// Counts an owner's sessions.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn count(&self, owner: &Owner) -> Result<u64, sqlx::Error> {
        let (count,): (i64,) = on!(self, |pool| {
            sqlx::query_as("SELECT COUNT(*) FROM sessions WHERE owner = $1").bind(owner.as_str()).fetch_one(pool).await
        })?;
        Ok(count.unsigned_abs())
    }

    /// Adds a link that works until `expires_at`, or a recovery key if that is none. It replaces the owner's previous
    /// one of the same kind. Also deletes all expired links.
    ///
    /// # Errors
    /// If the database fails; then nothing is changed.
    pub async fn replace_link(
        &self,
        owner: &Owner,
        hash: &str,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        on!(self, |pool| {
            let mut tx = pool.begin_write().await?;
            sqlx::query(
                "DELETE FROM identity_links WHERE expires_at <= $3 \
                 OR (owner = $1 AND (expires_at IS NULL) = (CAST($2 AS BIGINT) IS NULL))",
            )
            .bind(owner.as_str())
            .bind(expires_at.map(|t| t.0))
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
            sqlx::query("INSERT INTO identity_links (hash, owner, created_at, expires_at) VALUES ($1, $2, $3, $4)")
                .bind(hash)
                .bind(owner.as_str())
                .bind(now.0)
                .bind(expires_at.map(|t| t.0))
                .execute(&mut *tx)
                .await?;
            tx.commit().await
        })
    }

    /// Returns the owner whose sessions a link or recovery key opens, and when it expires. It can still be used
    /// afterwards.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn link(&self, hash: &str, now: Timestamp) -> Result<Option<(Owner, Option<Timestamp>)>, sqlx::Error> {
        let row: Option<(String, Option<i64>)> = on!(self, |pool| {
            sqlx::query_as(
            "SELECT owner, expires_at FROM identity_links WHERE hash = $1 AND (expires_at IS NULL OR expires_at > $2)",
        )
        .bind(hash)
        .bind(now.0)
        .fetch_optional(pool)
        .await
        })?;
        Ok(row.map(|(owner, at)| (Owner::from_store(owner), at.map(Timestamp))))
    }

    /// Returns the owner as [`Store::link`] does, and deletes the link. Of several calls at once only one gets the
    /// owner.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn take_link(&self, hash: &str, now: Timestamp) -> Result<Option<Owner>, sqlx::Error> {
        let taken: Option<(String,)> = on!(self, |pool| sqlx::query_as(
            "DELETE FROM identity_links WHERE hash = $1 AND expires_at > $2 RETURNING owner"
        )
        .bind(hash)
        .bind(now.0)
        .fetch_optional(pool)
        .await)?;
        if let Some((owner,)) = taken {
            return Ok(Some(Owner::from_store(owner)));
        }
        let found = self.link(hash, now).await?;
        Ok(found.and_then(|(owner, expires_at)| expires_at.is_none().then_some(owner)))
    }

    /// Returns when the owner's recovery key was made, if there is one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn recovery_key(&self, owner: &Owner) -> Result<Option<Timestamp>, sqlx::Error> {
        let row: Option<(i64,)> = on!(self, |pool| sqlx::query_as(
            "SELECT created_at FROM identity_links WHERE owner = $1 AND expires_at IS NULL"
        )
        .bind(owner.as_str())
        .fetch_optional(pool)
        .await)?;
        Ok(row.map(|(at,)| Timestamp(at)))
    }

    /// Deletes the owner's recovery key.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn revoke_recovery_key(&self, owner: &Owner) -> Result<(), sqlx::Error> {
        on!(self, |pool| sqlx::query("DELETE FROM identity_links WHERE owner = $1 AND expires_at IS NULL")
            .bind(owner.as_str())
            .execute(pool)
            .await
            .map(drop))
    }
}
