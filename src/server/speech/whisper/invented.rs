//! Recognises text that Whisper invents where nothing is said: loops, lines that repeat, marks without words. It was
//! trained on subtitles, and writes what often stands there. Pure. Called by `child`.

use flate2::{Compression, write::ZlibEncoder};
use std::io::Write;

/// Text that compresses better than this is a loop. OpenAI's limit, from which on Whisper guesses anew, is 2.4, but people
/// who count or list things reach it too: "The next page is 23. The next page is 24."
const MAX_COMPRESSION: f32 = 4.0;
/// The shortest text that is judged by its compression, in bytes: short text doesn't compress.
const MIN_BYTES: usize = 80;
/// How often a line may follow itself. People repeat themselves too.
const MAX_REPEATS: usize = 3;
/// Below this mean probability a line that follows itself is invented.
const UNSURE: f32 = 0.5;

/// Looks at the lines of a recording in order.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The last line, in lower case and without punctuation, and how often it came in a row.
    last: String,
    repeats: usize,
}

impl Lines {
    /// Returns whether a line should be kept.
    pub(super) fn keep(&mut self, text: &str, confidence: Option<f32>) -> bool {
        let words = plain(text);
        if words.is_empty() || is_label(text) || is_loop(text) {
            return false;
        }
        self.repeats = if words == self.last { self.repeats + 1 } else { 0 };
        self.last = words;
        let allowed = if confidence.is_some_and(|c| c < UNSURE) { 0 } else { MAX_REPEATS };
        self.repeats <= allowed
    }
}

/// Only letters and digits, in lower case, with one space between words.
fn plain(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// A description of a sound in brackets, such as `[Music]` or `(applause)`.
fn is_label(text: &str) -> bool {
    let text = text.trim();
    [('[', ']'), ('(', ')'), ('*', '*'), ('♪', '♪')].iter().any(|(open, close)| {
        let inner = text.strip_prefix(*open).and_then(|text| text.strip_suffix(*close));
        inner.is_some_and(|inner| !inner.contains([*open, *close]))
    })
}

fn is_loop(text: &str) -> bool {
    if text.len() < MIN_BYTES {
        return false;
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let compressed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    compressed.is_ok_and(|bytes| text.len() as f32 / bytes.len() as f32 > MAX_COMPRESSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_is_kept() {
        let mut lines = Lines::default();
        for text in [
            "It was the best of times, it was the worst of times.",
            "It was the age of wisdom, it was the age of foolishness.",
            "No, no, no.",
            "We were all going direct to heaven, we were all going direct the other way.",
            "(Laughing) I can't believe it.",
            "[Music] plays and [Laughter] follows, he said",
            "42",
            "以下是普通話的句子。",
            "The next page is 23. The next page is 24. The next page is 25. The next page is 26. The next page is 27. \
             The next page is 28. The next page is 29. The next page is 31. The next page is 32. The next",
        ] {
            assert!(lines.keep(text, Some(0.9)), "{text}");
        }
    }

    #[test]
    fn loops_and_labels_are_invented() {
        let mut lines = Lines::default();
        for text in ["...", " - ", "♪ la la ♪", "[BLANK_AUDIO]", "(applause)", "*sighs*", &"Thank you. ".repeat(30), ""]
        {
            assert!(!lines.keep(text, Some(0.9)), "{text}");
        }
    }

    #[test]
    fn a_line_that_follows_itself_too_often_is_invented() {
        let kept = |confidence: f32| {
            let mut lines = Lines::default();
            (0..10).filter(|_| lines.keep("Thanks for watching!", Some(confidence))).count()
        };
        assert_eq!((kept(0.9), kept(0.3)), (4, 1));
    }
}
