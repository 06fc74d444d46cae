//! Segments, the finished pieces of a transcript. They form a log: numbered from 0, and stored before they are announced.

use super::SessionId;
use serde::{Deserialize, Serialize};

/// One word with its times in the recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Word {
    pub text: String,
    /// Seconds from the start of the recording.
    pub start: f64,
    /// Seconds from the start of the recording; not before `start`.
    pub end: f64,
    /// The engine's confidence, 0 to 1, if it gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
}

/// A finished piece of the transcript.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Segment {
    /// Its number, without gaps from 0 on; the numbers of a transcript that replaces another one continue those before.
    pub index: u32,
    /// Seconds from the start of the recording.
    pub start: f64,
    /// Seconds from the start of the recording; not before `start`.
    pub end: f64,
    pub text: String,
    /// The engine's confidence, 0 to 1, if it gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// The words with their times, if the engine gives them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
    /// Which words of the text the engine isn't sure of: their positions, from 0, where white space divides words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsure: Vec<u16>,
    /// The number of the speaker, from 1, where speakers were transcribed apart: that of the recording's channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<u16>,
}

impl Segment {
    /// A segment of which nothing is known but when it is said and its text.
    #[must_use]
    pub fn new(index: u32, start: f64, end: f64, text: &str) -> Self {
        Self {
            index,
            start,
            end,
            text: text.to_owned(),
            confidence: None,
            words: Vec::new(),
            unsure: Vec::new(),
            speaker: None,
        }
    }

    /// Where each word of the text begins, in seconds, where white space divides words. Empty if the engine's words aren't
    /// those of the text.
    #[must_use]
    pub fn word_starts(&self) -> Vec<f64> {
        if self.words.len() != self.text.split_whitespace().count() {
            return Vec::new();
        }
        self.words.iter().map(|word| word.start).collect()
    }
}

/// A speaker by number, as transcripts and pages name it.
#[must_use]
pub fn speaker_label(speaker: u16) -> String {
    format!("Speaker {speaker}")
}

/// The confidence below which the engine isn't sure of a word. With Whisper's smallest models about one word in thirty of
/// a clear recording is below, and one in three of those is wrong.
const UNSURE: f32 = 0.4;

/// Finds the words of a text that the engine isn't sure of, for [`Segment::unsure`]. None if its words aren't those of the
/// text, as in languages without spaces.
#[must_use]
pub fn unsure_words(text: &str, words: &[Word]) -> Vec<u16> {
    if words.len() != text.split_whitespace().count() {
        return Vec::new();
    }
    let unsure = (0..).zip(words).filter(|(_, word)| word.confidence.is_some_and(|confidence| confidence < UNSURE));
    unsure.map(|(position, _)| position).collect()
}

/// A segment as a `segment` event announces it: without words, so that events stay small.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct SegmentEvent {
    pub session_id: SessionId,
    pub index: u32,
    /// Seconds from the start of the recording.
    pub start: f64,
    /// Seconds from the start of the recording.
    pub end: f64,
    pub text: String,
    /// Which words of the text the engine isn't sure of: their positions, from 0, where white space divides words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsure: Vec<u16>,
    /// The number of the speaker, from 1, where speakers were transcribed apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<u16>,
}

impl SegmentEvent {
    /// The announcement of a stored segment.
    #[must_use]
    pub fn new(session_id: SessionId, segment: &Segment) -> Self {
        Self {
            session_id,
            index: segment.index,
            start: segment.start,
            end: segment.end,
            text: segment.text.clone(),
            unsure: segment.unsure.clone(),
            speaker: segment.speaker,
        }
    }
}

impl From<SegmentEvent> for Segment {
    fn from(event: SegmentEvent) -> Self {
        Self {
            index: event.index,
            start: event.start,
            end: event.end,
            text: event.text,
            confidence: None,
            words: Vec::new(),
            unsure: event.unsure,
            speaker: event.speaker,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_times_if_they_are_those_of_the_text() {
        let word = |start| Word { text: String::new(), start, end: start + 1.0, confidence: None };
        let segment = |text: &str, words: &[f64]| Segment {
            words: words.iter().copied().map(word).collect(),
            ..Segment::new(0, 0.0, 9.0, text)
        };
        assert_eq!(segment("a  b", &[0.5, 2.5]).word_starts(), [0.5, 2.5]);
        assert!(segment("a b", &[0.5]).word_starts().is_empty() && segment("a b", &[]).word_starts().is_empty());
    }

    #[test]
    fn words_of_low_confidence_are_unsure() {
        let word = |text: &str, confidence| Word { text: text.to_owned(), start: 0.0, end: 1.0, confidence };
        let words = [word("a", Some(0.9)), word("b", Some(0.39)), word("c", None)];
        assert_eq!(unsure_words("a b c", &words), [1]);
        // The words of the engine aren't those of the text.
        assert!(unsure_words("a b", &words).is_empty() && unsure_words("", &[]).is_empty());
    }
}
