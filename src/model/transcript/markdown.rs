//! Markdown (CommonMark) with paragraphs, for notes and for handing on. Pure; used for downloads, and by the session page for
//! copying.

use super::{Export, paragraphs::paragraphs};
use crate::model::{clock, speaker_label};
use std::fmt::Write;

/// Writes a transcript.
pub(super) fn markdown(export: &Export<'_>) -> String {
    let mut out = format!("# {}\n\n{}\n", escape(export.title()), escape(&export.facts().join(" · ")));
    if let Some(note) = export.note() {
        let _ = write!(out, "\n*{}*\n", escape(note));
    }
    for paragraph in paragraphs(&export.transcript.segments) {
        out.push('\n');
        if export.options.times {
            let _ = write!(out, "\\[{}\\] ", clock(paragraph.start));
        }
        if let Some(speaker) = paragraph.speaker {
            let _ = write!(out, "**{}:** ", speaker_label(speaker));
        }
        let text = escape(&paragraph.text());
        let begins = !export.options.times && paragraph.speaker.is_none();
        out.push_str(&if begins { escape_start(&text) } else { text });
        out.push('\n');
    }
    out
}

/// Escapes what has a meaning in Markdown anywhere in a line.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '&' | '|' | '~' | '#') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Escapes what has a meaning only at the start of a line: signs of lists, and numbers with a full stop.
fn escape_start(text: &str) -> String {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    match text.as_bytes().get(digits) {
        Some(b'-' | b'+' | b'=') if digits == 0 => format!("\\{text}"),
        Some(b'.' | b')') if digits > 0 => format!("{}\\{}", &text[..digits], &text[digits..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_markdown_are_text() {
        assert_eq!(escape("a*b _c_ <b> [x](y) `z` #1 \\ & ~ |"), r"a\*b \_c\_ \<b\> \[x\](y) \`z\` \#1 \\ \& \~ \|");
        for (text, expected) in [
            ("- so", r"\- so"),
            ("1. of May", r"1\. of May"),
            ("12) x", r"12\) x"),
            ("1.5", r"1\.5"),
            ("well - so", "well - so"),
            ("", ""),
        ] {
            assert_eq!(escape_start(text), expected);
        }
    }
}
