//! Recognises text that Whisper invents where nothing is said: loops, lines that repeat, marks without words. It was
//! trained on subtitles, and writes what often stands there. What people really say again and again is told from that by
//! how long they speak. Pure. Called by `child`.

use flate2::{Compression, write::ZlibEncoder};
use std::io::Write;

/// Text that compresses better than this is a loop. OpenAI's limit, from which on Whisper guesses anew, is 2.4, but people
/// who count or list things reach it too: "The next page is 23. The next page is 24."
const MAX_COMPRESSION: f32 = 4.0;
/// The shortest text that is judged by its compression, in bytes: short text doesn't compress.
const MIN_BYTES: usize = 80;
/// How often a line may follow itself if there isn't enough speech for it, or Whisper isn't sure of it.
const MAX_REPEATS: usize = 3;
/// Below this mean probability, of all lines that follow each other, Whisper isn't sure.
const UNSURE: f32 = 0.5;
/// More characters than these for each second of speech are more than anybody says: people say 15 to 22. A loop of Whisper's
/// fills a window with 28 to 32.
const MAX_CHARS_PER_SECOND: f64 = 27.0;
/// By how much the times of a line may be wrong, in seconds of speech.
const TOLERANCE: f64 = 0.3;

/// What is thought of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Said,
    /// It has no words, only marks or the description of a sound.
    NoWords,
    /// Whisper repeats itself, or so it seems.
    Repeated,
}

/// Looks at the lines of a recording in order.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The last line, in lower case and without punctuation, and how often it came in a row.
    last: String,
    repeats: usize,
    /// The characters of these lines, the seconds in which somebody speaks meanwhile, and the sum of their confidences.
    chars: usize,
    speech: f64,
    confidence: f32,
}

impl Lines {
    /// Judges a line, during which somebody speaks for `speech` seconds.
    pub(super) fn judge(&mut self, text: &str, confidence: Option<f32>, speech: f64) -> Verdict {
        let words = plain(text);
        if words.is_empty() || is_label(text) {
            return Verdict::NoWords;
        }
        if words == self.last {
            self.repeats += 1;
        } else {
            *self = Self { last: words, ..Self::default() };
        }
        let chars = text.chars().count();
        self.chars += chars;
        self.speech += speech;
        self.confidence += confidence.unwrap_or(1.0);
        let is_sure = self.confidence >= UNSURE * (self.repeats + 1) as f32;
        let allowed = match (can_be_said(self.chars, self.speech), is_sure) {
            (true, true) => usize::MAX,
            (false, false) => 0,
            _ => MAX_REPEATS,
        };
        if self.repeats > allowed || (is_loop(text) && !can_be_said(chars, speech)) {
            return Verdict::Repeated;
        }
        Verdict::Said
    }
}

/// Whether so many characters can be said in so many seconds of speech.
fn can_be_said(chars: usize, speech: f64) -> bool {
    chars as f64 <= (speech + TOLERANCE) * MAX_CHARS_PER_SECOND
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
            assert_eq!(lines.judge(text, Some(0.9), 0.0), Verdict::Said, "{text}");
        }
    }

    #[test]
    fn loops_and_labels_are_invented() {
        let mut lines = Lines::default();
        for text in ["...", " - ", "♪ la la ♪", "[BLANK_AUDIO]", "(applause)", "*sighs*", ""] {
            assert_eq!(lines.judge(text, Some(0.9), 5.0), Verdict::NoWords, "{text}");
        }
        // 330 characters, for which people need a quarter of a minute.
        let text = "Thank you. ".repeat(30);
        assert_eq!(lines.judge(&text, Some(0.9), 10.0), Verdict::Repeated);
        assert_eq!(lines.judge(&text, Some(0.9), 15.0), Verdict::Said);
    }

    #[test]
    fn a_line_that_follows_itself_needs_somebody_who_says_it() {
        let kept = |confidence: f32, speech: f64| {
            let mut lines = Lines::default();
            let verdicts = (0..10).map(|_| lines.judge("Thanks for watching!", Some(confidence), speech));
            verdicts.filter(|verdict| *verdict == Verdict::Said).count()
        };
        assert_eq!((kept(0.9, 0.1), kept(0.3, 0.1)), (4, 1));
        assert_eq!((kept(0.9, 1.2), kept(0.3, 1.2)), (10, 4));
        // The times of single lines are wrong, those of all together are right; and so are the confidences.
        let mut lines = Lines::default();
        for (speech, confidence) in [(1.2, 0.9), (1.2, 0.6), (0.2, 0.9), (2.2, 0.4)].repeat(5) {
            assert_eq!(lines.judge("Please hold the line.", Some(confidence), speech), Verdict::Said);
        }
    }
}
