//! Comma-separated values (RFC 4180) for spreadsheets: a row for each segment or each word. Pure.

use super::confidence;
use crate::model::{Segment, speaker_label};
use std::fmt::Write;

/// Tells spreadsheets that the file is UTF-8, which they don't assume.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Writes a table. `by_word`: with a row for each word, where the engine gave words.
pub(super) fn csv(segments: &[Segment], by_word: bool) -> String {
    let mut out = String::from(BYTE_ORDER_MARK);
    let text_name = if by_word { "word" } else { "text" };
    let _ = write!(out, "index,start,end,speaker,{text_name},confidence\r\n");
    for segment in segments {
        let mut row = |start: f64, end: f64, text: &str, confidence: Option<f32>| {
            let speaker = segment.speaker.map(speaker_label).unwrap_or_default();
            let confidence = confidence.map(|c| format!("{c:.3}")).unwrap_or_default();
            let (speaker, text) = (field(&speaker), field(text));
            let _ = write!(out, "{},{start:.3},{end:.3},{speaker},{text},{confidence}\r\n", segment.index);
        };
        if by_word && !segment.words.is_empty() {
            for word in &segment.words {
                row(word.start, word.end, &word.text, word.confidence);
            }
        } else {
            row(segment.start, segment.end, &segment.text, confidence(segment));
        }
    }
    out
}

/// A text as a field, in one line. What a spreadsheet would take for a formula gets an apostrophe before it.
fn field(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let guard = if text.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']) { "'" } else { "" };
    if text.contains(['"', ',']) || !guard.is_empty() {
        return format!("\"{guard}{}\"", text.replace('"', "\"\""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Word;

    #[test]
    fn fields_are_quoted_and_never_formulas() {
        for (text, expected) in [
            ("plain words", "plain words"),
            ("a, b", "\"a, b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\r\nlines", "two lines"),
            ("=HYPERLINK(\"http://x\")", "\"'=HYPERLINK(\"\"http://x\"\")\""),
            (" +1", "\"'+1\""),
            ("-2", "\"'-2\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"'=1\""),
            ("＝1", "\"'＝1\""),
            ("2 + 2 = 4", "2 + 2 = 4"),
            ("", ""),
        ] {
            assert_eq!(field(text), expected);
        }
    }

    #[test]
    fn a_row_is_a_segment_or_a_word() {
        let word = |text: &str, start, confidence| Word { text: text.to_owned(), start, end: start + 0.5, confidence };
        let segment = Segment {
            words: vec![word("on", 1.0, Some(0.5)), word("my", 1.5, Some(1.0))],
            speaker: Some(2),
            ..Segment::new(3, 1.0, 2.25, "on my")
        };
        let other = Segment { index: 4, words: Vec::new(), speaker: None, ..segment.clone() };
        let segments = [segment, other];
        assert_eq!(
            csv(&segments, false),
            "\u{feff}index,start,end,speaker,text,confidence\r\n\
             3,1.000,2.250,Speaker 2,on my,0.750\r\n4,1.000,2.250,,on my,\r\n"
        );
        assert_eq!(
            csv(&segments, true),
            "\u{feff}index,start,end,speaker,word,confidence\r\n\
             3,1.000,1.500,Speaker 2,on,0.500\r\n3,1.500,2.000,Speaker 2,my,1.000\r\n4,1.000,2.250,,on my,\r\n"
        );
    }
}
