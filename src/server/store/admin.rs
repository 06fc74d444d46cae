//! The password of administrators, as a hash, and the browsers that are signed in with it. Called by `server::admin`.

use super::{Db, Dialect, Store};
use crate::model::Timestamp;

/// The password of administrators, as far as the database knows it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredPassword {
    /// Another one with each change.
    pub id: String,
    /// By argon2id, in the PHC string format.
    pub hash: String,
}

impl Store {
    /// Returns the password of administrators, if there is one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn admin_password(&self) -> Result<Option<StoredPassword>, sqlx::Error> {
        let row: Option<(String, String)> =
            on!(self, |pool| sqlx::query_as("SELECT id, hash FROM admin_password").fetch_optional(pool).await)?;
        Ok(row.map(|(id, hash)| StoredPassword { id, hash }))
    }

    /// Replaces the password of administrators, or removes it. That ends all sign-ins.
    ///
    /// # Errors
    /// If the database fails; then nothing is changed.
    pub async fn set_admin_password(
        &self,
        password: Option<&StoredPassword>,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        on!(self, |pool| {
            let mut tx = pool.begin_write().await?;
            sqlx::query("DELETE FROM admin_password").execute(&mut *tx).await?;
            sqlx::query("DELETE FROM admin_sign_ins").execute(&mut *tx).await?;
            if let Some(password) = password {
                sqlx::query("INSERT INTO admin_password (one, id, hash, changed_at) VALUES (1, $1, $2, $3)")
                    .bind(&password.id)
                    .bind(&password.hash)
                    .bind(now.0)
                    .execute(&mut *tx)
                    .await?;
            }
            tx.commit().await
        })
    }

    /// Adds a sign-in with the password of this id. Also deletes those that have expired.
    ///
    /// # Errors
    /// If the database fails; then nothing is changed.
    pub async fn add_sign_in(
        &self,
        hash: &str,
        password: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), sqlx::Error> {
        on!(self, |pool| {
            let mut tx = pool.begin_write().await?;
            sqlx::query("DELETE FROM admin_sign_ins WHERE expires_at <= $1").bind(now.0).execute(&mut *tx).await?;
            sqlx::query("INSERT INTO admin_sign_ins (hash, password, created_at, expires_at) VALUES ($1, $2, $3, $4)")
                .bind(hash)
                .bind(password)
                .bind(now.0)
                .bind(expires_at.0)
                .execute(&mut *tx)
                .await?;
            tx.commit().await
        })
    }

    /// Whether a sign-in is valid: not expired, not ended, and with the present password. The password is compared here,
    /// because a sign-in may be added while the password is being changed.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn is_signed_in(&self, hash: &str, now: Timestamp) -> Result<bool, sqlx::Error> {
        let (found,): (i64,) = on!(self, |pool| sqlx::query_as(
            "SELECT COUNT(*) FROM admin_sign_ins s JOIN admin_password p ON p.id = s.password \
             WHERE s.hash = $1 AND s.expires_at > $2"
        )
        .bind(hash)
        .bind(now.0)
        .fetch_one(pool)
        .await)?;
        Ok(found > 0)
    }

    /// Ends a sign-in.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end_sign_in(&self, hash: &str) -> Result<(), sqlx::Error> {
        on!(self, |pool| sqlx::query("DELETE FROM admin_sign_ins WHERE hash = $1")
            .bind(hash)
            .execute(pool)
            .await
            .map(drop))
    }
}
