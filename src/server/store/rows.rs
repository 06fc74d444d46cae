//! How sessions and segments lie in their tables. Only `store` sees these.

use super::super::owner::Owner;
use crate::model::{Failure, Media, Segment, Session, SessionId, State, Status, Timestamp, Title, bytes};
use std::{fmt, str::FromStr};

#[derive(sqlx::FromRow)]
pub(super) struct SessionRow {
    id: String,
    owner: String,
    title: String,
    created_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    updated_at: i64,
    engine: String,
    model: Option<String>,
    language: Option<String>,
    file_name: String,
    bytes: i64,
    format: String,
    codec: String,
    sample_rate: i64,
    channels: i64,
    version: i64,
    status: String,
    stage: Option<String>,
    progress: Option<f64>,
    message: String,
    duration_processed: f64,
    duration_total: Option<f64>,
    estimated_completion: Option<i64>,
    processing_speed: Option<f64>,
    segments: i64,
    attempt: i64,
    crashes: i64,
    error_code: Option<String>,
    error_message: Option<String>,
    needs_room: Option<i64>,
    queue_position: Option<i64>,
}

impl SessionRow {
    pub(super) fn crashes(&self) -> u32 {
        small(self.crashes)
    }

    pub(super) fn into_session(self) -> Result<(Session, Owner), sqlx::Error> {
        let id: SessionId = parse(&self.id)?;
        let state: State = parse(&self.status)?;
        let queue_position = self.queue_position.map(small);
        // The place in the queue changes without a write to this row, so its message is made on reading.
        let message = match (queue_position, self.needs_room) {
            (Some(_), Some(needed)) => {
                format!("Waiting for room on the server's disk: needs about {}", bytes(needed as u64))
            }
            (Some(0), None) => "Next in line".to_owned(),
            (Some(1), None) => "Waiting for 1 session before it".to_owned(),
            (Some(n), None) => format!("Waiting for {n} sessions before it"),
            (None, _) => self.message,
        };
        let status = Status {
            session_id: id,
            version: self.version as u64,
            state,
            stage: self.stage.as_deref().map(parse).transpose()?,
            progress: self.progress,
            message,
            timestamp: Timestamp(self.updated_at),
            duration_processed: self.duration_processed,
            duration_total: self.duration_total,
            estimated_completion: self.estimated_completion.map(Timestamp),
            processing_speed: self.processing_speed,
            segments: small(self.segments),
            queue_position,
            attempt: small(self.attempt),
            error: self.error_code.map(|code| Failure { code, message: self.error_message.unwrap_or_default() }),
        };
        let session = Session {
            id,
            title: Title::new(&self.title).map_err(|e| sqlx::Error::Decode(e.into()))?,
            created_at: Timestamp(self.created_at),
            started_at: self.started_at.map(Timestamp),
            finished_at: self.finished_at.map(Timestamp),
            engine: parse(&self.engine)?,
            model: self.model,
            language: self.language,
            media: Media {
                file_name: self.file_name,
                bytes: self.bytes as u64,
                format: self.format,
                codec: self.codec,
                sample_rate: small(self.sample_rate),
                channels: u16::try_from(self.channels).unwrap_or(u16::MAX),
            },
            status,
        };
        Ok((session, Owner::from_store(self.owner)))
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct SegmentRow {
    idx: i64,
    start_s: f64,
    end_s: f64,
    text: String,
    confidence: Option<f64>,
    words: String,
}

impl SegmentRow {
    pub(super) fn into_segment(self) -> Result<Segment, sqlx::Error> {
        Ok(Segment {
            index: small(self.idx),
            start: self.start_s,
            end: self.end_s,
            text: self.text,
            confidence: self.confidence.map(|c| c as f32),
            words: serde_json::from_str(&self.words).map_err(|e| sqlx::Error::Decode(e.into()))?,
        })
    }
}

/// A value kept as text. What was written by another version of Hark may not parse.
pub(super) fn parse<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, sqlx::Error> {
    text.parse().map_err(|e: T::Err| sqlx::Error::Decode(e.to_string().into()))
}

/// A count, which SQL keeps as a signed 64-bit number.
pub(super) fn small(n: i64) -> u32 {
    u32::try_from(n).unwrap_or(if n < 0 { 0 } else { u32::MAX })
}
