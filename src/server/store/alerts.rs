//! The alerts that have begun, the messages about them that wait to be sent, what nodes counted for the rules, and the errors
//! that sessions have failed with. Called by `alerts`.

use super::{Db, Dialect, Store};
use crate::model::Timestamp;

/// Nodes that have said nothing for so many seconds don't count any more.
const SILENCE_SECS: f64 = 60.0;
/// What they said is kept for so many seconds, and so is an alert that its node doesn't look after any more.
const KEEP_SECS: f64 = 600.0;

/// An alert that has begun.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct AlertRow {
    /// The rule's name.
    pub name: String,
    /// The node that it concerns; empty if it concerns all.
    pub node: String,
    /// Which of several; empty if there is only one.
    pub detail: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub since: i64,
}

/// A message that waits to be sent.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct AlertMessageRow {
    pub id: String,
    pub body: String,
    /// How often it could not be sent.
    pub failures: i64,
    pub created_at: i64,
    /// When it may be sent.
    pub next_at: i64,
}

/// A message to be stored: the channel and the body.
pub type AlertMessage = (&'static str, String);

/// Stores messages that are to be sent, within a transaction of either database.
macro_rules! add_messages {
    ($tx:ident, $messages:expr, $now:expr) => {
        for (channel, body) in $messages {
            sqlx::query(ADD_MESSAGE)
                .bind(message_id())
                .bind(*channel)
                .bind(body)
                .bind($now.0)
                .execute(&mut *$tx)
                .await?;
        }
    };
}

impl Store {
    /// Stores what a node, or one that ran before under its id, has counted.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn put_alert_figures(&self, node: &str, figures: &str, now: Timestamp) -> Result<(), sqlx::Error> {
        on!(self, |pool| {
            sqlx::query(
                "INSERT INTO alert_figures (node, figures, at) VALUES ($1, $2, $3) \
                 ON CONFLICT (node) DO UPDATE SET figures = excluded.figures, at = excluded.at",
            )
            .bind(node)
            .bind(figures)
            .bind(now.0)
            .execute(pool)
            .await?;
            sqlx::query("DELETE FROM alert_figures WHERE at < $1")
                .bind(now.plus_seconds(-KEEP_SECS).0)
                .execute(pool)
                .await
                .map(drop)
        })
    }

    /// What the running nodes have counted, with their ids.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn alert_figures(&self, now: Timestamp) -> Result<Vec<(String, String)>, sqlx::Error> {
        on!(self, |pool| sqlx::query_as("SELECT node, figures FROM alert_figures WHERE at >= $1 ORDER BY node")
            .bind(now.plus_seconds(-SILENCE_SECS).0)
            .fetch_all(pool)
            .await)
    }

    /// The alerts that have begun, of all nodes together (`node` is empty) or of one. Those of a node are noted as looked
    /// after by `owner`, unless another does.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn begun_alerts(&self, node: &str, owner: &str, now: Timestamp) -> Result<Vec<AlertRow>, sqlx::Error> {
        on!(self, |pool| {
            sqlx::query(
                "UPDATE alerts SET owner = $2, seen_at = $3 WHERE node = $1 AND (owner = $2 OR seen_at < $4 OR node = '')",
            )
            .bind(node)
            .bind(owner)
            .bind(now.0)
            .bind(now.plus_seconds(-SILENCE_SECS).0)
            .execute(pool)
            .await?;
            sqlx::query_as("SELECT name, node, detail, since FROM alerts WHERE node = $1 AND owner = $2")
                .bind(node)
                .bind(owner)
                .fetch_all(pool)
                .await
        })
    }

    /// The alerts of nodes that nobody looks after any more.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn abandoned_alerts(&self, now: Timestamp) -> Result<Vec<AlertRow>, sqlx::Error> {
        on!(self, |pool| sqlx::query_as(
            "SELECT name, node, detail, since FROM alerts WHERE node <> '' AND seen_at < $1"
        )
        .bind(now.plus_seconds(-KEEP_SECS).0)
        .fetch_all(pool)
        .await)
    }

    /// Stores that an alert has begun, with the messages about it. False if it is stored already; then nothing changes.
    ///
    /// # Errors
    /// If the database fails; then nothing changes either.
    pub async fn begin_alert(
        &self,
        alert: &AlertRow,
        owner: &str,
        messages: &[AlertMessage],
        now: Timestamp,
    ) -> Result<bool, sqlx::Error> {
        on!(self, |pool| {
            let mut tx = pool.begin_write().await?;
            let added = sqlx::query(
                "INSERT INTO alerts (name, node, detail, owner, since, seen_at) VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (name, node, detail) DO NOTHING",
            )
            .bind(&alert.name)
            .bind(&alert.node)
            .bind(&alert.detail)
            .bind(owner)
            .bind(alert.since)
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
            if added.rows_affected() == 0 {
                return Ok(false);
            }
            add_messages!(tx, messages, now);
            tx.commit().await?;
            Ok(true)
        })
    }

    /// Removes an alert that is over, and stores the messages about that. False if it isn't stored; then nothing changes.
    ///
    /// # Errors
    /// If the database fails; then nothing changes either.
    pub async fn end_alert(
        &self,
        alert: &AlertRow,
        messages: &[AlertMessage],
        now: Timestamp,
    ) -> Result<bool, sqlx::Error> {
        on!(self, |pool| {
            let mut tx = pool.begin_write().await?;
            let removed =
                sqlx::query("DELETE FROM alerts WHERE name = $1 AND node = $2 AND detail = $3 AND since = $4")
                    .bind(&alert.name)
                    .bind(&alert.node)
                    .bind(&alert.detail)
                    .bind(alert.since)
                    .execute(&mut *tx)
                    .await?;
            if removed.rows_affected() == 0 {
                return Ok(false);
            }
            add_messages!(tx, messages, now);
            tx.commit().await?;
            Ok(true)
        })
    }

    /// The oldest message that waits to be sent on a channel.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn next_alert_message(&self, channel: &str) -> Result<Option<AlertMessageRow>, sqlx::Error> {
        on!(self, |pool| sqlx::query_as(
            "SELECT id, body, failures, created_at, next_at FROM alert_messages WHERE channel = $1 ORDER BY id LIMIT 1"
        )
        .bind(channel)
        .fetch_optional(pool)
        .await)
    }

    /// Notes that a message could not be sent, and when to try again.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn alert_message_failed(&self, id: &str, next: Timestamp) -> Result<(), sqlx::Error> {
        on!(self, |pool| sqlx::query("UPDATE alert_messages SET failures = failures + 1, next_at = $2 WHERE id = $1")
            .bind(id)
            .bind(next.0)
            .execute(pool)
            .await
            .map(drop))
    }

    /// Removes a message that was sent or given up.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn remove_alert_message(&self, id: &str) -> Result<(), sqlx::Error> {
        on!(self, |pool| sqlx::query("DELETE FROM alert_messages WHERE id = $1").bind(id).execute(pool).await.map(drop))
    }

    /// Notes that a session failed with an error. True if none had before.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn note_error_code(&self, code: &str, now: Timestamp) -> Result<bool, sqlx::Error> {
        let added = on!(self, |pool| sqlx::query(
            "INSERT INTO alert_errors (code, first_at) VALUES ($1, $2) ON CONFLICT (code) DO NOTHING"
        )
        .bind(code)
        .bind(now.0)
        .execute(pool)
        .await
        .map(|done| done.rows_affected()))?;
        Ok(added > 0)
    }
}

const ADD_MESSAGE: &str = "INSERT INTO alert_messages (id, channel, body, failures, created_at, next_at) \
                           VALUES ($1, $2, $3, 0, $4, $4)";

/// An id that sorts by time, also within a millisecond.
fn message_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
