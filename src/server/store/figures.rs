//! What nodes counted for the dashboard, by hour and by five minutes. Each row belongs to one run of one node, so nobody else
//! writes it, and writing it again changes nothing. Called by `hours`.

use super::{Db, Store};
use crate::model::{State, Timestamp};

/// A row of figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiguresRow {
    /// Where the time begins in which this was counted, and how many seconds it has.
    pub starts_at: Timestamp,
    pub seconds: i64,
    /// The run of the node.
    pub node: String,
    /// JSON.
    pub counters: String,
}

impl Store {
    /// Stores what a node counted, instead of what it stored before of the same time.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn put_figures(&self, row: &FiguresRow) -> Result<(), sqlx::Error> {
        on!(self, |pool| sqlx::query(
            "INSERT INTO figures (starts_at, seconds, node, counters) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (seconds, starts_at, node) DO UPDATE SET counters = excluded.counters"
        )
        .bind(row.starts_at.0)
        .bind(row.seconds)
        .bind(&row.node)
        .bind(&row.counters)
        .execute(pool)
        .await
        .map(drop))
    }

    /// What all nodes counted in times of so many seconds that begin at `from` or later, oldest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn figures(&self, seconds: i64, from: Timestamp) -> Result<Vec<FiguresRow>, sqlx::Error> {
        let rows: Vec<(i64, String, String)> = on!(self, |pool| sqlx::query_as(
            "SELECT starts_at, node, counters FROM figures WHERE seconds = $1 AND starts_at >= $2 \
             ORDER BY starts_at, node"
        )
        .bind(seconds)
        .bind(from.0)
        .fetch_all(pool)
        .await)?;
        let row = |(starts_at, node, counters)| FiguresRow { starts_at: Timestamp(starts_at), seconds, node, counters };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Deletes what was counted in times of so many seconds that began before `before`. Returns how many rows that were.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_figures(&self, seconds: i64, before: Timestamp) -> Result<u64, sqlx::Error> {
        on!(self, |pool| sqlx::query("DELETE FROM figures WHERE seconds = $1 AND starts_at < $2")
            .bind(seconds)
            .bind(before.0)
            .execute(pool)
            .await
            .map(|done| done.rows_affected()))
    }

    /// How many of the sessions that still exist have ended since `since`, by state.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn ended_since(&self, since: Timestamp) -> Result<Vec<(State, u64)>, sqlx::Error> {
        // Only sessions that have ended have `finished_at`.
        let rows: Vec<(String, i64)> = on!(self, |pool| sqlx::query_as(
            "SELECT status, COUNT(*) FROM sessions WHERE finished_at >= $1 GROUP BY status"
        )
        .bind(since.0)
        .fetch_all(pool)
        .await)?;
        rows.into_iter().map(|(state, n)| Ok((super::values::parse(&state)?, n as u64))).collect()
    }
}
