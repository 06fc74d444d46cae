//! Rows of the tables of sessions and segments, and their conversion into the model's types. Used only within `store`.

use super::{
    super::owner::Owner,
    status::StatusRow,
    values::{parse, to_u16, to_u32},
};
use crate::{
    model::{Media, Segment, Session, SessionId, Timestamp, Title, Word, unsure_words},
    server::speech::languages,
};

/// The columns of a [`SessionRow`], from `sessions s`. The position in the queue is counted, unless an expression for
/// it is given.
macro_rules! session_columns {
    () => {
        session_columns!(concat!(
            "CASE WHEN s.status = ",
            state!(queued),
            " AND s.engine <> ",
            engine!(external),
            " THEN (SELECT COUNT(*) FROM sessions q \
             WHERE q.status = ",
            state!(queued),
            " AND q.engine <> ",
            engine!(external),
            " \
             AND (q.turn, q.queued_at, q.id) < (s.turn, s.queued_at, s.id)) END"
        ))
    };
    ($position:expr) => {
        concat!(
            "s.id, s.owner, s.title, s.created_at, s.started_at, s.finished_at, s.engine, s.model, s.language, \
             s.detected_language, s.detected_probability, s.vocabulary, s.channel_choice, s.track, s.tracks, \
             s.file_name, s.bytes, s.format, s.codec, s.sample_rate, s.channels, s.crashes, s.needs_room, \
             s.needs_model, ",
            selected_status!(),
            ", ",
            $position,
            " AS queue_position"
        )
    };
}

#[derive(sqlx::FromRow)]
pub(super) struct SessionRow {
    id: String,
    owner: String,
    title: String,
    created_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    engine: String,
    model: Option<String>,
    language: Option<String>,
    detected_language: Option<String>,
    detected_probability: Option<f64>,
    vocabulary: Option<String>,
    channel_choice: String,
    track: Option<String>,
    tracks: i64,
    file_name: String,
    bytes: i64,
    format: String,
    codec: String,
    sample_rate: i64,
    channels: i64,
    #[sqlx(flatten)]
    status: StatusRow,
    crashes: i64,
    needs_room: Option<i64>,
    needs_model: Option<String>,
    queue_position: Option<i64>,
}

impl SessionRow {
    pub(super) fn crashes(&self) -> u32 {
        to_u32(self.crashes)
    }

    pub(super) fn into_session(self) -> Result<(Session, Owner), sqlx::Error> {
        let id: SessionId = parse(&self.id)?;
        let needs_room = self.needs_room.map(|needed| needed as u64);
        let status = self.status.into_status(id, self.queue_position.map(to_u32), needs_room, self.needs_model)?;
        let session = Session {
            id,
            title: Title::new(&self.title).map_err(|e| sqlx::Error::Decode(e.into()))?,
            created_at: Timestamp(self.created_at),
            started_at: self.started_at.map(Timestamp),
            finished_at: self.finished_at.map(Timestamp),
            engine: parse(&self.engine)?,
            model: self.model,
            language: self.language,
            detected_language: self
                .detected_language
                .map(|language| languages::detected(language, self.detected_probability.map(|p| p as f32))),
            vocabulary: self.vocabulary,
            channels: parse(&self.channel_choice)?,
            track: self.track.as_deref().map(parse).transpose()?,
            media: Media {
                file_name: self.file_name,
                bytes: self.bytes as u64,
                format: self.format,
                codec: self.codec,
                sample_rate: to_u32(self.sample_rate),
                channels: to_u16(self.channels),
                tracks: to_u16(self.tracks),
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
    speaker: Option<i64>,
}

impl SegmentRow {
    pub(super) fn into_segment(self) -> Result<Segment, sqlx::Error> {
        let words: Vec<Word> = serde_json::from_str(&self.words).map_err(|e| sqlx::Error::Decode(e.into()))?;
        Ok(Segment {
            index: to_u32(self.idx),
            start: self.start_s,
            end: self.end_s,
            unsure: unsure_words(&self.text, &words),
            text: self.text,
            confidence: self.confidence.map(|c| c as f32),
            words,
            speaker: self.speaker.and_then(|speaker| u16::try_from(speaker).ok()),
        })
    }
}
