//! Paragraphs, for transcripts that people read: a new one begins with another speaker, after a pause, and after some
//! sentences. Pure; used by `markdown` and `docx`.

use super::words::{Ends, Piece, ends, pieces};
use crate::model::Segment;

/// A silence that begins a new paragraph, in seconds: longer than somebody takes to breathe or to find a word.
const PAUSE: f64 = 2.0;
/// After how many sentences a paragraph ends: about five lines on paper.
const SENTENCES: usize = 5;
/// Beyond this, in characters, a paragraph ends with the next segment, because some engines write no punctuation.
const LONG: usize = 600;

/// A part of a paragraph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) text: String,
    /// Whether the engine isn't sure of it.
    pub(super) unsure: bool,
}

/// A paragraph.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Paragraph {
    /// Seconds from the start of the recording.
    pub(super) start: f64,
    pub(super) speaker: Option<u16>,
    pub(super) runs: Vec<Run>,
}

impl Paragraph {
    fn new(start: f64, speaker: Option<u16>) -> Self {
        Self { start, speaker, runs: Vec::new() }
    }

    /// The whole text.
    pub(super) fn text(&self) -> String {
        self.runs.iter().map(|run| run.text.as_str()).collect()
    }

    /// Adds a piece; `space`: with a space before it.
    fn add(&mut self, piece: &Piece<'_>, space: bool) {
        match self.runs.last_mut() {
            Some(run) if run.unsure == piece.unsure => {
                if space {
                    run.text.push(' ');
                }
                run.text.push_str(piece.text);
            }
            Some(run) => {
                // The space belongs to the words that the engine is sure of.
                let own = if space && run.unsure { " " } else { "" };
                if space && !run.unsure {
                    run.text.push(' ');
                }
                self.runs.push(Run { text: format!("{own}{}", piece.text), unsure: piece.unsure });
            }
            None => self.runs.push(Run { text: piece.text.to_owned(), unsure: piece.unsure }),
        }
    }
}

/// Divides a transcript.
pub(super) fn paragraphs(segments: &[Segment]) -> Vec<Paragraph> {
    let mut all: Vec<Paragraph> = Vec::new();
    // Where the last piece ended, and what the current paragraph has.
    let mut heard: Option<f64> = None;
    let (mut sentences, mut chars) = (0, 0);
    for segment in segments {
        let pieces = pieces(segment);
        for (n, piece) in pieces.iter().enumerate() {
            let first = n == 0;
            let silence = heard.map_or(0.0, |heard| piece.start - heard);
            let goes_on = silence < PAUSE && sentences < SENTENCES && !(first && chars >= LONG);
            match all.last_mut().filter(|last| goes_on && last.speaker == segment.speaker) {
                // Segments are divided by white space, except in scripts that have none.
                Some(last) => last.add(piece, piece.spaced || (first && needs_space(last, piece))),
                None => {
                    (sentences, chars) = (0, 0);
                    let mut paragraph = Paragraph::new(piece.start, segment.speaker);
                    paragraph.add(piece, false);
                    all.push(paragraph);
                }
            }
            chars += piece.text.chars().count() + usize::from(piece.spaced || first);
            sentences += usize::from(ends(piece, pieces.get(n + 1)) == Ends::Sentence);
            heard = Some(heard.unwrap_or(piece.end).max(piece.end));
        }
    }
    all
}

/// Whether a space stands between the text so far and the first piece of another segment.
fn needs_space(before: &Paragraph, piece: &Piece<'_>) -> bool {
    let wide = |c: char| unicode_width::UnicodeWidthChar::width(c) == Some(2) && !is_hangul(c);
    let last = before.runs.last().and_then(|run| run.text.chars().last());
    !(last.is_some_and(wide) && piece.text.chars().next().is_some_and(wide))
}

/// Korean has wide characters and spaces.
fn is_hangul(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{ac00}'..='\u{d7a3}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(start: f64, end: f64, text: &str, speaker: Option<u16>) -> Segment {
        Segment { speaker, ..Segment::new(0, start, end, text) }
    }

    fn texts(segments: &[Segment]) -> Vec<String> {
        paragraphs(segments).iter().map(Paragraph::text).collect()
    }

    #[test]
    fn a_pause_and_another_speaker_begin_a_paragraph() {
        let segments = [
            segment(0.0, 1.0, "One and", None),
            segment(1.5, 2.0, "two.", None),
            segment(4.0, 5.0, "Three.", None),
            segment(5.0, 6.0, "Four.", Some(2)),
            segment(6.0, 7.0, "  ", Some(1)),
        ];
        assert_eq!(texts(&segments), ["One and two.", "Three.", "Four."]);
        let all = paragraphs(&segments);
        assert_eq!((all[1].start, all[2].speaker), (4.0, Some(2)));
    }

    #[test]
    fn a_paragraph_ends_after_some_sentences_also_within_a_segment() {
        let text = "A b. ".repeat(12);
        assert_eq!(
            texts(&[segment(0.0, 9.0, &text, None)]),
            ["A b. A b. A b. A b. A b."; 2].into_iter().chain(["A b. A b."]).collect::<Vec<_>>()
        );
        // Without punctuation, it ends with a segment.
        let lines = vec![segment(0.0, 1.0, &"word ".repeat(50), None); 5];
        let lengths: Vec<usize> = texts(&lines).iter().map(|text| text.split(' ').count()).collect();
        assert_eq!(lengths, [150, 100]);
    }

    #[test]
    fn unsure_words_are_runs_of_their_own() {
        let one = Segment { unsure: vec![1, 2], ..segment(0.0, 1.0, "he knew it well", None) };
        let runs = paragraphs(&[one]).remove(0).runs;
        let runs: Vec<_> = runs.iter().map(|run| (run.text.as_str(), run.unsure)).collect();
        assert_eq!(runs, [("he ", false), ("knew it", true), (" well", false)]);
    }

    #[test]
    fn segments_of_scripts_without_spaces_are_joined_without() {
        let segments =
            [segment(0.0, 1.0, "今日は", None), segment(1.0, 2.0, "晴れです", None), segment(2.0, 3.0, "OK", None)];
        assert_eq!(texts(&segments), ["今日は晴れです OK"]);
        assert_eq!(texts(&[segment(0.0, 1.0, "안녕", None), segment(1.0, 2.0, "하세요", None)]), ["안녕 하세요"]);
    }

    proptest! {
        #[test]
        fn no_word_is_lost(
            lines in proptest::collection::vec(("[a-zA-Z.,!? 今。]{0,60}", 0.0..3.0f64, proptest::option::of(1u16..3)), 0..12)
        ) {
            let mut at = 0.0;
            let segments: Vec<Segment> = lines.iter().map(|(text, gap, speaker)| {
                at += gap + 1.0;
                segment(at - 1.0, at, text, *speaker)
            }).collect();
            let visible = |text: String| text.split_whitespace().collect::<String>();
            let written = visible(texts(&segments).concat());
            prop_assert_eq!(written, visible(segments.iter().map(|s| s.text.as_str()).collect()));
            prop_assert!(paragraphs(&segments).is_sorted_by(|a, b| a.start <= b.start));
        }
    }
}
