//! Segments and waveforms of sessions. Called by `sessions`, `stream` and `jobs`.

use super::{Db, Dialect, Store, json_list, rows::SegmentRow};
use crate::{
    model::{Segment, SessionId},
    server::owner::Owner,
};

macro_rules! insert_segment {
    ($executor:expr, $id:expr, $segment:expr, $words:expr) => {
        sqlx::query(
            "INSERT INTO segments (session_id, idx, start_s, end_s, text, confidence, words, speaker) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind($id.to_string())
        .bind(i64::from($segment.index))
        .bind($segment.start)
        .bind($segment.end)
        .bind(&$segment.text)
        .bind($segment.confidence)
        .bind($words)
        .bind($segment.speaker.map(i64::from))
        .execute($executor)
        .await
    };
}

impl Store {
    /// Returns segments of a session in order, from index `from`, at most `limit`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn segments(&self, id: SessionId, from: u32, limit: u32) -> Result<Vec<Segment>, sqlx::Error> {
        let rows: Vec<SegmentRow> = on!(self, |pool| sqlx::query_as(
            "SELECT idx, start_s, end_s, text, confidence, words, speaker FROM segments \
             WHERE session_id = $1 AND idx >= $2 ORDER BY idx LIMIT $3",
        )
        .bind(id.to_string())
        .bind(i64::from(from))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await)?;
        rows.into_iter().map(SegmentRow::into_segment).collect()
    }

    /// Counts those of these sessions that this owner has, and the bytes of their transcripts as they are stored.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn transcript_bytes(&self, owner: &Owner, ids: &[SessionId]) -> Result<(u64, u64), sqlx::Error> {
        let ids = json_list(ids)?;
        let (found, bytes): (i64, i64) = on!(self, |pool| {
            sqlx::query_as(pool.pick(
            "SELECT COUNT(DISTINCT s.id), COALESCE(SUM(OCTET_LENGTH(g.text) + OCTET_LENGTH(g.words)), 0) FROM sessions s \
             LEFT JOIN segments g ON g.session_id = s.id WHERE s.owner = $1 AND s.id IN (SELECT value FROM json_each($2))",
            "SELECT COUNT(DISTINCT s.id), CAST(COALESCE(SUM(OCTET_LENGTH(g.text) + OCTET_LENGTH(g.words)), 0) AS BIGINT) \
             FROM sessions s LEFT JOIN segments g ON g.session_id = s.id \
             WHERE s.owner = $1 AND s.id IN (SELECT jsonb_array_elements_text(CAST($2 AS jsonb)))",
        ))
        .bind(owner.as_str())
        .bind(ids)
        .fetch_one(pool)
        .await
        })?;
        Ok((found as u64, bytes as u64))
    }

    /// Returns where the last segment of a speaker ends, in seconds; none if the speaker has none yet.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn speaker_end(&self, id: SessionId, speaker: u16) -> Result<Option<f64>, sqlx::Error> {
        let (end,): (Option<f64>,) =
            on!(self, |pool| sqlx::query_as("SELECT MAX(end_s) FROM segments WHERE session_id = $1 AND speaker = $2")
                .bind(id.to_string())
                .bind(i64::from(speaker))
                .fetch_one(pool)
                .await)?;
        Ok(end)
    }

    /// Returns the waveform of a session's recording; none before it has been decoded.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn waveform(&self, id: SessionId) -> Result<Option<Vec<u8>>, sqlx::Error> {
        let row: Option<(Vec<u8>,)> =
            on!(self, |pool| sqlx::query_as("SELECT peaks FROM waveforms WHERE session_id = $1")
                .bind(id.to_string())
                .fetch_optional(pool)
                .await)?;
        Ok(row.map(|(peaks,)| peaks))
    }
}

/// Encodes the words of a segment as JSON, as the table stores them.
pub(super) fn words(segment: &Segment) -> Result<String, sqlx::Error> {
    serde_json::to_string(&segment.words).map_err(|e| sqlx::Error::Encode(e.into()))
}
