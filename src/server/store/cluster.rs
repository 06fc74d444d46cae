//! The cluster of nodes that share a database: its id, which key signs, where recordings are, and its nodes. Called by
//! `cluster` and `nodes`.

use super::{Db, Dialect, Store, values};
use crate::model::{EngineInfo, Timestamp, load::NodeLoad};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A node that hasn't been heard of for this long isn't running any more.
const NODE_TIMEOUT: Duration = Duration::from_secs(20);
/// Its row is kept for so many seconds more, so that an operator sees when it was there last.
const KEEP_NODE_SECS: f64 = 3600.0;

/// Reads a [`ClusterRow`].
pub(super) const SELECT: &str = "SELECT id, cookie_key, cookie_key_before, recordings FROM cluster";

/// What the database knows about its cluster.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ClusterRow {
    pub id: String,
    /// The fingerprint of the key that signs, and that of the one before.
    pub cookie_key: Option<String>,
    pub cookie_key_before: Option<String>,
    /// Where the recordings are, for people.
    pub recordings: Option<String>,
}

/// An engine of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEngine {
    #[serde(flatten)]
    pub info: EngineInfo,
    /// If its model is on its way: how far that is, for people.
    #[serde(default)]
    pub waiting: Option<String>,
    /// Whether it could be used since the node's start, and can't any more.
    #[serde(default)]
    pub lost: bool,
}

impl NodeEngine {
    /// Whether it can be used now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.info.available && self.waiting.is_none()
    }

    /// Why it can't be used now, for operators; empty if it can.
    #[must_use]
    pub fn why_not(&self) -> &str {
        self.info.reason.as_deref().or(self.waiting.as_deref()).unwrap_or_default()
    }

    /// That it can't be used, though sessions that don't choose an engine need it, and its model isn't on its way: with the
    /// reason and the command that changes it, for operators. None of one that was [lost](Self::lost).
    #[must_use]
    pub fn missing_default(&self) -> Option<String> {
        let info = &self.info;
        if info.available || !info.is_default || self.lost {
            return None;
        }
        let install = info.install.as_ref().map(|install| format!(" To make it available: {install}"));
        let (name, reason) = (&info.name, self.why_not());
        Some(format!("{name}, the default engine, can't be used on this node. {reason}{}", install.unwrap_or_default()))
    }
}

/// A node, as it described itself with its last heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRow {
    pub id: String,
    pub name: String,
    /// `serve` or `worker`.
    pub role: String,
    pub version: String,
    /// How many sessions it transcribes at once, and how many it does now.
    pub workers: u32,
    pub running: u32,
    pub engines: Vec<NodeEngine>,
    /// The fingerprints of its keys, the one that signs first.
    pub cookie_keys: Vec<String>,
    /// By how many milliseconds its clock is ahead of the database's.
    pub clock_ahead_ms: Option<i64>,
    /// Why it claims nothing, for operators.
    pub problem: Option<String>,
    /// What it does; none from a node of a version that doesn't tell.
    pub load: Option<NodeLoad>,
    pub started_at: Timestamp,
    pub heartbeat_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    name: String,
    role: String,
    version: String,
    workers: i64,
    running: i64,
    engines: String,
    cookie_keys: String,
    clock_ahead_ms: Option<i64>,
    problem: Option<String>,
    load: Option<String>,
    started_at: i64,
    heartbeat_at: i64,
}

impl NodeRow {
    /// Whether the node is running, by a time of the database's clock.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now.seconds_since(self.heartbeat_at) < NODE_TIMEOUT.as_secs_f64()
    }
}

impl From<Row> for NodeRow {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            name: row.name,
            role: row.role,
            version: row.version,
            workers: values::to_u32(row.workers),
            running: values::to_u32(row.running),
            // A node of another version may describe itself in a way that this one doesn't know.
            engines: serde_json::from_str(&row.engines).unwrap_or_default(),
            cookie_keys: serde_json::from_str(&row.cookie_keys).unwrap_or_default(),
            clock_ahead_ms: row.clock_ahead_ms,
            problem: row.problem,
            load: row.load.and_then(|load| serde_json::from_str(&load).ok()),
            started_at: Timestamp(row.started_at),
            heartbeat_at: Timestamp(row.heartbeat_at),
        }
    }
}

impl Store {
    /// Reads what is known about the cluster. Stores `candidate` as its id if it has none.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn cluster(&self, candidate: &str) -> Result<ClusterRow, sqlx::Error> {
        on!(self, |pool| {
            sqlx::query("INSERT INTO cluster (one, id) VALUES (1, $1) ON CONFLICT (one) DO NOTHING")
                .bind(candidate)
                .execute(pool)
                .await?;
            sqlx::query_as(SELECT).fetch_one(pool).await
        })
    }

    /// Makes `key` the key that signs, if that is still `before`. False if it isn't.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn change_cookie_key(&self, before: Option<&str>, key: &str) -> Result<bool, sqlx::Error> {
        let changed = on!(self, |pool| sqlx::query(
            "UPDATE cluster SET cookie_key = $1, cookie_key_before = $2 WHERE cookie_key IS NOT DISTINCT FROM $2"
        )
        .bind(key)
        .bind(before)
        .execute(pool)
        .await
        .map(|done| done.rows_affected()))?;
        Ok(changed > 0)
    }

    /// Stores where the recordings are, if nobody has. False if somebody has.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn claim_recordings_place(&self, place: &str) -> Result<bool, sqlx::Error> {
        let changed = on!(self, |pool| sqlx::query("UPDATE cluster SET recordings = $1 WHERE recordings IS NULL")
            .bind(place)
            .execute(pool)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(changed > 0)
    }

    /// Adds a node or describes it anew, with the database's time as that of its heartbeat. Forgets nodes that are long
    /// gone.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn put_node(&self, node: &NodeRow, now: Timestamp) -> Result<(), sqlx::Error> {
        let [engines, keys] = [super::json_list(&node.engines)?, super::json_list(&node.cookie_keys)?];
        let load =
            node.load.as_ref().map(serde_json::to_string).transpose().map_err(|e| sqlx::Error::Encode(e.into()))?;
        on!(self, |pool| {
            sqlx::query(
                "INSERT INTO nodes (id, name, role, version, workers, running, engines, cookie_keys, clock_ahead_ms, \
                 problem, started_at, heartbeat_at, load) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
                 ON CONFLICT (id) DO UPDATE SET running = excluded.running, engines = excluded.engines, \
                 clock_ahead_ms = excluded.clock_ahead_ms, problem = excluded.problem, \
                 heartbeat_at = excluded.heartbeat_at, load = excluded.load",
            )
            .bind(&node.id)
            .bind(&node.name)
            .bind(&node.role)
            .bind(&node.version)
            .bind(i64::from(node.workers))
            .bind(i64::from(node.running))
            .bind(&engines)
            .bind(&keys)
            .bind(node.clock_ahead_ms)
            .bind(&node.problem)
            .bind(node.started_at.0)
            .bind(now.0)
            .bind(&load)
            .execute(pool)
            .await?;
            sqlx::query("DELETE FROM nodes WHERE heartbeat_at < $1")
                .bind(now.plus_seconds(-KEEP_NODE_SECS).0)
                .execute(pool)
                .await
                .map(drop)
        })
    }

    /// Removes a node that stops.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn remove_node(&self, id: &str) -> Result<(), sqlx::Error> {
        on!(self, |pool| sqlx::query("DELETE FROM nodes WHERE id = $1").bind(id).execute(pool).await.map(drop))
    }

    /// The nodes that are running or were until lately, by name.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, sqlx::Error> {
        let rows: Vec<Row> = on!(self, |pool| sqlx::query_as("SELECT * FROM nodes ORDER BY name, started_at, id")
            .fetch_all(pool)
            .await)?;
        Ok(rows.into_iter().map(NodeRow::from).collect())
    }

    /// Notes the fingerprint of the key with which a node signs from its start on.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn note_signing_key(&self, fingerprint: &str) -> Result<(), sqlx::Error> {
        on!(self, |pool| sqlx::query(
            "INSERT INTO keys (name, value) VALUES ('signing', $1) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE keys.value <> excluded.value"
        )
        .bind(fingerprint.as_bytes())
        .execute(pool)
        .await
        .map(drop))
    }

    /// The fingerprint of the key with which the node signs that was started last; none if no node has noted one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn signing_key(&self) -> Result<Option<String>, sqlx::Error> {
        let row: Option<(Vec<u8>,)> =
            on!(self, |pool| sqlx::query_as("SELECT value FROM keys WHERE name = 'signing'")
                .fetch_optional(pool)
                .await)?;
        Ok(row.map(|(fingerprint,)| String::from_utf8_lossy(&fingerprint).into_owned()))
    }

    /// The keys that the nodes of this database generated: the one that signs, then those that only verify.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn generated_keys(&self) -> Result<Vec<Vec<u8>>, sqlx::Error> {
        // 'cookie', then 'cookie-before' and 'cookie-next'.
        let rows: Vec<(Vec<u8>,)> = on!(self, |pool| sqlx::query_as(
            "SELECT value FROM keys WHERE name IN ('cookie', 'cookie-before', 'cookie-next') ORDER BY name"
        )
        .fetch_all(pool)
        .await)?;
        Ok(rows.into_iter().map(|(key,)| key).collect())
    }

    /// Stores a generated key that is to sign next, unless there is one already. Returns the one that is there.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn next_generated_key(&self, candidate: &[u8]) -> Result<Vec<u8>, sqlx::Error> {
        on!(self, |pool| {
            sqlx::query("INSERT INTO keys (name, value) VALUES ('cookie-next', $1) ON CONFLICT (name) DO NOTHING")
                .bind(candidate)
                .execute(pool)
                .await?;
            let (key,) = sqlx::query_as("SELECT value FROM keys WHERE name = 'cookie-next'").fetch_one(pool).await?;
            Ok(key)
        })
    }

    /// Lets the next generated key sign; the one that signed until now verifies from then on, and the one before it no
    /// more. Changes nothing if there is none.
    ///
    /// # Errors
    /// If the database fails; then nothing is changed.
    pub async fn promote_generated_key(&self) -> Result<(), sqlx::Error> {
        on!(self, |pool| {
            let mut tx = pool.begin_write().await?;
            let next: Option<(String,)> =
                sqlx::query_as("SELECT name FROM keys WHERE name = 'cookie-next'").fetch_optional(&mut *tx).await?;
            if next.is_none() {
                return Ok(());
            }
            for statement in [
                "DELETE FROM keys WHERE name = 'cookie-before'",
                "UPDATE keys SET name = 'cookie-before' WHERE name = 'cookie'",
                "UPDATE keys SET name = 'cookie' WHERE name = 'cookie-next'",
            ] {
                sqlx::query(statement).execute(&mut *tx).await?;
            }
            tx.commit().await
        })
    }
}
